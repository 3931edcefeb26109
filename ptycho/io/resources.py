"""How much memory a process has used, and how much it can still take."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

#: names in the logs of both backends: patterns per second in training; means over processes, GiB
RATE = "diagnostics/throughput_patterns_per_s_rate"
MEMORY = "diagnostics/memory_peak_gib_mean"
GPU_MEMORY = "diagnostics/memory_gpu_peak_gib_mean"

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def peak_memory_gib() -> float:
    """The most memory this process has held so far, GiB; NaN on systems that do not say."""
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def available_memory_bytes() -> int | None:
    """Memory that this process can still take without swapping, bytes; None where the system does not say.

    The smallest of three numbers: the free memory of the machine (file caches count as free), and what the
    limits of the process's control groups and of the process itself (`ulimit -v`, `ulimit -d`) leave. A job
    in a cluster often has only a share of its machine.
    """
    found = [free for free in (_machine(), *_limits(), *_own_limits()) if free is not None]
    return max(0, min(found)) if found else None


def _machine() -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _limits() -> Iterator[int]:
    """What each control group above this process leaves of its limit; version 2 and version 1."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, kinds, place = line.strip().split(":", 2)
        if kinds == "":
            root, names = _CONTROL_GROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            root = _CONTROL_GROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / place.lstrip("/")
        for folder in (group, *group.parents):
            limit, used = (_number(folder / name) for name in names[:2])
            if limit is not None and used is not None:
                yield limit - used + _cached(folder, names[2])
            if folder == root:
                break


def _own_limits() -> Iterator[int]:
    """What the limits of address space and of data leave to this process."""
    try:
        import resource
    except ImportError:
        return
    pages = "".join(_lines(Path("/proc/self/statm"))).split()
    if len(pages) < 6:
        return
    size = os.sysconf("SC_PAGE_SIZE")
    for name, used in (("RLIMIT_AS", pages[0]), ("RLIMIT_DATA", pages[5])):
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - int(used) * size


def _cached(folder: Path, name: str) -> int:
    """File pages of a control group, which it gives back when memory is asked for."""
    for line in _lines(folder / "memory.stat"):
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
