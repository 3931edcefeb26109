"""Histograms of tensors, small enough to be logged during training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: epochs between two histograms of a run
EVERY = 10
_BINS = 40


@dataclass(frozen=True)
class Histogram:
    """Counts (K,) of values between `edges` (K + 1,), their sum and sum of squares; finite values only."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    total: float
    squares: float


def histogram_of(values: ArrayLike) -> Histogram:
    """The histogram of all finite values of an array; one empty bin for none. Time linear."""
    flat = np.asarray(values, np.float64).ravel()
    flat = flat[np.isfinite(flat)]
    counts, edges = np.histogram(flat, _BINS if flat.size else 1)
    return Histogram(counts.astype(np.int64), edges, float(flat.sum()), float(np.sum(flat**2)))
