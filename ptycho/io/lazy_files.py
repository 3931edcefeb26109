"""Patterns inside NPZ and HDF5 files as arrays that are read by rows."""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ptycho.errors import DataError
from ptycho.io.lazy import CHUNK_BYTES, LazyPatterns, NotByRows, Source, as_lazy
from ptycho.io.npy_header import array_header
from ptycho.io.ptychodus_hdf5 import check_links, check_sources, open_hdf5, source_files, unreadable
from ptycho.io.reading import check_fits, damage
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
        return math.prod(self.shape)

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
        if info.file_size != begin + header.n_values * header.dtype.itemsize:
            raise ValueError("it is shorter or longer than it says")
        while stream.read(CHUNK_BYTES):  # the checksum is compared at the end
            pass
    if not header.n_values:
        return as_lazy(np.empty(header.shape, header.dtype))
    file = open(path, "rb")  # noqa: SIM115 - it is open as long as its rows may be asked for
    file.seek(info.header_offset)
    name, extra = struct.unpack("<HH", file.read(_LOCAL_HEADER)[26:30])
    offset = info.header_offset + _LOCAL_HEADER + name + extra + begin
    return LazyPatterns(_rows_of_file(file, header, offset, f"{path}: {key!r}"), header.shape, header.dtype)


def npy_rows(path: Path) -> LazyPatterns:
    """The array of an NPY file, read by rows and never mapped; in Fortran order it is read whole.

    Raises DataError for damage, Python objects, a single number.
    """
    with damage(str(path)), path.open("rb") as stream:
        header = _read_header(stream, path, "the array")
        begin = stream.tell()
        if not header.shape:
            raise DataError(f"{path} is a single number; expected an array")
        if header.fortran_order and len(header.shape) > 1:
            check_fits(header.shape, header.dtype.itemsize, str(path))
            stream.seek(0)
            return as_lazy(np.lib.format.read_array(stream, allow_pickle=False))
        held = os.fstat(stream.fileno()).st_size - begin
        if held != header.n_values * header.dtype.itemsize:
            raise DataError(f"{path} is shorter or longer than it says; write or copy the file again")
    if not header.n_values:
        return as_lazy(np.empty(header.shape, header.dtype))
    check_fits(header.shape[:1], 8, f"{path}: the list of rows")
    file = path.open("rb")  # open as long as its rows may be asked for
    return LazyPatterns(_rows_of_file(file, header, begin, str(path)), header.shape, header.dtype)


def _rows_of_file(file: IO[bytes], header: Header, offset: int, what: str) -> Source:
    """Rows that stand one after another in a file from `offset` on, read when they are asked for.

    They are read, not mapped: a map of a file that somebody cuts short meanwhile kills the process (SIGBUS).
    """
    row_bytes = math.prod(header.shape[1:]) * header.dtype.itemsize

    def read(begin: int, end: int) -> Any:
        wanted = (end - begin) * row_bytes
        data = os.pread(file.fileno(), wanted, offset + begin * row_bytes)
        while 0 < len(data) < wanted:  # one call gives 2 GB at most
            more = os.pread(file.fileno(), wanted - len(data), offset + begin * row_bytes + len(data))
            if not more:
                break
            data += more
        if len(data) < wanted:
            raise DataError(f"{what} was cut short while it was read; write or copy the file again")
        return np.frombuffer(data, header.dtype).reshape(end - begin, *header.shape[1:])

    return read


def hdf5_header(path: str | os.PathLike[str], key: str) -> Header | None:
    """Shape and dtype of one dataset; None where there is none."""
    import h5py

    with open_hdf5(path) as archive, damage(f"{path}: {key!r}"):
        found = archive.get(key)
        if found is None:
            check_links(archive, key)
        if isinstance(found, h5py.Dataset) and found.shape is None:
            raise DataError(f"{path}: {key!r} is empty: it has no shape; write the file again")
        if isinstance(found, h5py.Dataset) and found.shape:
            check_fits(found.shape[:1], 8, f"{path}: the list of rows of {key!r}")  # which a reader holds
        return Header(found.shape, found.dtype) if isinstance(found, h5py.Dataset) else None


def hdf5_patterns(path: str | os.PathLike[str], key: str) -> LazyPatterns:
    """One dataset of an HDF5 file, read by rows; the file is open only while rows are read.

    Raises DataError where the dataset is missing or holds no numbers, and when rows turn out damaged.
    """
    header = hdf5_header(path, key)
    sources: list[str] = []
    if header is not None:
        with open_hdf5(path) as archive:
            check_sources(archive[key])
            sources = source_files(archive[key])
    if header is None or header.dtype.kind not in "buifc" or not header.shape:
        found = "is not there" if header is None else f"has dtype {header.dtype} and shape {header.shape}"
        raise DataError(f"{path}: dataset {key!r} {found}; it must hold patterns (M, N, N)")

    def read(begin: int, end: int) -> Any:
        with open_hdf5(path) as archive, damage(f"{path}: {key!r}"):
            if sources:  # one that went away since is filled with zeros by HDF5 itself
                check_sources(archive[key], sources)
            rows = np.empty((end - begin, *header.shape[1:]), header.dtype)
            try:
                if rows.size:
                    archive[key].read_direct(rows, np.s_[begin:end])
            except (OSError, MemoryError) as error:
                raise unreadable(archive[key], error) from error
            return rows

    return LazyPatterns(read, header.shape, header.dtype)


@contextmanager
def _member(path: str | os.PathLike[str], key: str) -> Iterator[tuple[zipfile.ZipInfo, IO[bytes]]]:
    with damage(f"{path}: {key!r}"), zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{key}.npy")
        if info.flag_bits & 0x1:
            raise DataError(f"{path}: {key!r} is encrypted; save the scan without a password")
        with archive.open(info) as stream:
            yield info, stream


def _read_header(stream: IO[bytes], path: str | os.PathLike[str], key: str) -> Header:
    header = _any_header(stream, path, key)
    if header.dtype.hasobject:
        raise DataError(
            f"{path}: {key!r} holds Python objects, which would need pickle and are refused; "
            "save it as an array of numbers"
        )
    return header


def _any_header(stream: IO[bytes], path: str | os.PathLike[str], key: str) -> Header:
    header = array_header(stream)
    if header is None:
        raise NotByRows(f"{path}: {key!r} has a header of another version")
    shape, fortran_order, dtype = header
    if any(side < 0 for side in shape):
        raise ValueError(f"shape {shape}")
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
