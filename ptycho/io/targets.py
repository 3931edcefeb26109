"""What may be written: nothing that the command read, no measured file unasked, no pipe, device or link.

Every command asks here before its work starts. What is refused leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ptycho.errors import InputError
from ptycho.io.inputs import odd_kind, short

#: files that a command may replace unasked: they can be made again from what stands beside them
REPLACEABLE = frozenset((".json", ".png", ".html", ".htm", ".onnx", ".csv", ".md", ".yaml", ".log"))
_ANSWER = "give another name"


def check_target(
    path: str | os.PathLike[str],
    *,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
    overwrite: bool = False,
) -> Path:
    """The path, where a file can be written to it; InputError otherwise.

    inputs: what the command reads; it is never written over, under whatever name. overwrite: an existing file
    of another kind than REPLACEABLE may be replaced.
    """
    target = Path(path)
    check_replaceable(target)
    check_not_read(target, inputs)
    if target.exists() and target.suffix.lower() not in REPLACEABLE and not overwrite:
        raise InputError(f"{target} exists; {_ANSWER}, or add --overwrite to replace it")
    check_parent(target)
    return target


def check_new(path: str | os.PathLike[str]) -> Path:
    """The path, where a file can be written to it and none is there; InputError otherwise."""
    target = Path(path)
    check_replaceable(target)
    if target.exists():
        raise InputError(f"{target} exists; choose another name or remove it")
    check_parent(target)
    return target


def check_replaceable(target: Path) -> None:
    """InputError for a folder, a link, a pipe, a socket or a device: a file must not take its place."""
    kind = odd_kind(target) if not target.is_symlink() else "a link"
    if kind is not None:
        raise InputError(f"cannot write {target}: it is {kind}, which is not replaced by a file; {_ANSWER}")
    if target.is_dir():
        raise InputError(f"cannot write {target}: it is a folder; give a file name inside it")


def check_not_read(target: Path, inputs: Iterable[str | os.PathLike[str] | None]) -> None:
    """InputError where the target is one of the files read, by path, hard link or link."""
    for given in inputs:
        if given is not None and same_file(target, Path(given)):
            raise InputError(f"cannot write {target}: the command reads it (as {given}); {_ANSWER}")


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths are one file; False where either is not there."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def check_parent(target: Path) -> None:
    """InputError where the folder of the target, or the nearest that exists above it, takes no file."""
    folder = nearest_folder(target.absolute().parent)
    if not folder.is_dir():
        raise InputError(f"cannot write {short(target)}: {short(folder)} is a file, not a folder; {_ANSWER}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {short(target)}: {folder} may not be written to; {_ANSWER}")


def nearest_folder(folder: Path) -> Path:
    """The folder itself, or the nearest thing above it that exists."""
    for found in (folder, *folder.parents):
        if os.path.lexists(found):
            return found
    return folder
