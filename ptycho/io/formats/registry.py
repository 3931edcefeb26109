"""The known foreign formats, and which of them a file is. Other packages add theirs by an entry point.

A package declares `[project.entry-points."ptychopinn.formats"]` with lines such as
`mine = "my_package.module:FORMAT"`, where FORMAT is a `ForeignFormat`.
"""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from pathlib import Path

from ptycho.errors import InputError, MissingFileError
from ptycho.io.formats.arrays import begins
from ptycho.io.formats.foreign import ForeignFormat as ForeignFormat
from ptycho.io.formats.foreign import Paths as Paths
from ptycho.io.formats.found import Found
from ptycho.io.hdf5_read import is_hdf5
from ptycho.io.inputs import check_input, odd_kind, short
from ptycho.io.lazy import as_lazy
from ptycho.io.reading import damage, one_line

log = logging.getLogger(__name__)

ENTRY_POINTS = "ptychopinn.formats"
#: how files begin whose positions must be exported: no kept library reads them without much beside it
_NOT_READ = {
    b"#F ": "a SPEC file", b'["start", {': "a stream of bluesky documents",
    b'{"name": "start"': "a stream of bluesky documents",
}  # fmt: skip


def formats() -> dict[str, ForeignFormat]:
    """Every known format by name, in the order in which files are tried; own formats first."""
    from ptycho.io.formats import arrays, electron, hdf5_habits, hdf5_standards, own, plain_hdf5

    known: dict[str, ForeignFormat] = {}
    for module in (own, hdf5_standards, hdf5_habits, electron, arrays):
        known.update({one.name: one for one in module.FORMATS})
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            made = entry.load()
        except Exception as error:  # another package's fault must not stop this one
            log.warning("format %s of %s cannot be loaded: %s", entry.name, entry.value, error)
            continue
        if isinstance(made, ForeignFormat):
            known.setdefault(made.name, made)
        else:
            log.warning("format %s of %s is no ForeignFormat: left out", entry.name, entry.value)
    known.update({one.name: one for one in plain_hdf5.FORMATS})
    return known


def format_of(path: Path, name: str | None = None) -> ForeignFormat:
    """The format of a file: the named one, or the first that recognises its contents.

    Raises MissingFileError, InputError for an unknown name or contents that nobody knows.
    """
    check_input(path)
    if not path.exists():
        raise MissingFileError(f"{short(path)} does not exist; check the path")
    known = formats()
    if name is not None:
        if name not in known:
            raise InputError(f"format {name!r} is not known; known: {', '.join(known)}")
        return known[name]
    one = recognised(path)
    if one is not None:
        return one
    for mark, what in _NOT_READ.items():
        if path.is_file() and begins(path, mark):
            raise InputError(
                f"{path} is {what}, which is not read; export its positions as a CSV file whose first line "
                "names them, such as x_mm,y_mm, and give that by --positions"
            )
    raise InputError(
        f"{path}: no known format; `ptycho info --formats` lists them; an HDF5 file of another layout needs "
        "--set path.frames=/place/in/the/file"
    )


def recognised(path: Path) -> ForeignFormat | None:
    """The first format that recognises the contents of a file; None where nobody does, and for a pipe or a
    device, which is not opened."""
    if odd_kind(path) is not None:
        return None
    for one in formats().values():
        try:
            if one.recognises(path):
                return one
        except Exception as error:  # a damaged file, or another package's fault: it is not of this format
            log.debug("%s: not %s (%s)", path, one.name, one_line(error))
    return None


def find(path: Path, paths: Paths | None = None, name: str | None = None) -> Found:
    """What a file holds, whatever its format; frames are not read yet.

    Places that are named win over what the format says. InputError where it is no HDF5 file and has no such
    places.
    """
    form = format_of(path, name)
    named = {key: place for key, place in (paths or {}).items() if key != "links"}
    others = [] if form.places is None else [key for key in named if key not in form.places]
    if others and not is_hdf5(path):
        known = ", ".join(f"path.{key}" for key in form.places or ()) or "none"
        raise InputError(
            f"{path} ({form.title}) has no places that path.{others[0]} could name; known there: {known}"
        )
    with damage(f"{path} ({form.title})"):
        found = form.find(path, {key: place for key, place in named.items() if key not in others})
        if others:
            from ptycho.io.formats.plain_hdf5 import find_named

            found = found.overruled_by(find_named(path, {key: named[key] for key in others}, found.grid))
    if found.frames is not None:
        found.frames = as_lazy(found.frames).guarded(f"{path} ({form.title})")
    return found
