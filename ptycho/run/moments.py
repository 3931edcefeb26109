"""What the sums of a pattern say: its total counts and its centre of mass, and how the object changes them.

For any weights f(k) on the detector the sum f . I of a pattern I = sum_p |FFT(P_p O)|^2 is a quadratic form
of the exit wave. With O = exp(a + i phi) and small a, phi its change is, to first order and for every mode P,
    d(f . I) = sum_r [2 Re(conj(F P) P) a - 2 Im(conj(F P) P) phi](r),    F P = IFFT(f FFT(P)).
For f = 1 the first kernel is 2 |P|^2 and the second is zero. For f = k it is the probe's own current,
Im(conj(P) grad P) / pi, and the divergence of |P|^2: the centre of mass is the mean phase gradient under the
probe. Bad pixels are zeros of f, so that a masked detector has its own exact kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import DataError
from ptycho.io.lazy import Patterns

Real = NDArray[np.float64]
_CHUNK = 256


@dataclass(frozen=True)
class Moments:
    """Sums of every pattern.

    counts (M,) float64: total over the good pixels; centre_xy (M, 2) float64: centre of mass [x, y], cycles a
    px (0 = the detector's centre), 0 for a pattern without counts.
    """

    counts: Real
    centre_xy: Real

    @staticmethod
    def of_sums(sums: NDArray[np.floating]) -> Moments:
        """From (M, 3) sums of counts, kx counts and ky counts."""
        wide = np.asarray(sums, np.float64)
        if not np.isfinite(wide).all():
            raise DataError("patterns hold NaN or infinite values; mark those pixels in bad_pixels")
        safe = np.where(wide[:, :1] > 0, wide[:, :1], np.inf)
        return Moments(wide[:, 0], wide[:, 1:] / safe)


def detector_weights(n: int, bad_pixels: ArrayLike | None = None) -> Real:
    """The weights f of the three sums, (3, N, N): 1, kx, ky in cycles a px, zero frequency at [N//2, N//2].

    bad_pixels (N, N) bool, True = ignored, are zero.

    >>> detector_weights(4)[1, 0].tolist()
    [-0.5, -0.25, 0.0, 0.25]
    """
    k = (np.arange(n) - n // 2) / n
    weights = np.stack([np.ones((n, n)), np.broadcast_to(k, (n, n)), np.broadcast_to(k[:, None], (n, n))])
    if bad_pixels is not None:
        weights = weights * ~np.asarray(bad_pixels, bool)
    return np.asarray(weights, np.float64)


def pattern_moments(
    patterns: Patterns, *, unit: str = "counts", bad_pixels: ArrayLike | None = None
) -> Moments:
    """Sums of patterns (M, N, N), counts or amplitude (unit), zero frequency at [N//2, N//2].

    Time: one pass. Memory: 256 patterns at a time, whatever the length of a file that is read row by row.
    """
    n = int(patterns.shape[-1])
    weights = detector_weights(n, bad_pixels).reshape(3, -1).T.astype(np.float32)
    good = None if bad_pixels is None else ~np.asarray(bad_pixels, bool).ravel()
    sums = np.empty((len(patterns), 3))
    for start in range(0, len(patterns), _CHUNK):
        part = np.asarray(patterns[start : start + _CHUNK], np.float32).reshape(-1, n * n)
        if good is not None:
            part = np.where(good, part, np.float32(0))
        sums[start : start + _CHUNK] = (part if unit == "counts" else part * part) @ weights
    return Moments.of_sums(sums)


class Responses(NamedTuple):
    """How log counts, centre x and centre y (3) follow log amplitude and phase (2) around a flat object.

    kernels (3, 2, N, N): change per unit of the field at each pixel of the window; noise (3,): variance of
    each of them that one photon leaves (divide by the counts).
    """

    kernels: Real
    noise: Real


def moment_responses(probe: ArrayLike, bad_pixels: ArrayLike | None = None) -> Responses:
    """The kernels of the module docstring for a probe (N, N) or (P, N, N), any scale.

    DataError for a probe that leaves no light on the good pixels.
    """
    modes = np.asarray(probe, np.complex128)
    modes = modes.reshape(-1, *modes.shape[-2:])
    weights = np.fft.ifftshift(detector_weights(modes.shape[-1], bad_pixels), axes=(-2, -1))
    far = np.fft.fft2(modes, norm="ortho")
    seen = np.sum(np.abs(far) ** 2, 0)
    base = np.sum(weights * seen, (-2, -1))
    if not base[0] > 0:
        raise DataError("the probe leaves no light on the good pixels; check probe and bad_pixels")
    through = np.fft.ifft2(weights[:, None] * far, norm="ortho")
    product = np.sum(through.conj() * modes, 1)
    kernels = np.stack([2 * product.real, -2 * product.imag], 1) / base[0]
    centre = base[1:] / base[0]
    kernels[1:] -= centre[:, None, None, None] * kernels[:1]
    spread = np.sum(weights[0] * seen * (weights[1:] - centre[:, None, None]) ** 2, (-2, -1)) / base[0]
    return Responses(kernels, np.concatenate([[1.0], spread]))
