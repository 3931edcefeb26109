"""Every command, every place where it reads or writes, and what may be put there: refused in one line.

The tables are in `attacks.py`. What is quick to refuse runs always, the rest in `make safety`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import OUTPUTS, SLOTS, Thing, attack, inputs_of, outputs_of
from programs import small_scan

from ptycho.cli.main import main

_QUICK = {
    "a pipe", "5,000 letters", "a NUL in the name", "junk", "an empty zip", "encrypted", "circles of links",
    "what is read", "a link to what is read", "a circle of links",
}  # fmt: skip


@pytest.fixture(scope="module")
def store(trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan with its truth, a model and an image of it."""
    folder = tmp_path_factory.mktemp("attacks") / "store"
    folder.mkdir()
    rng = np.random.default_rng(1)
    truth = (rng.standard_normal((60, 60)) + 1j * rng.standard_normal((60, 60))).astype(np.complex64)
    np.savez(folder / "scan.npz", **small_scan(), object_true=truth, roi=np.array([5, 50, 5, 50]))
    shutil.copytree(trained["run"], folder / "run")
    words = ["infer", "--model", str(folder / "run"), "--data", str(folder / "scan.npz"), "-o"]
    assert main([*words, str(folder / "image"), "--quiet"]) == 0
    return folder


def _all(store: Path, tmp_path: Path, words: list[str], things: dict[str, Thing]) -> list[str]:
    found = []
    for name, (given, make) in things.items():
        line = [word.replace("{}", given) for word in words]

        def prepared(make: Any = make, given: str = given) -> None:
            if make is not None:
                make(given)

        codes = (1, 2) if name == "where nothing can be" else (2,)  # the system tells when it is tried
        found.append((name, attack(store, tmp_path / "work", line, prepared, codes)))
    return [f"{name}: {wrong}" for name, wrong in found if wrong]


def _split(quick: bool, things: dict[str, Thing]) -> dict[str, Thing]:
    return {name: thing for name, thing in things.items() if (name in _QUICK) == quick}


_SPEED = [pytest.param(True, id="quick"), pytest.param(False, id="all", marks=pytest.mark.slow)]


@pytest.mark.parametrize("quick", _SPEED)
@pytest.mark.parametrize("slot", SLOTS)
def test_what_is_read(slot: str, quick: bool, store: Path, tmp_path: Path) -> None:
    suffix, words = SLOTS[slot]
    things = _split(quick, inputs_of(suffix))
    if slot == "watch":  # a run may begin there yet
        things.pop("a folder", None)
    if slot == "evaluate truth":  # it reads the truth alone, which is sound there
        things = {name: thing for name, thing in things.items() if name not in ("objects", "records")}
    assert _all(store, tmp_path, words, things) == []


@pytest.mark.parametrize("quick", _SPEED)
@pytest.mark.parametrize("place", OUTPUTS)
def test_where_it_writes(place: str, quick: bool, store: Path, tmp_path: Path) -> None:
    suffix, words = OUTPUTS[place]
    things = _split(quick, outputs_of(suffix))
    if place == "export":  # it reads no scan: another name of one is replaced, and the scan stays
        things.pop("a hard link of what is read", None)
    assert _all(store, tmp_path, words, things) == []
