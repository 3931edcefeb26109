"""Patterns that stay on disk: an array whose rows are read when they are asked for, from any kind of file.

Only the rows asked for are read. A scan larger than the memory can so be checked and normalised in chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptycho.errors import DataError
from ptycho.io.reading import damage

#: bytes of patterns that are held at a time
CHUNK_BYTES = 32 * 2**20
#: rows are read in one piece if the piece is at most this many times larger than the rows
_LOOSE = 4

#: rows [begin, end) of a file, (end - begin, ...)
Source = Callable[[int, int], NDArray[Any]]


class NotByRows(DataError):
    """Patterns whose rows cannot be read one by one from the file; the message says why."""

    def __str__(self) -> str:
        return (
            f"{super().__str__()}: it cannot be read by rows; write it as (M,N,N) in C order, or say "
            "patterns = 'memory'"
        )


class LazyPatterns:
    """An array (M, ...) read by rows: `array[5]`, `array[3:9]`, `array[rows]` are ordinary arrays.

    `source` gives consecutive rows; `rows` says which of them this array has, in order (None: all).
    `np.asarray` reads it whole. Memory: what is asked for, plus 8 bytes a row.
    """

    def __init__(
        self,
        source: Source,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._source = source
        self._rows = np.arange(shape[0], dtype=np.int64) if rows is None else rows
        self.shape = (len(self._rows), *shape[1:])
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size if it were in memory."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        wanted = self._rows[index]
        if wanted.ndim == 0:
            return np.asarray(self._source(int(wanted), int(wanted) + 1)[0])
        found = self._read(wanted.reshape(-1))
        return found.reshape(*wanted.shape, *self.shape[1:])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for _, chunk in self.chunks():
            yield from chunk

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def chunks(self, n_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, NDArray[Any]]]:
        """(first row, rows) one after another, about `n_bytes` each, in this array's dtype."""
        step = max(1, n_bytes // max(1, math.prod(self.shape[1:]) * self.dtype.itemsize))
        for begin in range(0, len(self), step):
            yield begin, self[begin : begin + step]

    def select(self, rows: NDArray[Any]) -> LazyPatterns:
        """These rows only; nothing is read."""
        return LazyPatterns(self._source, self.shape, self.dtype, self._rows[rows])

    def map(self, function: Callable[[NDArray[Any]], NDArray[Any]], dtype: DTypeLike) -> LazyPatterns:
        """The array that `function`, which acts row by row, makes of this one when rows are read."""
        source = self._source

        def converted(begin: int, end: int) -> NDArray[Any]:
            return function(source(begin, end))

        return LazyPatterns(converted, self.shape, dtype, self._rows)

    def guarded(self, what: str) -> LazyPatterns:
        """The same array, whose rows that cannot be read are one DataError that begins with `what`."""
        source = self._source

        def read(begin: int, end: int) -> NDArray[Any]:
            with damage(f"{what}: frames {begin} to {end - 1}"):
                return source(begin, end)

        return LazyPatterns(read, self.shape, self.dtype, self._rows)

    def without_last_axis(self) -> LazyPatterns:
        """The array without its last axis, which has length one."""
        squeezed = self.map(lambda part: part[..., 0], self.dtype)
        squeezed.shape = self.shape[:-1]
        return squeezed

    def _read(self, wanted: NDArray[np.int64]) -> NDArray[Any]:
        if len(wanted) == 0:
            return np.empty((0, *self.shape[1:]), self.dtype)
        low, high = int(wanted.min()), int(wanted.max()) + 1
        if high - low <= _LOOSE * len(wanted):
            part = self._source(low, high)
            in_order = len(wanted) == high - low and bool(np.all(np.diff(wanted) == 1))
            return part if in_order else part[wanted - low]
        found = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        for run in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted) != 1) + 1):
            found[run] = self._source(int(wanted[run[0]]), int(wanted[run[-1]]) + 1)
        return found


#: patterns (M, N, N), in memory or read by rows; whoever takes them reads slices
Patterns = NDArray[Any] | LazyPatterns


def as_lazy(array: Patterns) -> LazyPatterns:
    """Any array as one that is read by rows; one that already is passes through. Nothing is copied."""
    if isinstance(array, LazyPatterns):
        return array
    return LazyPatterns(lambda begin, end: np.asarray(array[begin:end]), array.shape, array.dtype)


def rows_of(array: Any, rows: NDArray[Any]) -> Any:
    """These rows of an array: a copy of an array in memory; for a lazy array nothing is read yet."""
    return array.select(rows) if isinstance(array, LazyPatterns) else array[rows]


def joined(parts: list[LazyPatterns]) -> LazyPatterns:
    """Several arrays of frames as one, read by rows."""
    ends = np.cumsum([len(part) for part in parts])

    def read(begin: int, end: int) -> NDArray[Any]:
        pieces = []
        for part, last in zip(parts, ends, strict=True):
            first = int(last) - len(part)
            low, high = max(begin, first), min(end, int(last))
            if low < high:
                pieces.append(part[low - first : high - first])
        return np.concatenate(pieces)

    return LazyPatterns(read, (int(ends[-1]), *parts[0].shape[1:]), parts[0].dtype)
