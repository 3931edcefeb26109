"""Patterns inside NPZ and HDF5 files as arrays that are read by rows."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ptycho.errors import DataError
from ptycho.io.lazy import CHUNK_BYTES, LazyPatterns, NotByRows, as_lazy
from ptycho.io.ptychodus_hdf5 import one_line, open_hdf5
from ptycho.io.scratch import ScratchArray

_LOCAL_HEADER = 30


class Header(NamedTuple):
    """What an array in a file is, without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool = False

    @property
    def n_values(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def needed_bytes(self) -> int:
        """Memory that the scan takes as it is and as network input (float32)."""
        return self.n_values * (self.dtype.itemsize + 4)


def stands_for_none(path: str | os.PathLike[str], key: str) -> bool:
    """Whether a key of an NPZ file is a single Python object, which is how None is written: by its header.

    Nothing is unpickled. Raises DataError where the file is damaged.
    """
    with _member(path, key) as (_, stream):
        try:
            header = _any_header(stream, path, key)
        except NotByRows:
            return False
    return header.shape == () and header.dtype.hasobject


def npz_header(path: str | os.PathLike[str], key: str) -> Header:
    """Shape and dtype of one array of an NPZ file. Raises DataError where it is damaged or holds objects."""
    with _member(path, key) as (_, stream):
        return _read_header(stream, path, key)


def npz_patterns(path: str | os.PathLike[str], key: str, folder: Path | None = None) -> LazyPatterns:
    """One array of an NPZ file, read by rows. A stored array is read in place, a compressed one is unpacked
    first.

    A compressed array goes to a scratch file in `folder`, see `ptycho.io.scratch`. Both are compared with the
    checksum in the file. Time: one pass; memory: one chunk. Raises NotByRows for Fortran order, DataError for
    damage.
    """
    with _member(path, key) as (info, stream):
        header = _read_header(stream, path, key)
        if header.fortran_order and len(header.shape) > 1:
            raise NotByRows(f"{path}: {key!r} is in Fortran order")
        begin = stream.tell()
        if info.compress_type != zipfile.ZIP_STORED:
            return as_lazy(_unpacked(stream, header, folder))
        while stream.read(CHUNK_BYTES):  # the checksum is compared at the end
            pass
    if not header.n_values:
        return as_lazy(np.empty(header.shape, header.dtype))
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack("<HH", file.read(_LOCAL_HEADER)[26:30])
    offset = info.header_offset + _LOCAL_HEADER + name + extra + begin
    return as_lazy(np.memmap(path, header.dtype, mode="r", offset=offset, shape=header.shape))


def hdf5_header(path: str | os.PathLike[str], key: str) -> Header | None:
    """Shape and dtype of one dataset; None where there is none."""
    import h5py

    with open_hdf5(path) as archive:
        found = archive.get(key)
        return Header(found.shape, found.dtype) if isinstance(found, h5py.Dataset) else None


def hdf5_patterns(path: str | os.PathLike[str], key: str) -> LazyPatterns:
    """One dataset of an HDF5 file, read by rows; the file is open only while rows are read.

    Raises DataError where the dataset is missing or holds no numbers, and when rows turn out damaged.
    """
    header = hdf5_header(path, key)
    if header is None or header.dtype.kind not in "buifc" or not header.shape:
        found = "is not there" if header is None else f"has dtype {header.dtype} and shape {header.shape}"
        raise DataError(f"{path}: dataset {key!r} {found}; it must hold patterns (M, N, N)")

    def read(begin: int, end: int) -> Any:
        with open_hdf5(path) as archive:
            try:
                return archive[key][begin:end]
            except (OSError, MemoryError) as error:
                raise DataError(
                    f"{path}: {key!r} is damaged ({one_line(error)}); write or copy the file again"
                ) from error

    return LazyPatterns(read, header.shape, header.dtype)


@contextmanager
def _member(path: str | os.PathLike[str], key: str) -> Iterator[tuple[zipfile.ZipInfo, IO[bytes]]]:
    damage = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, KeyError)
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{key}.npy")
            with archive.open(info) as stream:
                yield info, stream
    except DataError:
        raise
    except damage as error:
        raise DataError(
            f"{path}: {key!r} is damaged ({one_line(error)}); write or copy the file again"
        ) from error


def _read_header(stream: IO[bytes], path: str | os.PathLike[str], key: str) -> Header:
    header = _any_header(stream, path, key)
    if header.dtype.hasobject:
        raise DataError(
            f"{path}: {key!r} holds Python objects, which would need pickle and are refused; "
            "save it as an array of numbers"
        )
    return header


def _any_header(stream: IO[bytes], path: str | os.PathLike[str], key: str) -> Header:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise NotByRows(f"{path}: {key!r} has a header of version {version}")
    shape, fortran_order, dtype = readers[version](stream)
    return Header(shape, dtype, fortran_order)


def _unpacked(stream: IO[bytes], header: Header, folder: Path | None) -> Any:
    row_bytes = header.n_values // max(1, header.shape[0]) * header.dtype.itemsize if header.shape else 0
    if not row_bytes:
        return np.empty(header.shape, header.dtype)
    array = ScratchArray(header.shape, header.dtype, folder)
    step = max(1, CHUNK_BYTES // row_bytes)
    for begin in range(0, header.shape[0], step):
        rows = min(step, header.shape[0] - begin)
        data = stream.read(rows * row_bytes)
        if len(data) < rows * row_bytes:
            raise EOFError("it ends early")
        array.write(begin, np.frombuffer(data, header.dtype).reshape(rows, *header.shape[1:]))
    if stream.read(1):  # the checksum is compared at the end
        raise ValueError("it is longer than it says")
    return array.map()
