"""Fourier ring correlation: up to which spatial frequency two images agree."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.image.registration import hann_window, weighted_mean

Real = NDArray[np.float64]
#: rings 0-2 hold few pixels, and these follow the fitted scale and ramp
FIRST_RING = 3


class RingCorrelation(NamedTuple):
    """frequency (R,) as a fraction of Nyquist, correlation (R,), pixels (R,) in each ring."""

    frequency: Real
    correlation: Real
    pixels: Real


def fourier_ring_correlation(a: ArrayLike, b: ArrayLike) -> RingCorrelation:
    """Re sum F_a conj(F_b) / sqrt(sum |F_a|^2 sum |F_b|^2) on rings of equal frequency, up to Nyquist.

    Shapes: two images (H, W) of one shape, real or complex; rings are one frequency step of the shorter
    side wide. The images are windowed (Hann) and made free of their mean. Source: van Heel, Ultramicroscopy
    21, 95 (1987).

    >>> image = np.random.default_rng(0).standard_normal((32, 32))
    >>> curve = fourier_ring_correlation(image, image)
    >>> curve.frequency[-1].item(), bool(np.allclose(curve.correlation, 1))
    (1.0, True)
    """
    first, second = np.asarray(a, np.complex128), np.asarray(b, np.complex128)
    window, side = hann_window(first.shape), min(first.shape)
    fa, fb = (np.fft.fft2(window * (z - weighted_mean(z, window))) for z in (first, second))
    fy, fx = (np.fft.fftfreq(n) * side for n in first.shape)
    ring = np.round(np.hypot(fy[:, None], fx[None, :])).astype(np.int64).ravel()
    rings = side // 2 + 1

    def summed(values: Real) -> Real:
        return np.bincount(ring, values.ravel(), minlength=rings)[:rings].astype(np.float64)

    power = np.sqrt(summed(np.abs(fa) ** 2) * summed(np.abs(fb) ** 2))
    correlation = summed((fa * fb.conj()).real) / np.maximum(power, np.finfo(np.float64).tiny)
    return RingCorrelation(np.arange(rings) / (side / 2), correlation, summed(np.ones(first.shape)))


def half_bit_threshold(pixels: ArrayLike) -> Real:
    """The half-bit criterion of every ring from its number of pixels (R,).

    Source: van Heel, Schatz, J. Struct. Biol. 151, 250 (2005), eq. 17.

    >>> half_bit_threshold([1, 10**12]).round(4).tolist()
    [1.0, 0.1716]
    """
    root = np.sqrt(np.maximum(np.asarray(pixels, np.float64), 1.0))
    return np.asarray((0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))


def crossing(curve: RingCorrelation, threshold: float | Real, smooth: int = 3) -> float:
    """First frequency (fraction of Nyquist) where the smoothed curve falls below the threshold; 1.0 if never.

    The curve is smoothed by a mean over `smooth` rings (odd). The first three rings are left out.

    >>> falling = RingCorrelation(np.linspace(0, 1, 11), np.linspace(1, 0, 11), np.ones(11))
    >>> crossing(falling, 0.45, smooth=1)
    0.6000000000000001
    >>> crossing(falling, -1.0)  # never
    1.0
    """
    padded = np.pad(curve.correlation, smooth // 2, mode="edge")
    smoothed = np.convolve(padded, np.full(smooth, 1.0 / smooth), "valid")
    below = np.flatnonzero((smoothed < threshold)[FIRST_RING:])
    return float(min(curve.frequency[below[0] + FIRST_RING], 1.0)) if len(below) else 1.0
