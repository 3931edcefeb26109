"""How time and memory grow with the scan, and what several processes bring: docs/workflows/scale.md.

    OMP_NUM_THREADS=1 python benchmarks/growth.py [--sizes 2500 10000 40000 160000] [--N 64] [--devices 1]
        [--modes 1] [--sweeps 1] [--commands infer reconstruct] [--folder DIR] [--json FILE] [--seed 0]

Simulated scans on disk (HDF5, uint16, compressed), written in chunks. Each line is one command of its own, a
program with its start-up, checks, R and report; `infer` runs the network that ships. CPU s: of the program
and its children, as the system counted them. Own memory: the most anonymous memory of its largest process,
sampled every 20 ms: what it allocated. Resident memory also counts pages of mapped files, which the system
takes back when it needs them. Canvas: pixels of the image. A line through each command's rows follows, its
largest departure, and what memory grows by. --folder: for the scans, which stay there and are used again.
--json: rows are added to FILE, for benchmarks/cost_model.py, and the lines are through all rows of FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from streaming import write_scan

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("command", "N", "patterns", "modes", "sweeps", "processes", "cpu_s", "wall_s", "own_gib",
           "resident_gib", "canvas_px")  # fmt: skip
_SAMPLED_EVERY_S = 0.02
_FIELDS = ("RssAnon", "VmHWM")


def family(process: int) -> Iterator[int]:
    """A process and all its descendants that live."""
    yield process
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))
    except OSError:
        return


def held_bytes(process: int) -> tuple[int, int]:
    """What a process holds for itself now, and the most that was resident so far; 0 where it is gone."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0, 0
    found = dict(line.split(":", 1) for line in text.splitlines())
    own, resident = (int(found[name].split()[0]) * 1024 if name in found else 0 for name in _FIELDS)
    return own, resident


class Most(threading.Thread):
    """The most memory of any process of a family: its own, and resident."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.done = process, threading.Event()
        self.own = self.resident = 0

    def run(self) -> None:
        """Sample until told to stop; the family is looked up every tenth time."""
        members: list[int] = []
        for number in range(10**9):
            if self.done.wait(_SAMPLED_EVERY_S):
                return
            if number % 10 == 0:
                members = list(family(self.process))
            for own, resident in map(held_bytes, members):
                self.own, self.resident = max(self.own, own), max(self.resident, resident)


def command(*words: object, threads: int = 1) -> dict[str, float]:
    """cpu_s, wall_s, own_gib and resident_gib of `ptycho WORDS`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [sys.executable, "-m", "ptycho", *map(str, words)], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    most = Most(process.pid)
    most.start()
    _, error = process.communicate()
    most.done.set()
    most.join()
    if process.returncode:
        raise SystemExit(error)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": used, "wall_s": time.perf_counter() - begun, "own_gib": most.own / 2**30,
            "resident_gib": most.resident / 2**30}  # fmt: skip


def words_of(name: str, scan: Path, made: Path, asked: argparse.Namespace, devices: int) -> list[object]:
    """The words of one command."""
    more = ["--overwrite", "--patterns", "disk", "--devices", devices, "-o", made]
    if name == "infer":
        return ["infer", scan, *more]
    return ["reconstruct", scan, "--sweeps", asked.sweeps, "--start", "flat", "--levels", 1, "--prior",
            "none", "--probe_modes", asked.modes, *more]  # fmt: skip


def canvas_px(made: Path) -> int:
    """Pixels of the image that a command made."""
    with np.load(made / "reconstruction.npz") as product:
        return int(product["object"].size)


def straight(rows: list[dict[str, Any]], key: str) -> tuple[float, float, float]:
    """a, b of key = a + b patterns by relative least squares, and the largest relative departure."""
    count = np.array([row["patterns"] for row in rows], float)
    value = np.array([row[key] for row in rows])
    matrix = np.stack([np.ones_like(count), count], 1) / value[:, None]
    (start, slope), *_ = np.linalg.lstsq(matrix, np.ones_like(value), rcond=None)
    return float(start), float(slope), float(np.abs((start + slope * count) / value - 1).max())


def say_lines(rows: list[dict[str, Any]]) -> None:
    """The straight line of each command that differs in patterns only, and its largest departure."""
    keys = ("command", "N", "modes", "sweeps", "processes", "threads")
    for kind in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        mine = [row for row in rows if tuple(row[key] for key in keys) == kind]
        mine.sort(key=lambda row: row["patterns"])
        if len({row["patterns"] for row in mine}) < 3:
            continue
        name, devices = kind[0], kind[4]
        start, slope, off = straight(mine, "cpu_s")
        print(f"{name}, {devices} processes: {start:.1f} s and {1e3 * slope:.3f} ms a pattern, every row "
              f"within {100 * off:.0f} %")  # fmt: skip
        few, many = mine[0], mine[-1]
        grown = (many["own_gib"] - few["own_gib"]) * 2**30
        count, pixels = many["patterns"] - few["patterns"], many["canvas_px"] - few["canvas_px"]
        print(f"  own memory grows by {grown / count:.0f} bytes a pattern, which is {grown / pixels:.0f} "
              "bytes a pixel of the canvas")  # fmt: skip


def main() -> None:
    """Print one line a command, then the lines through them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[2500, 10000, 40000, 160000])
    add("--N", type=int, default=64)
    add("--devices", type=int, nargs="+", default=[1])
    add("--threads", type=int, default=1)
    add("--modes", type=int, default=1)
    add("--sweeps", type=int, default=1)
    add("--commands", nargs="+", default=["infer", "reconstruct"])
    add("--folder", type=Path, help="for the scans, up to 0.7 GB each; default: the system's")
    add("--json", type=Path)
    add("--seed", type=int, default=0)
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    with tempfile.TemporaryDirectory() as place:
        folder = asked.folder or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        for count in asked.sizes:
            scan = folder / f"scan_N{asked.N}_{count}_{asked.seed}.h5"
            if not scan.exists():
                write_scan(scan, count, asked.N, asked.seed)
            for devices in asked.devices:
                for name in asked.commands:
                    words = words_of(name, scan, Path(place) / name, asked, devices)
                    row = dict(command=name, N=asked.N, patterns=count, modes=asked.modes,
                               sweeps=asked.sweeps, processes=devices, threads=asked.threads)  # fmt: skip
                    row |= command(*words, threads=asked.threads)
                    row["canvas_px"] = canvas_px(Path(place) / name)
                    rows.append(row)
                    print("| " + " | ".join(_shown(row[key]) for key in COLUMNS) + " |", flush=True)
            if asked.folder is None:
                scan.unlink()
    if asked.json is not None:
        rows = [*(json.loads(asked.json.read_text()) if asked.json.exists() else []), *rows]
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")
    say_lines(rows)


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
