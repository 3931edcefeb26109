"""Time and memory of grouping a large scan: prints one line per size, to show that the cost is linear.

    python benchmarks/grouping.py [--sizes 250000 500000 1000000] [--gridsize 2] [--neighbors 6] [--seed 0]

Each size runs in a process of its own, so that the peak memory is that size's alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ptycho.scan.grouping import group_positions


def measure(size: int, gridsize: int, neighbors: int, seed: int) -> str:
    """Group `size` random positions once; peak memory is that of the whole process, imports included."""
    rng = np.random.default_rng(seed)
    side = 3.0 * np.sqrt(size)
    x, y = rng.uniform(0, side, size), rng.uniform(0, side, size)
    start = time.perf_counter()
    groups = group_positions(x, y, gridsize, n_neighbors=neighbors, seed=seed)
    seconds = time.perf_counter() - start
    assert groups.shape == (size, gridsize**2)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{size:>10d} {seconds:>8.2f} {1e6 * seconds / size:>12.2f} {peak_mib:>10.0f}"


def main() -> None:
    """Run every size in a fresh process and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--gridsize", type=int, default=2)
    parser.add_argument("--neighbors", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(measure(args.one, args.gridsize, args.neighbors, args.seed))
        return
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"gridsize {args.gridsize}, K {args.neighbors}, seed {args.seed}, numpy {np.__version__}")
    print(f"{'positions':>10} {'seconds':>8} {'us/position':>12} {'peak MiB':>10}")
    for size in args.sizes:
        options = [
            "--gridsize",
            str(args.gridsize),
            "--neighbors",
            str(args.neighbors),
            "--seed",
            str(args.seed),
        ]
        subprocess.run([sys.executable, __file__, "--one", str(size), *options], check=True)


if __name__ == "__main__":
    main()
