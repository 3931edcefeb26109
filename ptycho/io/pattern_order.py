"""Which axis of a cube of patterns counts the positions: as many patterns as pixels a side, in a file."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.lazy import Patterns, as_lazy

logger = logging.getLogger(__name__)

#: the reading that is taken holds this much more of its light in the middle than the other
_CLEARLY = 1.5


def order_of_cube(
    patterns: Patterns, n_positions: int, key: str, keys: Iterable[str], file: str
) -> str | None:
    """'MNN' or 'NNM' for N patterns of N x N px in a file with these `keys`; None where N differs.

    `bad_pixels` among the keys means 'MNN', since only ptychodus writes it. Otherwise the order is taken
    under which the mean pattern has its light in the middle, and 'MNN' with one warning where that does
    not tell. The key 'diffraction' was written in both orders by programs that also wrote other centres:
    DataError for it. Time: one pass over the patterns; memory: one chunk.
    """
    shape = patterns.shape[:3] if patterns.ndim == 4 and patterns.shape[-1] == 1 else patterns.shape
    if not n_positions or shape != (n_positions,) * 3 or patterns.dtype.kind not in "uif":
        return None
    if key != "diff3d":
        raise DataError(
            f"{file}: {key!r} has shape {patterns.shape}, which reads as (M,N,N) and as legacy (N,N,M): "
            "say pattern_order='MNN' or 'NNM' as a key of the file"
        )
    if "bad_pixels" in keys:
        return "MNN"
    first, last = _mean_patterns(patterns)
    if _centred(first, last):
        return "MNN"
    if _centred(last, first):
        return "NNM"
    logger.warning(
        "%s: %r has shape %s, which reads as (M,N,N) and as legacy (N,N,M): read as (M,N,N); "
        "the key pattern_order, 'MNN' or 'NNM', settles it",
        file,
        key,
        patterns.shape,
    )
    return "MNN"


def _mean_patterns(patterns: Patterns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean over the first axis and over the last one, (N,N) each."""
    N = patterns.shape[0]
    first, last = np.zeros((N, N)), np.zeros((N, N))
    for begin, chunk in as_lazy(patterns).chunks():
        cube = chunk.reshape(-1, N, N).astype(np.float64)
        first += cube.sum(axis=0)
        last[begin : begin + len(cube)] = cube.sum(axis=2)
    return first, last


def _centred(pattern: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether a pattern peaks in its middle and has clearly more of its light there than the other one."""
    N = len(pattern)
    (at, share), (_, others) = _peak(pattern), _peak(other)
    return max(abs(place - N // 2) for place in at) <= N // 8 and share > _CLEARLY * others


def _peak(pattern: NDArray[np.float64]) -> tuple[tuple[int, int], float]:
    """Where a window of N/4 sees most of a pattern, and the share of it that the middle one sees.

    The brightest hundredth is cut to one height, so that a hot pixel is no peak.
    """
    from scipy.ndimage import uniform_filter

    N = len(pattern)
    if not (np.isfinite(pattern).all() and pattern.max() > 0):
        return (0, 0), 0.0
    level = np.quantile(pattern, 0.99)
    seen = uniform_filter(np.minimum(pattern, level if level > 0 else pattern.max()), N // 4, mode="wrap")
    row, column = divmod(int(seen.argmax()), N)
    return (row, column), float(seen[N // 2, N // 2] / seen.sum())
