"""Print the table of `docs/development/design.md`: lines of each room before the rooms were made, and now.

python docs/rooms.py
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: at commit 7fc35c5, each file counted in the room where it is now
BEFORE = {
    "ptycho/ (names for clients)": 38, "ptycho/cli": 2108, "ptycho/clients": 138, "ptycho/conf": 1,
    "ptycho/config": 930, "ptycho/errors.py": 43, "ptycho/evaluation": 728, "ptycho/experiments": 347,
    "ptycho/image": 493, "ptycho/io": 1573, "ptycho/models": 1077, "ptycho/networks": 414,
    "ptycho/objectives": 761, "ptycho/physics.py": 197, "ptycho/report": 2578, "ptycho/run": 1330,
    "ptycho/scan": 1889, "ptycho/simulation": 688, "ptycho/tf": 3387, "ptycho/tracking": 802,
    "ptycho/workflows": 1182, "ptycho_torch": 4468, "ptycho_torch/refine": 2834,
}  # fmt: skip
NAMES_FOR_CLIENTS = (
    "__init__", "loader", "model", "model_manager", "params", "probe", "raw_data", "tf_helper",
)  # fmt: skip


def room_of(path: Path) -> str:
    """The room of a file, relative to the repository."""
    package, first = path.parts[:2]
    if package == "ptycho_torch":
        return "ptycho_torch/refine" if first == "refine" else "ptycho_torch"
    return (
        "ptycho/ (names for clients)" if first.removesuffix(".py") in NAMES_FOR_CLIENTS else f"ptycho/{first}"
    )


def main() -> None:
    """Count and print."""
    now: Counter[str] = Counter()
    for package in ("ptycho", "ptycho_torch"):
        for path in (ROOT / package).rglob("*.py"):
            now[room_of(path.relative_to(ROOT))] += len(path.read_text(encoding="utf-8").splitlines())
    print("| room | before | now |\n|---|---|---|")
    for room in sorted(set(BEFORE) | set(now)):
        print(f"| `{room}` | {BEFORE.get(room, '')} | {now.get(room, '')} |")
    print(f"| all | {sum(BEFORE.values())} | {sum(now.values())} |")


if __name__ == "__main__":
    main()
