"""Counts rounded to a step of their Poisson noise, as whole levels.

2 sqrt(n + 3/8) of a Poisson count has a standard deviation of about 1 whatever its mean (Anscombe,
Biometrika 35, 246 (1948)). Levels are bins of width `step` on that axis. If a bin would hold fewer than two
counts, which is the case below 4 / step^2 counts, every count has its own level.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_OFFSET = 3.0 / 8.0
Levels = NDArray[np.int64]


def stabilised(counts: ArrayLike) -> NDArray[np.float64]:
    """2 sqrt(n + 3/8) of counts of any shape, float64; negative ones are taken as 0.

    >>> float(stabilised(10_000.0) - stabilised(9_900.0)) < 1.01  # one standard deviation is about 1
    True
    """
    return np.asarray(2.0 * np.sqrt(np.maximum(np.asarray(counts, np.float64), 0.0) + _OFFSET))


def expected_counts(values: ArrayLike) -> NDArray[np.float64]:
    """The Poisson mean that has this mean on the stabilised axis, float64, at least 0.

    Closed form of the unbiased inverse: Makitalo and Foi, IEEE Trans. Image Process. 20, 99 (2011), eq. 10.

    >>> bool(np.isclose(expected_counts(stabilised(400.0)), 400.25, atol=0.01))
    True
    """
    s = np.maximum(np.asarray(values, np.float64), 2.0 * math.sqrt(_OFFSET))
    root = math.sqrt(1.5)
    mean = s**2 / 4.0 + root / (4.0 * s) - 11.0 / (8.0 * s**2) + 5.0 * root / (8.0 * s**3) - 1.0 / 8.0
    return np.asarray(np.maximum(mean, 0.0))


def to_levels(counts: ArrayLike, step: float) -> Levels:
    """Whole counts (any shape, not negative) to levels int64; counts of one bin have the same level.

    >>> to_levels([0, 3, 15, 16, 100], 0.5).tolist()  # below 4 / 0.5^2 = 16 every count is kept
    [0, 3, 15, 16, 39]
    """
    n = np.asarray(counts, np.int64)
    exact = _exact_below(step)
    bins = np.floor((stabilised(np.maximum(n, exact)) - float(stabilised(exact))) / step).astype(np.int64)
    return np.where(n < exact, n, exact + bins)


def from_levels(levels: ArrayLike, step: float) -> NDArray[np.int64]:
    """The whole count nearest to the middle of each level; it lies in that level.

    |stabilised(decoded) - stabilised(original)| is below `step`, since both lie in one bin.

    >>> from_levels(to_levels([0, 3, 15, 16, 100], 0.5), 0.5).tolist()
    [0, 3, 15, 17, 98]
    """
    c = np.asarray(levels, np.int64)
    exact = _exact_below(step)
    middle = float(stabilised(exact)) + step * (np.maximum(c - exact, 0) + 0.5)
    n = np.where(c < exact, c, np.maximum(np.rint(middle**2 / 4.0 - _OFFSET).astype(np.int64), exact))
    # the nearest whole number may lie in the next bin
    again = to_levels(n, step)
    return np.where(again > c, n - 1, np.where(again < c, n + 1, n))


def folded(differences: Levels) -> Levels:
    """Signed whole numbers as unsigned: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...

    >>> folded(np.array([0, -1, 1, -2])).tolist()
    [0, 1, 2, 3]
    """
    return np.where(differences >= 0, 2 * differences, -2 * differences - 1)


def unfolded(values: NDArray[Any]) -> Levels:
    """The inverse of `folded`."""
    whole = values.astype(np.int64)
    return np.where(whole % 2 == 0, whole // 2, -(whole + 1) // 2)


def smallest_unsigned(largest: int) -> np.dtype[Any]:
    """The unsigned type of one, two, four or eight bytes that holds a number."""
    for kind in (np.uint8, np.uint16, np.uint32):
        if largest <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.uint64)


def _exact_below(step: float) -> int:
    return max(1, math.ceil(4.0 / step**2))
