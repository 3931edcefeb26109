"""Sets the number of threads and how they wait, before the libraries are loaded.

By default OpenMP threads wait for each other in a busy loop. On a shared node a thread may wait for another
thread that has no core; the loop then uses many times the CPU time of the work. A short loop followed by
sleep costs nothing if the cores are free. Only the command line sets this, for its own process; library code
never does.
"""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
#: wait loops of GNU OpenMP before a thread sleeps, some microseconds; the default is a thousand times more
_SPINS = "1000"
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def settle_threads(environment: MutableMapping[str, str]) -> None:
    """Set the number of threads (one per usable core) and how they wait, unless the user has set them.

    OMP_NUM_THREADS has precedence. Without it, the number is the minimum of the cores of the process, the
    quota of its control groups and SLURM_CPUS_PER_TASK.
    """
    if not any(name in environment for name in _WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment["GOMP_SPINCOUNT"] = _SPINS
        environment["KMP_BLOCKTIME"] = "0"
    threads = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if not threads.isdigit() or int(threads) < 1:
        threads = str(usable_cores(environment))
        environment["OMP_NUM_THREADS"] = threads
    for name in ("TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS"):
        environment.setdefault(name, threads)


def usable_cores(environment: MutableMapping[str, str]) -> int:
    """Cores that this process may use, at least one."""
    try:
        found = [len(os.sched_getaffinity(0))]
    except AttributeError:  # macOS, Windows
        found = [os.cpu_count() or 1]
    asked = environment.get("SLURM_CPUS_PER_TASK", "")
    if asked.isdigit():
        found.append(int(asked))
    quota = _quota()
    if quota is not None:
        found.append(math.ceil(quota))
    return max(1, min(found))


def _quota() -> float | None:
    """Cores that the control groups allow this process; None without a limit."""
    found = []
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, kinds, place = (line.split(":", 2) + ["", ""])[:3]
        root = _GROUPS if kinds == "" else _GROUPS / "cpu" if "cpu" in kinds.split(",") else None
        if root is None:
            continue
        group = root / place.lstrip("/")
        for folder in (group, *group.parents):
            found += _limit(folder, newer=kinds == "")
            if folder == root:
                break
    return min(found, default=None)


def _limit(folder: Path, *, newer: bool) -> list[float]:
    if newer:
        words = _text(folder / "cpu.max").split()
    else:
        words = [_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]) > 0:
        return [int(words[0]) / int(words[1])]
    return []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
