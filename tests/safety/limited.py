"""Work under a limit of memory that the patterns of a scan do not fit into.

The limit (RLIMIT_DATA, what a process may allocate; mapped files do not count) is set on what the same work
on a small scan left the process with, so that neither Python nor its libraries count. As a program:
`limited.py MEGABYTES SMALL LARGE`, a JSON list of [word, ...] commands on stdin, "{scan}" for the scan.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from programs import environment


def scan_file(path: Path, count: int, N: int, step_px: float = 3.0) -> Path:
    """A raster of `count` patterns, no two alike; written, and made, in parts."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(count)))
    x, y = np.meshgrid(np.arange(side) * step_px, np.arange(side) * step_px)
    jitter = rng.uniform(-0.5, 0.5, (2, count))
    radius = np.hypot(*np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2))
    block = rng.poisson(200 * np.exp(-radius / 3), (100, N, N)).astype(np.uint16)
    with h5py.File(path, "w") as archive:
        patterns = archive.create_dataset(
            "patterns", (count, N, N), np.uint16, chunks=(8, N, N), compression="lzf"
        )
        for number, begin in enumerate(range(0, count, 100)):
            block[:, 0, :8] = np.arange(100)[:, None] + number
            patterns[begin : begin + 100] = block[: count - begin]
        archive["probe_position_x_px"] = x.ravel()[:count] + jitter[0] + N
        archive["probe_position_y_px"] = y.ravel()[:count] + jitter[1] + N
        archive["probe"] = np.exp(-((radius / 6) ** 2)).astype(np.complex64)
        archive["object"] = np.ones((round(side * step_px) + 2 * N,) * 2, np.complex64)
        archive["bad_pixels"] = np.zeros((N, N), bool)
    return path


def data_bytes() -> int:
    """What this process has allocated, as RLIMIT_DATA counts it."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if "VmData" in one)
    return int(line.split()[1]) * 1024


def limit(more_bytes: int) -> None:
    """From now on this process may allocate so much more; the workspace of OpenBLAS is not counted."""
    square = np.ones((512, 512))
    np.linalg.solve(square @ square + 600 * np.eye(512), square)
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + more_bytes,) * 2)


def run_limited(
    small: Path,
    large: Path,
    megabytes: int,
    commands: Sequence[Sequence[str]],
    folder: Path,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Every command on the small scan, then, limited, on the large one; stdout: a line of JSON, the codes."""
    return subprocess.run(
        [sys.executable, __file__, str(megabytes), str(small), str(large)],
        input=json.dumps(commands), cwd=folder, env=environment(MALLOC_ARENA_MAX="2"), capture_output=True,
        text=True, timeout=timeout,
    )  # fmt: skip


def _main() -> None:
    from ptycho.cli.main import main

    megabytes, small, large = sys.argv[1:]
    commands = json.load(sys.stdin)
    codes = {}
    for scan in (small, large):
        if scan == large:
            limit(int(megabytes) * 2**20)
        codes[scan] = [main([*(word.format(scan=scan) for word in words), "--quiet"]) for words in commands]
    sys.stdout.write(json.dumps(codes) + "\n")


if __name__ == "__main__":
    _main()
