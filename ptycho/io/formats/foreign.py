"""What a reader of another program's files is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ptycho.io.formats.found import Found

#: `--set path.frames=/a/b` arrives in a reader as {"frames": "/a/b"}
Paths = Mapping[str, str]


@dataclass(frozen=True)
class ForeignFormat:
    """One format of another program.

    Attributes:
        name: short and unique, as `--format` takes it.
        title: what people call it.
        suffixes: usual endings, for the list only: a file is recognised by its contents.
        holds: what is read: words such as 'frames, positions, probe'.
        library: the package that reads it.
        recognises: whether a file is of this format; cheap, and False for anything damaged.
        find: what the file holds; `paths` are places inside it that the user named.
        places: the names of `paths` that `find` uses itself; None: all. Others are read from an HDF5 file as
            they are named, and refused for any other file.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    holds: str
    library: str
    recognises: Callable[[Path], bool]
    find: Callable[[Path, Paths], Found]
    places: tuple[str, ...] | None = None
