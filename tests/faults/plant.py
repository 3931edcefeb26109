"""Plants small faults in a copy of the tree, one at a time, and says which the tests of their room catch.

    python tests/faults/plant.py                    every fault
    python tests/faults/plant.py scan io            those of two rooms
    python tests/faults/plant.py -k half_bit        those whose name or function holds the word
    python tests/faults/plant.py --list             the table, nothing is run

The tree itself is never changed. Exit code 0: at least 95 % of the faults that are not equivalent were
caught.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import importlib
import os
import py_compile
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fault import ROOT, AnchorError, Fault, Room, plant
from table import TABLE

GOAL = 0.95
TIMEOUT_S = 600.0
#: a fault that makes its tests so many times slower is taken for one that never ends
_SLOWER = 6.0
_COPIED = ("ptycho", "ptycho_torch", "tests", "docs", "specs", "benchmarks", "plans")
_FILES = (
    "pyproject.toml",
    "setup.py",
    "README.md",
    "Makefile",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "constraints.txt",
    "LICENSE",
)


#: packages that are loaded once, before the tests of a fault run in a fork
_PACKAGES = (
    "numpy",
    "scipy.ndimage",
    "scipy.spatial",
    "scipy.special",
    "scipy.stats",
    "scipy.fft",
    "h5py",
    "yaml",
    "skimage.metrics",
    "skimage.transform",
    "skimage.data",
    "matplotlib.figure",
    "matplotlib.pyplot",
    "PIL.Image",
    "jinja2",
    "rich.console",
    "rich.progress",
    "hypothesis",
    "safetensors.numpy",
)
_TORCH = (
    "torch",
    "torch.utils.data",
    "safetensors.torch",
    "lightning.pytorch",
    "torchmetrics.functional.image",
    "onnx",
    "onnxruntime",
)
_KERAS = ("tensorflow", "keras")


class Outcome(NamedTuple):
    """What became of one fault: `caught`, `survived`, `equivalent`, or `no verdict`; and how long it took."""

    room: Room
    fault: Fault
    state: str
    seconds: float


def main(words: Sequence[str] | None = None) -> int:
    """Run the table and print it; the exit code says whether the goal was met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
        _load({room for room, _ in chosen})
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
    # Compiled once, by the hash of the source: a planted fault is never taken for what was there before.
    compileall.compile_dir(copy, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    return copy


def _outcomes(copy: Path, chosen: Sequence[tuple[Room, Fault]]) -> Iterable[Outcome]:
    passed: dict[tuple[str, ...], float | None] = {}  # seconds that the clean tests take; None: they fail
    for number, (room, fault) in enumerate(chosen, 1):
        tests, begun = fault.tests or room.tests, time.perf_counter()
        if tests not in passed:
            passed[tests] = time.perf_counter() - begun if _passes(copy, tests) else None
            if passed[tests] is None:
                print(f"the tests of {room.name} fail without any fault: {' '.join(tests)}", flush=True)
        state, clean = "no verdict", passed[tests]
        if clean is not None:
            place = plant(room, fault, copy)
            target = copy / place.path
            before = target.read_text(encoding="utf-8")
            try:
                target.write_text(place.text, encoding="utf-8")
                limit_s = max(120.0, _SLOWER * clean)
                # the first file alone: most faults end there, and the others need not be collected
                found = all(_passes(copy, part, limit_s) for part in (tests[:1], tests[1:]) if part)
            finally:
                target.write_text(before, encoding="utf-8")
            state = ("equivalent" if fault.equivalent else "survived") if found else "caught"
        made = Outcome(room, fault, state, time.perf_counter() - begun)
        print(
            f"{number:>4}/{len(chosen)} {state:<10} {made.seconds:6.1f} s  {room.name}: {fault.name}",
            flush=True,
        )
        yield made


def _passes(copy: Path, tests: Sequence[str], limit_s: float = TIMEOUT_S) -> bool:
    """Whether the tests pass; one that hangs does not.

    They run in a fork of this process, which has the large packages loaded already, but nothing of the tree.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        _become_pytest(copy, tests)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _become_pytest(copy: Path, tests: Sequence[str]) -> NoReturn:
    """Run the tests in this process, with the copy as its tree, and end it."""
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        os.chdir(copy)
        os.environ["PYTHONPATH"] = str(copy)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        sys.path[:] = [str(copy), *(place for place in sys.path if Path(place or ".").resolve() != ROOT)]
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--no-header", *" ".join(tests).split()])
    finally:
        os._exit(int(code))


def _load(rooms: Iterable[Room]) -> None:
    """Load what the tests of the rooms import in any case, once."""
    tests = [test for room in rooms for test in room.tests]
    torch = any(word in test for test in tests for word in ("/torch/", "onnx", "pytorch"))
    keras = any(word in test for test in tests for word in ("/tf/", "tensorflow"))
    for name in (*_PACKAGES, *(_TORCH if torch else ()), *(_KERAS if keras else ())):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    loaded = [name for name in sys.modules if name.split(".")[0] in ("ptycho", "ptycho_torch")]
    assert not loaded, f"{loaded[0]} is loaded: the copy would not be tested"


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
