"""What every benchmark prints first: the machine, its threads, its matrix-multiply rate."""

from __future__ import annotations

import os
import platform
import time

import torch


def cpu_name() -> str:
    """The processor as the system names it."""
    try:
        with open("/proc/cpuinfo", encoding="ascii") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def matmul_gflops(size: int = 1024, repeats: int = 12) -> float:
    """Best float32 matrix-multiply rate of a few tries, GFLOP/s: the yardstick for network rates."""
    a = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best / 1e9


def describe(seed: int) -> str:
    """One line: processor, cores, threads, versions, load, seed."""
    load = os.getloadavg()[0]
    return (
        f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, "
        f"load {load:.1f}, seed {seed}"
    )
