"""Checksums of what carries numbers: a flipped bit is refused, or changes nothing.

The digest is over contents (names, types, shapes, values), not over a file's bytes, so that it can stand in
the file itself, and so that a program that copies the contents into another layout does not break it. Files
of earlier versions have none and are read as before.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.errors import DataError
from ptycho.io.reading import damage

#: the name that a digest stands under, beside what it is of
KEY = "ptychopinn_sha256"
_CHUNK = 1 << 20


def digest_of(values: Mapping[str, Any]) -> str:
    """SHA-256, hexadecimal, of named arrays, numbers and texts, whatever their order.

    A number and an array of one axis less are told apart by their shape. Memory: one array.
    """
    made = hashlib.sha256()
    for name in sorted(values):
        value = values[name]
        if isinstance(value, (str, bytes)):
            data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            head = f"{name!r} text {len(data)}\n"
            made.update(head.encode("utf-8", "backslashreplace") + data)
            continue
        array = np.asarray(value)
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        made.update(f"{name!r} {little.dtype.str} {array.shape}\n".encode("utf-8", "backslashreplace"))
        made.update(little.reshape(-1).view(np.uint8).data if little.size else b"")
    return made.hexdigest()


def check_digest(wanted: str, values: Mapping[str, Any], path: Path | str) -> None:
    """DataError where the contents of a file are not those that its digest was taken of."""
    if digest_of(values) != wanted:
        raise DataError(
            f"{path} does not match its checksum: it was damaged or changed; copy it again, or write it anew"
        )


def check_zip(path: Path) -> None:
    """DataError where a member of a zip archive is not what its checksum says. Time: one read; memory: 1 MB.

    Torch writes checksums into its files and does not look at them when it reads.
    """
    with damage(str(path), "go on from another checkpoint"), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as stream:
                while stream.read(_CHUNK):
                    pass
