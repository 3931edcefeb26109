"""The table of planted faults: each stands in its place exactly once, and a wrong entry is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fault import ROOT, AnchorError, Fault, Room, plant
from table import TABLE

EVERY = [(room, fault) for room, faults in TABLE.items() for fault in faults]


@pytest.mark.parametrize("room", TABLE, ids=lambda room: room.name)
def test_every_fault_has_its_place_and_changes_it(room: Room) -> None:
    for fault in TABLE[room]:
        place = plant(room, fault)
        before = (ROOT / place.path).read_text(encoding="utf-8")
        assert place.text != before, fault.name
    for test in (*room.tests, *(test for fault in TABLE[room] for test in fault.tests)):
        assert (ROOT / test.split()[0]).is_file(), test


def test_there_are_enough_of_them_and_no_two_of_one_name() -> None:
    assert len([fault for _, fault in EVERY if not fault.equivalent]) >= 100
    names = [(room.name, fault.name) for room, fault in EVERY]
    assert len(set(names)) == len(names)


def test_a_fault_that_lost_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "ptycho" / "a").mkdir(parents=True)
    source = tmp_path / "ptycho" / "a" / "one.py"
    source.write_text(
        "def f(x):\n    return x + 1\n\n\nclass C:\n    def f(self, x):\n        return x + 1 + 1\n"
    )
    room = Room("a", ("ptycho/a",), ())
    with pytest.raises(AnchorError, match="a: gone: the text is 0 times"):
        plant(room, Fault("gone", "f", "x + 2", "x"), tmp_path)
    with pytest.raises(AnchorError, match="a: twice: the text is 2 times in the modules"):
        plant(room, Fault("twice", "", "x + 1", "x"), tmp_path)
    assert plant(room, Fault("one", "f", "x + 1", "x - 1"), tmp_path).text.startswith(
        "def f(x):\n    return x - 1"
    )
    assert "return x - 1 + 1" in plant(room, Fault("other", "C.f", "x + 1", "x - 1"), tmp_path).text
    with pytest.raises(SyntaxError):
        plant(room, Fault("broken", "f", "return", "retrun 1"), tmp_path)
    moved = tmp_path / "ptycho" / "b"
    moved.mkdir()
    source.rename(moved / "two.py")
    assert plant(room, Fault("moved", "f", "x + 1", "x - 1"), tmp_path).path == "ptycho/b/two.py"
