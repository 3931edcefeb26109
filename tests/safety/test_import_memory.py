"""An import is streamed: what it holds does not grow with the frames, and it shows how far it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from programs import environment

SIDE = 256
#: an import, and the most that this program itself held; the system's count begins with what its parent held
CODE = (
    "import sys; from ptycho.cli.main import main; status = main(sys.argv[1:]); "
    "held = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')); "
    "print('PEAK', int(held.split()[1]) * 1024); sys.exit(status)"
)


def source(path: Path, count: int) -> Path:
    block = np.random.default_rng(0).poisson(0.1, (100, SIDE, SIDE)).astype(np.uint32)
    with h5py.File(path, "w") as archive:
        frames = archive.create_dataset(
            "f", (count, SIDE, SIDE), np.uint32, chunks=(1, SIDE, SIDE), **hdf5plugin.Bitshuffle(cname="lz4")
        )
        for begin in range(0, count, 100):
            frames[begin : begin + 100] = block
        archive["x"], archive["y"] = np.divmod(np.arange(count), 40) * np.array([[2e-7], [3e-7]])
    return path


def peak_bytes(path: Path) -> int:
    """The most memory that an import of this file held, as the system counted it."""
    words = ["path.frames=f", "path.positions_x=x", "path.positions_y=y", "object_pixel_size_m=30e-9"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, "import", str(path), "-o", f"{path}.made.h5", "--set", *words],
        env=environment(), capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return int(next(line for line in done.stdout.splitlines() if line.startswith("PEAK")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_the_peak_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    """1,600 frames are 400 MiB unpacked; the peak is that of Python, its libraries and a few chunks."""
    few, many = (peak_bytes(source(tmp_path / f"{count}.h5", count)) for count in (400, 1600))
    assert many - few < 64 * 2**20 and many < 512 * 2**20, (few, many)


def test_the_progress_goes_to_the_end(tmp_path: Path) -> None:
    from ptycho.io.cxi import write_scan_cxi
    from ptycho.io.import_settings import found_in, read_settings
    from ptycho.io.importing import prepare

    paths, options = read_settings(
        {"path.frames": "f", "path.positions_x": "x", "path.positions_y": "y", "object_pixel_size_m": 3e-8}
    )
    made = prepare(found_in(source(tmp_path / "a.h5", 300), paths=paths), options)
    said: list[tuple[int, int]] = []
    write_scan_cxi(tmp_path / "b.h5", made, lambda done, total: said.append((done, total)))
    assert (
        len(said) > 1 and said[-1] == (300, 300) and [done for done, _ in said] == sorted(d for d, _ in said)
    )
