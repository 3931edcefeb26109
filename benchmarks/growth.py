"""How time and memory grow with the scan, and what several processes bring: docs/workflows/scale.md.

    OMP_NUM_THREADS=1 python benchmarks/growth.py [--sizes 2500 10000] [--N 64] [--devices 1 2] [--seed 0]

Simulated scans on disk (HDF5, uint16, compressed). Each line is one command of its own, a program with its
start-up: processor seconds, and the most memory that it held for itself, from the system's own account of the
child. `infer` uses an untrained network: its time does not depend on what it learned.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from streaming import write_scan

ROOT = Path(__file__).resolve().parents[1]


def command(*words: object) -> tuple[float, float, float]:
    """Processor seconds, wall seconds and peak resident GiB of `ptycho WORDS`, children included."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [sys.executable, "-m", "ptycho", *map(str, words)], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(error)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - begun, after.ru_maxrss / 2**20


def untrained(folder: Path, N: int) -> Path:
    """A model of the default network that has seen no scan but a small one."""
    small = folder / "small.h5"
    write_scan(small, 64, N, 0)
    command(
        "train", small, "-o", folder / "model", "--N", N, "--nepochs", 1, "--logger", "none",
        "--probe_refine_sweeps", 1,
    )  # fmt: skip
    return folder / "model"


def main() -> None:
    """Print one line a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2500, 10000, 40000])
    parser.add_argument("--N", type=int, default=64)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print("| command | patterns | processes | CPU s | wall s | peak GiB of one process |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = untrained(folder, asked.N)
        for count in asked.sizes:
            scan = folder / f"scan{count}.h5"
            write_scan(scan, count, asked.N, asked.seed)
            for devices in asked.devices:
                more = ("--devices", devices, "--overwrite", "--patterns", "disk")
                infer = ("infer", "--model", model, "--data", scan, "-o", folder / "image", *more)
                sweep = (
                    "reconstruct", scan, "-o", folder / "made", "--sweeps", 1, "--start", "flat",
                    "--levels", 1, "--prior", "none", *more,
                )  # fmt: skip
                for name, words in (("infer", infer), ("reconstruct, 1 sweep", sweep)):
                    used, wall, memory = command(*words)
                    row = f"| {name} | {count} | {devices} | {used:.1f} | {wall:.1f} | {memory:.2f} |"
                    print(row, flush=True)
            scan.unlink()


if __name__ == "__main__":
    main()
