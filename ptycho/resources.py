"""What a process needed of the machine."""

from __future__ import annotations

import sys


def peak_memory_gib() -> float:
    """The most memory this process has held so far, GiB; NaN on systems that do not say."""
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
