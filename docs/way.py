"""Follow a command through the rooms: which it passes, and where a call goes from a room to one above it.

python docs/way.py infer --model run --data scan.npz -o out

The order of rooms is that of the layers in `pyproject.toml`. Such a climb is counted once for each pair of
functions; it is a callback that was handed down, or an import upwards.
"""

from __future__ import annotations

import re
import sys
import threading
import tomllib
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BACKEND = "backend"


def levels() -> dict[str, int]:
    """The level of each room; both backends are one room."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["id"] == "rooms")
    made = {
        room.strip(" ()"): n for n, layer in enumerate(reversed(layers)) for room in re.split(r"[|:]", layer)
    }
    return {**made, BACKEND: made["tf"]}


def room_of(file: str) -> str | None:
    """The room of a source file; None outside the two packages."""
    try:
        parts = Path(file).relative_to(ROOT).parts
    except ValueError:
        return None
    if parts[0] == "ptycho_torch" or parts[:2] == ("ptycho", "tf"):
        return BACKEND
    return parts[1].removesuffix(".py") if parts[0] == "ptycho" and len(parts) > 1 else None


class Follower:
    """Counts rooms and climbs while it is the profile function of a thread."""

    def __init__(self) -> None:
        self.levels = levels()
        self.rooms: dict[str, None] = {}
        self.climbs: Counter[tuple[str, str]] = Counter()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Take one event of `sys.setprofile`."""
        if event != "call" or frame.f_code.co_name in ("<module>", "<listcomp>", "<genexpr>", "<lambda>"):
            return
        here = room_of(frame.f_code.co_filename)
        if here not in self.levels:
            return
        self.rooms.setdefault(here)
        caller = frame.f_back
        while caller is not None and room_of(caller.f_code.co_filename) not in self.levels:
            caller = caller.f_back
        if caller is None:
            return
        there = room_of(caller.f_code.co_filename)
        if self.levels[str(here)] > self.levels[str(there)]:
            pair = (f"{there}.{caller.f_code.co_qualname}", f"{here}.{frame.f_code.co_qualname}")
            self.climbs[pair] += 1


def main() -> None:
    """Run `ptycho` with these arguments and print what was passed."""
    from ptycho.cli.main import main as ptycho

    follower = Follower()
    threading.setprofile(follower)
    sys.setprofile(follower)
    code = ptycho(sys.argv[1:])
    sys.setprofile(None)
    print(f"exit {code}; {len(follower.rooms)} rooms: {', '.join(follower.rooms)}")
    print(f"{len(follower.climbs)} climbs")
    for (low, high), times in follower.climbs.most_common():
        print(f"  {low} -> {high}  ({times})")


if __name__ == "__main__":
    main()
