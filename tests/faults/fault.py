"""A planted fault: where it is, what it changes, and which tests must notice it.

A fault is anchored by the name of a function and a piece of its text, not by a line number or a file: code
may move without breaking the table. An anchor that is not found exactly once is an error.
"""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("ptycho", "ptycho_torch")


@dataclass(frozen=True)
class Room:
    """Folders or files that are searched for anchors, and the tests of what is in them; a test is a file,
    perhaps with `-k` and a word after it."""

    name: str
    places: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """One change: in `function` (`name`, `Class.method`; empty: anywhere in a module), `old` becomes `new`.

    `equivalent`: why no test can notice it; empty for a fault that must be caught. `tests`: instead of the
    room's.
    """

    name: str
    function: str
    old: str
    new: str
    equivalent: str = ""
    tests: tuple[str, ...] = ()


class AnchorError(LookupError):
    """The text of a fault is not in its place, or is there more than once."""


@dataclass(frozen=True)
class Place:
    """A file relative to the root, and its text with the fault in it."""

    path: str
    text: str


def plant(room: Room, fault: Fault, root: Path = ROOT) -> Place:
    """The file of a fault with the fault in it; nothing is written.

    Raises AnchorError, which names the fault, where its text is not found exactly once, and SyntaxError where
    the changed file is no Python.
    """
    for places in (room.places, _PACKAGES):  # code that has moved to another room is found there
        found = [place for path in _files(places, root) for place in _changed(path, fault, root)]
        if found:
            break
    if len(found) != 1:
        where = f"function {fault.function!r}" if fault.function else "modules"
        raise AnchorError(
            f"{room.name}: {fault.name}: the text is {len(found)} times in the {where} of "
            f"{', '.join(room.places)}; correct the table: {textwrap.shorten(fault.old, 80)}"
        )
    compile(found[0].text, found[0].path, "exec")
    return found[0]


def _files(places: tuple[str, ...], root: Path) -> list[Path]:
    given = [root / place for place in places]
    return sorted({file for path in given for file in ([path] if path.is_file() else path.rglob("*.py"))})


def _changed(path: Path, fault: Fault, root: Path) -> list[Place]:
    text = path.read_text(encoding="utf-8")
    if fault.old not in text:
        return []
    lines = text.splitlines(keepends=True)
    spans = _spans(ast.parse(text), fault.function) if fault.function else [(0, len(lines))]
    made = []
    for first, last in spans:
        before, body, after = ("".join(part) for part in (lines[:first], lines[first:last], lines[last:]))
        pieces = body.split(fault.old)
        made += [
            Place(
                str(path.relative_to(root)),
                before + fault.old.join(pieces[:i]) + fault.new + fault.old.join(pieces[i:]) + after,
            )
            for i in range(1, len(pieces))
        ]
    return made


def _spans(tree: ast.Module, wanted: str) -> list[tuple[int, int]]:
    """First and last line (0-based, exclusive) of every function or class of that name."""
    found: list[tuple[int, int]] = []

    def walk(node: ast.AST, outer: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
                name = (*outer, child.name)
                if ".".join(name) == wanted:
                    first = min([child.lineno, *(d.lineno for d in child.decorator_list)])
                    found.append((first - 1, child.end_lineno or child.lineno))
                walk(child, name)
            else:
                walk(child, outer)

    walk(tree, ())
    return found
