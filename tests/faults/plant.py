"""Plants small faults in a copy of the tree, one at a time, and says which the tests of their room catch.

    python tests/faults/plant.py                    every fault
    python tests/faults/plant.py scan io            those of two rooms
    python tests/faults/plant.py -k half_bit        those whose name or function holds the word
    python tests/faults/plant.py --list             the table, nothing is run

The tree itself is never changed. Exit code 0: at least 95 % of the faults that are not equivalent were caught.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fault import ROOT, AnchorError, Fault, Room, plant  # noqa: E402
from table import TABLE  # noqa: E402

GOAL = 0.95
TIMEOUT_S = 600.0
_COPIED = ("ptycho", "ptycho_torch", "tests", "docs", "specs", "benchmarks", "plans")
_FILES = ("pyproject.toml", "setup.py", "README.md", "Makefile", "CHANGELOG.md", "CONTRIBUTING.md",
          "constraints.txt", "LICENSE")  # fmt: skip


class Outcome(NamedTuple):
    """What became of one fault: `caught`, `survived`, `equivalent`, or `no verdict`; and how long it took."""

    room: Room
    fault: Fault
    state: str
    seconds: float


def main(words: Sequence[str] | None = None) -> int:
    """Run the table and print it; the exit code says whether the goal was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", help="names of rooms; none: all")
    parser.add_argument("-k", default="", help="a word in the name or the function of a fault")
    parser.add_argument("--list", action="store_true", help="print the table and run nothing")
    given = parser.parse_args(words)
    chosen = list(_chosen(given.rooms, given.k))
    if not chosen:
        print("no fault of that name")
        return 2
    try:
        places = {(room.name, fault.name): plant(room, fault) for room, fault in chosen}
    except (AnchorError, SyntaxError) as error:
        print(f"plant: error: {error}", file=sys.stderr)
        return 2
    if given.list:
        for room, fault in chosen:
            note = f" [equivalent: {fault.equivalent}]" if fault.equivalent else ""
            print(f"{room.name:<12} {places[room.name, fault.name].path}: {fault.name}{note}")
        print(f"{len(chosen)} faults")
        return 0
    with tempfile.TemporaryDirectory(prefix="ptycho-faults-") as folder:
        copy = _copied(Path(folder))
        outcomes = list(_outcomes(copy, chosen))
    return _report(outcomes)


def _chosen(rooms: Sequence[str], word: str) -> Iterable[tuple[Room, Fault]]:
    for room, faults in TABLE.items():
        for fault in faults:
            if (not rooms or room.name in rooms) and word in f"{fault.name} {fault.function}":
                yield room, fault


def _copied(folder: Path) -> Path:
    """A copy of the tree, and a link to `shared` beside it where the tree has one."""
    copy = folder / "tree"
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in _FILES:
        if (ROOT / name).is_file():
            shutil.copy2(ROOT / name, copy / name)
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (folder / "shared").symlink_to(shared)
    return copy


def _outcomes(copy: Path, chosen: Sequence[tuple[Room, Fault]]) -> Iterable[Outcome]:
    passed: dict[tuple[str, ...], bool] = {}
    for number, (room, fault) in enumerate(chosen, 1):
        tests, begun = fault.tests or room.tests, time.perf_counter()
        if tests not in passed:
            passed[tests] = _passes(copy, tests)
            if not passed[tests]:
                print(f"the tests of {room.name} fail without any fault: {' '.join(tests)}", flush=True)
        state = "no verdict"
        if passed[tests]:
            place = plant(room, fault, copy)
            target = copy / place.path
            before = target.read_text(encoding="utf-8")
            try:
                target.write_text(place.text, encoding="utf-8")
                found = _passes(copy, tests)
            finally:
                target.write_text(before, encoding="utf-8")
            state = ("equivalent" if fault.equivalent else "survived") if found else "caught"
        made = Outcome(room, fault, state, time.perf_counter() - begun)
        print(f"{number:>4}/{len(chosen)} {state:<10} {made.seconds:6.1f} s  {room.name}: {fault.name}",
              flush=True)  # fmt: skip
        yield made


def _passes(copy: Path, tests: Sequence[str]) -> bool:
    """Whether the tests pass; one that hangs does not."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    return done.returncode == 0


def _report(outcomes: Sequence[Outcome]) -> int:
    print("\n| room | faults | caught | survived | equivalent |\n|---|---|---|---|---|")
    rooms = list(dict.fromkeys(made.room.name for made in outcomes))
    for name in (*rooms, "all"):
        own = [made.state for made in outcomes if name in (made.room.name, "all")]
        counts = [own.count(state) for state in ("caught", "survived", "equivalent")]
        print(f"| {name} | {len(own)} | " + " | ".join(map(str, counts)) + " |")
    for made in outcomes:
        if made.state in ("survived", "no verdict"):
            print(f"{made.state}: {made.room.name}: {made.fault.function or 'module'}: {made.fault.name}")
        elif made.state == "equivalent":
            print(f"equivalent: {made.room.name}: {made.fault.name}: {made.fault.equivalent}")
    judged = [made.state for made in outcomes if made.state != "equivalent"]
    share = judged.count("caught") / len(judged) if judged else 1.0
    print(f"caught {share:.1%} of {len(judged)} faults; the goal is {GOAL:.0%}")
    return 0 if share >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
