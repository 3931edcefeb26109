"""Statistics of every detector pixel over a scan, from one pass over the patterns.

Nothing is judged here: `ptycho.scan.pixels` and `ptycho.scan.frames` find faults in these numbers.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.io.lazy import CHUNK_BYTES, Patterns, as_lazy

#: side of the coarse patterns for the comparison of frames
FEATURE_SIDE = 32
#: for more frames, coarse patterns have half this side; the many pairs of a long scan compensate for it
MANY_FRAMES = 20_000


@dataclass(frozen=True, eq=False)
class DetectorStatistics:
    """Per pixel (N,N) and per pattern (M,), over a scan (M,N,N) in its own unit and dtype.

    lowest, highest: of the values, NaN and infinite ones left out. n_at_lowest, n_at_highest: patterns in
    which the pixel has its own lowest or highest value. n_bad: patterns in which it is NaN or infinite;
    n_negative: below zero. mean, variance: of its counts (squares of amplitude), bad values taken as 0.
    counts: of every pattern over pixels that are not ignored; bad_frames: patterns with a NaN or infinite
    value outside ignored pixels; digests: of the same pixels, equal for equal patterns. features (L, K)
    float32: square roots of counts summed in blocks, at most 32 x 32 of them, of the patterns feature_rows
    (L,). ignored: (N,N) bool.
    """

    dtype: np.dtype[Any]
    n_patterns: int
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    n_at_lowest: NDArray[np.int64]
    n_at_highest: NDArray[np.int64]
    n_bad: NDArray[np.int64]
    n_negative: NDArray[np.int64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    counts: NDArray[np.float64]
    n_negative_frame: NDArray[np.int64]
    bad_frames: NDArray[np.bool_]
    digests: NDArray[np.uint64]
    features: NDArray[np.float32]
    feature_rows: NDArray[np.int64]
    ignored: NDArray[np.bool_]

    @property
    def N(self) -> int:
        """Side of a pattern, px."""
        return len(self.mean)

    @property
    def mean_counts(self) -> NDArray[np.float64]:
        """The mean pattern (N,N), counts, 0 in ignored pixels."""
        return np.where(self.ignored, 0.0, self.mean)


def measure_detector(
    patterns: Patterns,
    unit: str,
    bad_pixels: NDArray[np.bool_] | None = None,
    feature_rows: NDArray[np.int64] | None = None,
) -> DetectorStatistics:
    """One pass over patterns (M,N,N) in `unit` ('counts' or 'amplitude').

    feature_rows: the patterns, in order, whose coarse pictures are kept; None: all. Time O(M N^2). Memory:
    about 20 MiB, some twelve numbers a pixel, 25 bytes a pattern, and at most 1024 numbers for
    each of `feature_rows`.
    """
    M, N = len(patterns), patterns.shape[-1]
    ignored = np.zeros((N, N), np.bool_) if bad_pixels is None else np.asarray(bad_pixels, np.bool_)
    lowest, highest = np.full((N, N), np.inf), np.full((N, N), -np.inf)
    n_low, n_high, n_bad, n_negative = (np.zeros((N, N), np.int64) for _ in range(4))
    total, squares = np.zeros((N, N)), np.zeros((N, N))
    counts, bad_frames, digests = np.zeros(M), np.zeros(M, np.bool_), np.zeros(M, np.uint64)
    negative_frame = np.zeros(M, np.int64)
    block = math.ceil(N / (FEATURE_SIDE if M <= MANY_FRAMES else FEATURE_SIDE // 2))
    side = math.ceil(N / block)
    rows = np.arange(M) if feature_rows is None else feature_rows
    features = np.zeros((len(rows), side * side), np.float32)
    # 4 MiB in the float64 that a chunk is turned into; up to five such arrays are held at a time
    step_bytes = max(1, CHUNK_BYTES * patterns.dtype.itemsize // 64)
    for begin, chunk in as_lazy(patterns).chunks(step_bytes):
        part = slice(begin, begin + len(chunk))
        values = chunk.astype(np.float64)
        finite = np.isfinite(values) if chunk.dtype.kind == "f" else None
        if finite is not None and not finite.all():
            n_bad += (~finite).sum(axis=0)
            bad_frames[part] = (~finite & ~ignored).any(axis=(1, 2))
            low, high = np.where(finite, values, np.inf), np.where(finite, values, -np.inf)
            values = np.where(finite, values, 0.0)
        else:
            low = high = values
        _count_extreme(low, lowest, n_low, np.less)
        _count_extreme(high, highest, n_high, np.greater)
        if low.min(initial=0.0) < 0:
            n_negative += (low < 0).sum(axis=0)
            negative_frame[part] = ((low < 0) & ~ignored).sum(axis=(1, 2))
        if unit == "amplitude":
            values = np.square(values)
        total += values.sum(axis=0)
        squares += np.einsum("mij,mij->ij", values, values)
        seen = values * ~ignored
        counts[part] = seen.sum(axis=(1, 2))
        marks = b"".join(hashlib.blake2b(frame.tobytes(), digest_size=8).digest() for frame in seen)
        digests[part] = np.frombuffer(marks, np.uint64)
        low_row, high_row = np.searchsorted(rows, [part.start, part.stop])
        kept = seen if feature_rows is None else seen[rows[low_row:high_row] - begin]
        features[low_row:high_row] = np.sqrt(np.maximum(_binned(kept, block, side), 0.0))
    mean = total / M
    return DetectorStatistics(
        patterns.dtype, M, lowest, highest, n_low, n_high, n_bad, n_negative, mean,
        np.maximum(squares / M - mean**2, 0.0), counts, negative_frame, bad_frames, digests, features,
        rows, ignored,
    )  # fmt: skip


def _count_extreme(
    values: NDArray[np.float64], extreme: NDArray[np.float64], count: NDArray[np.int64], beyond: np.ufunc
) -> None:
    """Update the extreme value of the scan, and its number of occurrences, by a chunk, in place."""
    reduce = np.minimum if beyond is np.less else np.maximum
    here = reduce.reduce(values, axis=0)
    met = (values == here).sum(axis=0)
    newer = beyond(here, extreme)
    count[...] = np.where(newer, met, count + np.where(here == extreme, met, 0))
    extreme[...] = reduce(extreme, here)


def _binned(seen: NDArray[np.float64], block: int, side: int) -> NDArray[np.float64]:
    """Sums over blocks of `block` x `block` pixels, (m, side^2)."""
    if block > 1:
        edge = side * block - seen.shape[-1]
        seen = np.pad(seen, ((0, 0), (0, edge), (0, edge))) if edge else seen
        seen = seen.reshape(len(seen), side, block, side, block).sum(axis=(2, 4))
    return seen.reshape(len(seen), math.prod(seen.shape[1:]))
