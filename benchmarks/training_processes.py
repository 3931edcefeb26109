"""Two processes of a training against one, on this machine: threads against processes.

    python benchmarks/training_processes.py [--N 64] [--positions 256] [--epochs 3] [--repeats 1] [--seed 0]

The same steps three ways: one process with one thread, one with two threads, two processes with one thread
each. A step gathers two batches of 16 in all of them. Patterns a second are those of the training itself, the
best epoch after the first, by the wall clock: on a machine that others use as well, only the ratios mean
something, and those little. Processor seconds are of the whole command, with start-up and loading.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import describe
from ptycho.io.resources import RATE
from ptycho.simulation import Scenario, simulate

ROOT = Path(__file__).resolve().parents[1]
#: name -> threads of a process, flags
WAYS = {
    "1 process, 1 thread": (1, ("--accum_steps", "2")),
    "1 process, 2 threads": (2, ("--accum_steps", "2")),
    "2 processes, 1 thread each": (2, ("--devices", "2")),
}


def measured(folder: Path, threads: int, flags: tuple[str, ...], epochs: int) -> tuple[float, float]:
    """(patterns a second of the best epoch after the first, processor seconds) of one training.

    `--devices 2` shares what OMP_NUM_THREADS says among its processes.
    """
    words = [
        "train", "scan.npz", "-o", "run", "--nepochs", str(epochs), "--batch_size", "16",
        "--probe_from", "guess", "--accelerator", "cpu", "--log_throughput", "--overwrite", "--quiet", *flags,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "ptycho", *words], cwd=folder, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "run" / "logs" / "metrics.csv").open(newline="") as file:
        rates = [float(row[RATE]) for row in csv.DictReader(file)]
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return max(rates[1:] or rates), used


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--N", type=int, default=64)
    parser.add_argument("--positions", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(
        describe(asked.seed),
        "\n\n| way | patterns/s | against the first | CPU s of the command |\n|---|---|---|---|",
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        scan = Scenario(N=asked.N, n_positions=asked.positions, photons=1e5, seed=asked.seed)
        simulate(scan).raw.to_file(folder / "scan.npz")
        first = 0.0
        for name, (threads, flags) in WAYS.items():
            rate, used = max(measured(folder, threads, flags, asked.epochs) for _ in range(asked.repeats))
            first = first or rate
            print(f"| {name} | {rate:.0f} | {rate / first:.2f} | {used:.1f} |", flush=True)


if __name__ == "__main__":
    main()
