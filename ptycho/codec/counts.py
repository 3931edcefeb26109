"""The frames of a scan as whole counts, and their statistics from one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.compressed.levels import stabilised
from ptycho.io.lazy import as_lazy
from ptycho.scan.raw_data import RawData

Progress = Callable[[int, int], None]
#: amplitudes are float32: relative error within which their squares are whole numbers
_ROUNDING = 1e-5
_CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class Survey:
    """Statistics of the frames from one pass.

    sha256: of them as they are; lowest, highest: value, bad pixels included, of whole numbers. whole: whether
    they are whole counts; then brightest is the highest outside bad pixels, mean (N, N) the mean frame on the
    stabilised axis, and spread the rms of the frames about it.
    """

    sha256: str
    whole: bool
    brightest: int
    mean: NDArray[np.float64]
    lowest: float
    highest: float
    spread: float


class Counts:
    """The frames (M, N, N) of a scan read by rows as counts int64, 0 in bad pixels.

    Integer frames are counts. Float frames are converted if their values, or the squares of the amplitudes,
    are whole numbers. Memory: the requested frames.
    """

    def __init__(self, raw: RawData) -> None:
        self.raw = raw
        self.shape: tuple[int, int, int] = (raw.n_positions, raw.N, raw.N)
        self._frames = as_lazy(raw.diff3d)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[np.int64]:
        return self._whole(self._frames[rows])[0]

    def blocks(self, block: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(first frame, counts) of `block` frames at a time."""
        for begin in range(0, len(self), block):
            yield begin, self[begin : begin + block]

    def original(self, begin: int, end: int) -> NDArray[Any]:
        """The frames in their original form."""
        return self._frames[begin:end]

    def survey(self, progress: Progress | None = None) -> Survey:
        """One pass over the frames. Memory: one chunk of 16 MB."""
        made = hashlib.sha256()
        whole, brightest, total = True, 0, np.zeros(self.shape[1:])
        squares = 0.0
        done, lowest, highest = 0, np.inf, -np.inf
        for _, part in self._frames.chunks(_CHUNK_BYTES):
            little = np.ascontiguousarray(part, part.dtype.newbyteorder("<"))
            made.update(little.reshape(-1).view(np.uint8).data)
            lowest, highest = min(lowest, float(part.min())), max(highest, float(part.max()))
            counts, exact = self._whole(part)
            whole = whole and exact
            brightest = max(brightest, int(counts.max(initial=0)))
            values = stabilised(counts)
            total += values.sum(axis=0)
            squares += float(np.sum(values**2))
            done += len(part)
            if progress is not None:
                progress(done, len(self))
        mean = total / len(self)
        spread = max(squares / (len(self) * mean.size) - float(np.mean(mean**2)), 0.0) ** 0.5
        return Survey(made.hexdigest(), whole, brightest, mean, lowest, highest, spread)

    def _whole(self, part: NDArray[Any]) -> tuple[NDArray[np.int64], bool]:
        """Counts of frames, and whether they are whole numbers."""
        if part.dtype.kind in "ui":
            counts = part.astype(np.int64)
            return self._unmasked(counts), True
        seen = self._unmasked(np.asarray(part, np.float64))
        seen = seen**2 if self.raw.diffraction_unit == "amplitude" else seen
        counts = np.rint(seen)
        return counts.astype(np.int64), bool(np.all(np.abs(seen - counts) <= _ROUNDING * (1 + counts)))

    def _unmasked(self, part: NDArray[Any]) -> NDArray[Any]:
        bad = self.raw.bad_pixels
        return part if bad is None else np.where(bad, part.dtype.type(0), part)


def check_whole(found: Survey, raw: RawData, method: str) -> None:
    """DataError if a method that rounds counts gets values that are not counts."""
    if not found.whole:
        what = "squares of the amplitudes" if raw.diffraction_unit == "amplitude" else "counts"
        raise DataError(
            f"{raw.source or 'the scan'}: the {what} ({raw.diff3d.dtype}) are not whole numbers, so their "
            f"Poisson noise is not known, which method {method!r} rounds by; use --method lossless"
        )
