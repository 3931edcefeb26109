"""CPU seconds of whole commands on a node that others use as well, against the same node without them.

    python benchmarks/busy_node.py [--rounds 2] [--only NAME] [--json FILE]

Each command runs in turns: idle, busy, idle, busy, ...; busy means with as many endless loops beside it as
the machine has cores. What counts is CPU time (user and system) of the command, which a shared node must not
raise: threads that spin while they wait would. The wall time is printed too. Where other work runs on the
machine the idle turns are not idle, and the ratio says less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SET_BY_OTHERS = (
    "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS",
)  # fmt: skip
_TRAIN = (
    "train", "scan.npz", "--nepochs", "3", "--probe_refine_sweeps", "1", "--logger", "none",
    "--accelerator", "cpu", "--overwrite", "--quiet",
)  # fmt: skip
_INFER = ("infer", "--data", "scan.npz", "--overwrite", "--quiet", "--accelerator", "cpu")


def _of(backend: str) -> dict[str, tuple[str, ...]]:
    run, end = f"run_{backend}", ("--backend", backend)
    return {
        f"train {backend}": (*_TRAIN, "-o", run, *end),
        f"infer {backend}": (*_INFER, "--model", run, "-o", f"image_{backend}", *end),
    }


COMMANDS: dict[str, tuple[str, ...]] = {
    **_of("pytorch"),
    **_of("tensorflow"),
    "reconstruct": ("reconstruct", "scan.npz", "-o", "made", "--sweeps", "20", "--overwrite", "--quiet"),
}  # fmt: skip


def measured(words: tuple[str, ...], folder: Path) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of `ptycho WORDS`, its threads as it chooses them."""
    settings = {name: value for name, value in os.environ.items() if name not in _SET_BY_OTHERS}
    settings |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "ptycho.cli", *words], cwd=folder, env=settings)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"ptycho {' '.join(words)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - begin


def beside_others(words: tuple[str, ...], folder: Path) -> tuple[float, float]:
    """The same while endless loops take every core."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        return measured(words, folder)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=COMMANDS)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found: dict[str, dict[str, object]] = {}
    print(f"{'command':<18}{'idle, CPU s':>13}{'busy, CPU s':>13}{'ratio':>8}{'wall, s':>16}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured(("simulate", "-o", "scan.npz", "--N", "64", "--n_positions", "256", "--quiet"), folder)
        for command, words in COMMANDS.items():
            needed = asked.only is not None and asked.only.replace("infer", "train") == command != asked.only
            if needed:  # an inference needs its model
                measured(words, folder)
            if asked.only not in (None, command):
                continue
            idle, busy = [], []
            for _ in range(asked.rounds):
                idle.append(measured(words, folder))
                busy.append(beside_others(words, folder))
            one, other = (statistics.median(cpu for cpu, _ in turns) for turns in (idle, busy))
            wall = (
                f"{statistics.median(w for _, w in idle):.1f} -> {statistics.median(w for _, w in busy):.1f}"
            )
            found[command] = {"idle": idle, "busy": busy, "ratio": other / one}
            print(f"{command:<18}{one:>13.2f}{other:>13.2f}{other / one:>8.2f}{wall:>16}", flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
