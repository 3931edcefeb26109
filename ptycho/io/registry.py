"""Which module reads and writes a scan file, chosen by its suffix.

A format is a pair of functions on plain arrays, named as the keyword arguments of `ptycho.raw_data.RawData`;
adding one is one call to `register_format`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ptycho.errors import InputError, MissingFileError
from ptycho.io.npz import read_npz, write_npz
from ptycho.io.ptychodus_scan import read_ptychodus_scan

Reader = Callable[[Path], dict[str, Any]]
Writer = Callable[[Path, Mapping[str, Any]], None]


class Format(NamedTuple):
    """How one kind of scan file is read and written; a format that cannot be written has no writer."""

    reader: Reader
    writer: Writer | None


_FORMATS: dict[str, Format] = {
    ".npz": Format(read_npz, write_npz),
    ".h5": Format(read_ptychodus_scan, None),
    ".hdf5": Format(read_ptychodus_scan, None),
}


def register_format(suffix: str, reader: Reader, writer: Writer | None = None) -> None:
    """Read and write files ending in `suffix` (with its dot) through these functions from now on."""
    if not suffix.startswith("."):
        raise InputError(f"cannot register format {suffix!r}: a suffix starts with a dot, as in '.npz'")
    _FORMATS[suffix.lower()] = Format(reader, writer)


def known_suffixes() -> tuple[str, ...]:
    """Suffixes that scans can be read from, sorted."""
    return tuple(sorted(_FORMATS))


def read_scan(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arrays of a scan file, by the names of RawData's keyword arguments.

    Raises MissingFileError, InputError for a folder or an unknown suffix, DataError for damaged contents.
    """
    source = Path(path)
    if source.is_dir():
        raise InputError(f"{source} is a folder; give the scan file inside it")
    if not source.exists():
        raise MissingFileError(f"{source} does not exist; check the path of the scan file")
    return _format_of(source).reader(source)


def write_scan(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write the arrays of a scan; None entries are left out. Raises InputError for an unknown suffix."""
    target = Path(path)
    writer = _format_of(target).writer
    if writer is None:
        raise InputError(f"cannot write {target}: {target.suffix!r} can only be read; write .npz")
    writer(target, arrays)


def _format_of(path: Path) -> Format:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(known_suffixes())
        raise InputError(f"{path} has the unknown suffix {path.suffix!r}; known: {known}") from None
