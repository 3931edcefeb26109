"""Small scans, and commands run as programs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
#: a training of a second on the smallest usable scan
SMALL = ("--batch_size", "8", "--probe_refine_sweeps", "1", "--logger", "none", "--accelerator", "cpu")


def small_scan(seed: int = 0, count: int = 16, N: int = 32) -> dict[str, Any]:
    """A scan of `count` patterns of N x N counts with its probe."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    x, y = np.meshgrid(np.arange(side) * 4.0 + 20, np.arange(side) * 4.0 + 20)
    radius = np.hypot(*np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2))
    return {
        "xcoords": x.ravel()[:count],
        "ycoords": y.ravel()[:count],
        "diff3d": rng.poisson(100 * np.exp(-radius / 4), (count, N, N)).astype(np.uint16),
        "probeGuess": np.exp(-((radius / 6) ** 2)).astype(np.complex64),
    }


def environment(**more: str) -> dict[str, str]:
    """One thread, this checkout, no terminal."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **more,
    }


def ptycho(*words: object, cwd: Path, timeout: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
    """`ptycho WORDS` as a program, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ptycho.cli", *map(str, words)],
        cwd=cwd, env=environment(**more), capture_output=True, text=True, errors="replace",
        timeout=timeout, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def begin(*words: object, cwd: Path, entry: tuple[str, ...] = ("-m", "ptycho.cli")) -> subprocess.Popen[str]:
    """`ptycho WORDS` as a program that is still running."""
    return subprocess.Popen(
        [sys.executable, *entry, *map(str, words)],
        cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def processes_of(launcher: int) -> dict[int, int]:
    """Rank -> process of the children of a launcher."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "environ").read_bytes().split(b"\0") if parent == launcher else []
        except (OSError, ValueError):
            continue
        found |= {int(word[5:]): int(entry.name) for word in words if word.startswith(b"RANK=")}
    return found


def wait_for(path: Path, process) -> None:
    """Until a run has written a file."""
    end = time.monotonic() + 300
    while not path.exists():
        if process.poll() is not None:
            pytest.fail(f"it ended before {path.name} was there: {process.communicate()[1]}")
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.05)
