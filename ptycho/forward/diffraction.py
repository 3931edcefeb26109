"""From patches to the detector: exit waves, far-field intensity, expected counts.

Letters: P probe modes, N side. Method: Hoidn et al., Sci. Rep. 13, 22789 (2023), eqs. 1 to 3.
"""

from __future__ import annotations

import math

from ptycho.forward.fields import squared
from ptycho.ops import Array, ops_of
from ptycho.physics import RATE_EPSILON


def diffract(patches: Array, probe: Array) -> Array:
    """Far-field intensity A^2 = sum_p |FFT2_ortho(P_p O)|^2; modes add as intensities.

    Shapes: patches (..., N, N) complex and probe (P, N, N) complex give (..., N, N) real, zero frequency at
    (N//2, N//2). The transform is unitary, so the sum over pixels is that of |P O|^2:

    >>> import numpy as np
    >>> intensity = diffract(np.ones((1, 4, 4), complex), np.full((2, 4, 4), 0.5 + 0j))
    >>> intensity.shape, float(intensity[0, 2, 2]), round(float(intensity.sum()), 9)
    ((1, 4, 4), 8.0, 8.0)
    """
    ops = ops_of(patches)
    rows, columns = ops.shape(probe)[-2:]
    # the factor of the unitary transform goes to the probe, which is the smallest of the three arrays
    waves = ops.fft2(patches[..., None, :, :] * (probe * (1 / math.sqrt(rows * columns))))
    return ops.fftshift(ops.sum(squared(waves), -3))


def amplitude(intensity: Array) -> Array:
    """sqrt(A^2 + 1e-12): square root with a gradient that stays finite at zero intensity."""
    return ops_of(intensity).sqrt(intensity + 1e-12)


def rate(intensity: Array, intensity_scale: Array | float) -> Array:
    """Expected counts a pixel: s^2 A^2 + 1e-6, so that the logarithm of a dark pixel is finite."""
    return intensity_scale**2 * intensity + RATE_EPSILON
