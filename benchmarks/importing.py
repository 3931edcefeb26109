"""Import 20,000 frames of 256 x 256 uint32, bitshuffle LZ4: time and the most memory that the import held.

Run: python benchmarks/importing.py [--frames INT]. Each command runs in a process of its own, and the peak is
what the system counted for it. Two sizes are run, so that the growth with the number of frames can be seen.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

SIDE, BLOCK = 256, 500


def write_source(path: Path, n_frames: int) -> None:
    """A file as an Eiger leaves it: dim frames of counts with a bright middle, and positions in metres."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    mean = 40 * np.exp(-(np.hypot(row, column) ** 2) / 800) + 0.02
    block = rng.poisson(mean, (BLOCK, SIDE, SIDE)).astype(np.uint32)
    with h5py.File(path, "w") as archive:
        frames = archive.create_dataset(
            "frames", (n_frames, SIDE, SIDE), np.uint32, chunks=(1, SIDE, SIDE),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )  # fmt: skip
        for begin in range(0, n_frames, BLOCK):
            end = min(begin + BLOCK, n_frames)
            frames[begin:end] = block[: end - begin]
        side = int(np.ceil(np.sqrt(n_frames)))
        archive["x"] = np.arange(n_frames) % side * 2e-7
        archive["y"] = np.arange(n_frames) // side * 2e-7
        archive["probe"] = np.exp(-(np.hypot(row, column) ** 2) / 800).astype(np.complex64)


def import_words(folder: Path) -> list[str]:
    """The command line of the import."""
    return [
        "import", str(folder / "source.h5"), "-o", str(folder / "scan.h5"), "--set", "path.frames=frames",
        "path.positions_x=x", "path.positions_y=y", "path.probe=probe", "object_pixel_size_m=30e-9",
    ]  # fmt: skip


def measured(words: list[str]) -> tuple[float, float]:
    """(seconds of CPU, peak GiB) of one command in a process of its own."""
    code = (
        "import resource, sys; from ptycho.cli.main import main; status = main(sys.argv[1:]); "
        "u = resource.getrusage(resource.RUSAGE_SELF); "
        "print('MEASURED', u.ru_utime + u.ru_stime, u.ru_maxrss / 2**20); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], check=False, capture_output=True, text=True, timeout=3600
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    line = next(line for line in done.stdout.splitlines() if line.startswith("MEASURED"))
    return float(line.split()[1]), float(line.split()[2])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    largest = parser.parse_args().frames
    print(f"{'frames':>8} {'unpacked GiB':>13} {'command':>10} {'CPU s':>8} {'peak GiB':>9}")
    for n_frames in (largest // 4, largest):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_source(folder / "source.h5", n_frames)
            size = n_frames * SIDE * SIDE * 4 / 2**30
            for words in (import_words(folder), ["validate", str(folder / "scan.h5")]):
                seconds, peak = measured(words)
                print(f"{n_frames:>8} {size:>13.2f} {words[0]:>10} {seconds:>8.1f} {peak:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
