"""Opening HDF5 files of ptychodus: what is missing or damaged is said in one line that names file and key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, InputError, MissingFileError

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
SUFFIXES = (".h5", ".hdf5")


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5: its mark at the beginning, or behind a user block of 512, 1024, ... bytes.

    MATLAB 7.3 writes such a block. Up to 1 MiB is looked at.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            place = 0
            while place + len(_HDF5_MAGIC) <= min(size, 2**20):
                stream.seek(place)
                if stream.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC:
                    return True
                place = 2 * place or 512
    except OSError:
        pass
    return False


@contextmanager
def open_hdf5(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An open h5py.File for reading. Raises MissingFileError, InputError, or DataError for a damaged one."""
    source = Path(path)
    if source.is_dir():
        raise InputError(f"{source} is a folder; give the .h5 file inside it")
    if not source.exists():
        raise MissingFileError(f"{source} does not exist; check the path of the .h5 file")
    try:
        with open(source, "rb") as stream:
            head = stream.read(len(_HDF5_MAGIC))
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror or error}; check its permissions") from error
    if not head:
        raise DataError(f"{source} is empty (0 bytes); write or copy it again")
    if head != _HDF5_MAGIC and not is_hdf5(source):
        raise DataError(f"{source} is not an HDF5 file; save it with ptychodus or with this package")
    import h5py

    try:
        archive = h5py.File(source, "r")
    except OSError as error:
        raise DataError(
            f"{source} is truncated or damaged ({one_line(error)}); write or copy it again"
        ) from error
    with archive:
        yield archive


def read_dataset(archive: Any, key: str) -> NDArray[Any]:
    """One dataset of numbers. Raises DataError naming file and key."""
    value = read_optional(archive, key)
    if value is None:
        listed = ", ".join(sorted(archive)) or "nothing"
        raise DataError(f"{archive.filename} has no dataset {key!r}; it holds {listed}")
    return value


def read_optional(archive: Any, key: str) -> NDArray[Any] | None:
    """One dataset of numbers, or None where there is none."""
    import h5py

    found = archive.get(key)
    if found is None:
        return None
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{archive.filename}: {key!r} is a group; it must be a dataset of numbers")
    if found.dtype.kind not in "buifc":
        raise DataError(f"{archive.filename}: {key!r} has dtype {found.dtype}; it must hold numbers")
    try:
        return np.asarray(found[()])
    except MemoryError as error:
        raise DataError(
            f"{archive.filename}: {key!r} does not fit in memory ({one_line(error)}); if these are the "
            "patterns, say patterns = 'disk'"
        ) from error
    except OSError as error:
        raise DataError(
            f"{archive.filename}: {key!r} is damaged ({one_line(error)}); write or copy the file again"
        ) from error


def read_number(archive: Any, holder: Any, *keys: str, default: float | None = None) -> float:
    """The first of these attributes that is there, as a float; DataError where none is and no default."""
    for key in keys:
        if key in holder.attrs:
            return as_number(holder.attrs[key], f"{archive.filename}: {key!r}")
    if default is None:
        where = "" if holder.name == "/" else f" on {holder.name.lstrip('/')!r}"
        raise DataError(f"{archive.filename} has no attribute {keys[0]!r}{where}; write the file again")
    return default


def read_text(archive: Any, key: str, default: str) -> str:
    """A text attribute of the file."""
    value = archive.attrs.get(key, default)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def as_number(value: Any, what: str) -> float:
    """A finite float. Raises DataError naming `what`."""
    try:
        number = float(np.asarray(value).reshape(-1)[0]) if np.size(value) == 1 else float("nan")
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise DataError(f"{what} is {value!r}; it must be one finite number")
    return number


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
