"""What a process needed of the machine."""

from __future__ import annotations

import sys

#: names in the logs of both backends: patterns per second in training; means over processes, GiB
RATE = "diagnostics/throughput_patterns_per_s_rate"
MEMORY = "diagnostics/memory_peak_gib_mean"
GPU_MEMORY = "diagnostics/memory_gpu_peak_gib_mean"


def peak_memory_gib() -> float:
    """The most memory this process has held so far, GiB; NaN on systems that do not say."""
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
