"""How much the values of a detector fluctuate, told by the patterns alone: variance for one count.

The Fourier transform of a far-field pattern is the autocorrelation of the exit wave. Beyond twice the probe's
width it is empty, and what stands there is noise: its level is the mean variance of a pixel, at any dose, and
no image is needed. Photons that are counted have 1; a detector that integrates them has its gain, and more.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: lags, as a share of a tile's own sampling, and how alike the levels of the outer rings must be
_RINGS = (0.45, 0.50, 0.55, 0.60, 0.68)
_AXES = 0.1
_EVEN = 1.3
_SMALLEST = 16
#: levels between these are taken for counted photons
_POISSON = (0.6, 1.6)


class Dispersion(NamedTuple):
    """per_count: variance of a value, relative to the value. even: whether the level is the same over the
    outermost lags, as noise is; where it is not, light reaches them, and `per_count` is an upper bound."""

    per_count: float
    even: bool


def measure_dispersion(counts: ArrayLike, bad_pixels: NDArray[np.bool_] | None = None) -> Dispersion | None:
    """Noise of patterns (K,N,N) of counts, or squared amplitudes, in the largest square without bad pixels.

    None where that square is under 16 px wide or holds no light. Noise that is alike in adjacent pixels
    (charge that is shared) is underestimated. Time O(K N^2 log N), memory the outer lags of the patterns.

    >>> rng = np.random.default_rng(0)
    >>> row = np.exp(-(np.arange(-32, 32) / 12.0) ** 2)
    >>> seen = rng.poisson(50 * row[:, None] * row * np.ones((40, 1, 1)))
    >>> round(measure_dispersion(seen).per_count), round(measure_dispersion(30 * seen).per_count / 30)
    (1, 1)
    """
    values = np.asarray(counts)
    top, left, side = largest_square(
        np.ones(values.shape[1:], np.bool_) if bad_pixels is None else ~bad_pixels
    )
    if side < _SMALLEST:
        return None
    axis = np.hanning(side + 2)[1:-1]
    window = axis[:, None] * axis[None, :]
    k = np.abs(np.fft.fftfreq(side))
    lag = np.hypot(k[:, None], k[None, :])
    clear = (k[:, None] > _AXES) & (k[None, :] > _AXES)
    rings = [(lag >= low) & (lag < high) & clear for low, high in itertools.pairwise(_RINGS)]
    powers: list[list[NDArray[np.float64]]] = [[] for _ in rings]
    for pattern in values:
        tile = np.asarray(pattern[top : top + side, left : left + side], np.float64)
        light = float((tile * window**2).sum())
        if light > 0:
            power = np.abs(np.fft.fft2(tile * window)) ** 2 / light
            for ring, found in zip(rings, powers, strict=True):
                found.append(power[ring])
    if len(powers[0]) < 4:
        return None
    # the power of noise is distributed exponentially, with the median ln 2 times the mean
    levels = [float(np.median(np.concatenate(found))) / math.log(2) for found in powers]
    even = max(levels) < _EVEN * min(levels)
    return Dispersion(sum(levels) / len(levels) if even else min(levels), even)


def quanta_per_count(found: Dispersion | None, counts_known: bool) -> float | None:
    """Variance for one count that anchors are computed with: 1 for counted photons; None: not known.

    Where light reaches the outer lags the level says only that the noise is less, so that it does not replace
    the noise of counts by more.
    """
    if found is None:
        return 1.0 if counts_known else None
    if counts_known and (
        _POISSON[0] < found.per_count < _POISSON[1] or (not found.even and found.per_count > 1)
    ):
        return 1.0
    return found.per_count if counts_known or found.even else None


def largest_square(good: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Row, column and side of the largest square (first of several) of True in a map (H, W).

    >>> largest_square(np.array([[0, 1, 1], [1, 1, 1], [1, 1, 0]], bool))
    (0, 1, 2)
    """
    height, width = good.shape
    if good.all():
        return 0, 0, min(height, width)
    side = np.zeros((height + 1, width + 1), np.int64)
    for row in range(height):
        for column in np.flatnonzero(good[row]):
            side[row + 1, column + 1] = 1 + min(
                side[row, column], side[row + 1, column], side[row, column + 1]
            )
    bottom, right = divmod(int(side.argmax()), width + 1)
    most = int(side[bottom, right])
    return bottom - most, right - most, most
