"""What is minimised on measured patterns, and on labels: pure functions of arrays.

Letters: B groups, C patterns a group, N side. Every loss is a mean over the pixels that count, a number
without a shape. Shapes unless said otherwise: rate, counts, predicted, measured (B, C, N, N) real; `counted`
broadcastable to them, True where a pixel counts; patches and labels (B, C, N, N) complex; weight (N, N) real,
the illumination.
"""

from __future__ import annotations

import math

from ptycho.forward.fields import masked_mean, phase_difference, smooth_modulus, squared, weighted_mean
from ptycho.ops import Array, ops_of

#: a count of zero is this inside the logarithm, where zero times it is zero. Not so small that a high rate
#: makes the ratio underflow: TensorFlow takes denormal numbers for zero
SMALLEST_COUNT = 1e-20


def poisson_nll(rate: Array, counts: Array, counted: Array) -> Array:
    """Mean of rate - n log(rate): negative logarithm of the Poisson likelihood without its constant log n!.

    >>> import numpy as np
    >>> rate, counts = np.array([1.0, 4.0]), np.array([1.0, 0.0])
    >>> float(poisson_nll(rate, counts, np.array(True)))
    2.5
    """
    return masked_mean(rate - counts * ops_of(rate).log(rate), counted)


def poisson_deviance(rate: Array, counts: Array, counted: Array) -> Array:
    """Mean of rate - n + n log(n / rate): `poisson_nll` less its floor, which is at rate = n; 0 is perfect.

    Same gradient as `poisson_nll`, and exact in float32 at 1e9 photons, where a difference of means is not.

    >>> import numpy as np
    >>> float(poisson_deviance(np.array([3.0, 2.0]), np.array([3.0, 0.0]), np.array(True)))
    1.0
    """
    ops = ops_of(rate)
    # not xlogy: its gradient at a count of zero is 0/0
    ratio = ops.maximum(counts, SMALLEST_COUNT) / rate
    return masked_mean(rate - counts + counts * ops.log(ratio), counted)


def shifted_poisson(rate: Array, counts: Array, counted: Array, variance: float) -> Array:
    """Poisson deviance of counts + variance under rate + variance: counting noise with Gaussian read noise.

    The sum of both noises has the mean and variance of a Poisson variable shifted by `variance` (counts^2),
    the read noise's (Snyder, Hammoud and White, JOSA A 10, 1014 (1993)).
    """
    shifted = ops_of(counts).maximum(counts + variance, 0.0)
    return poisson_deviance(rate + variance, shifted, counted)


def amplitude_mae(predicted: Array, measured: Array, counted: Array) -> Array:
    """Mean absolute difference of diffraction amplitudes, both in the gauge of x."""
    return masked_mean(ops_of(predicted).abs(predicted - measured), counted)


def amplitude_charbonnier(predicted: Array, measured: Array, counted: Array, epsilon: float) -> Array:
    """Mean of sqrt(d^2 + epsilon^2) - epsilon over differences d of amplitudes (Charbonnier et al. 1994)."""
    ops = ops_of(predicted)
    smooth = ops.sqrt(ops.square(predicted - measured) + epsilon**2)
    return masked_mean(smooth - epsilon, counted)


def total_variation(patches: Array) -> Array:
    """Mean of sqrt(|dO/dy|^2 + |dO/dx|^2 + 1e-12), forward differences of complex patches (..., N, N).

    Isotropic total variation: Rudin, Osher and Fatemi, Physica D 60, 259 (1992).

    >>> import numpy as np
    >>> round(float(total_variation(np.array([[0j, 3.0], [4.0, 0.0]]))), 6)
    5.0
    """
    ops = ops_of(patches)
    rows = (patches[..., 1:, :] - patches[..., :-1, :])[..., :, :-1]
    columns = (patches[..., :, 1:] - patches[..., :, :-1])[..., :-1, :]
    return ops.mean(ops.sqrt(squared(rows) + squared(columns) + 1e-12))


def realspace_mae(patches: Array, labels: Array, weight: Array) -> Array:
    """Weighted mean of sqrt(|O - L|^2 + 1e-12): the complex difference from the labels."""
    return weighted_mean(smooth_modulus(patches - labels), weight)


def supervised(patches: Array, labels: Array, weight: Array) -> Array:
    """Weighted mean of ||O| - |L|| + |angle(O conj L)| / pi: amplitude error plus wrapped phase error.

    A jump of 2 pi costs nothing; the network's pi * tanh keeps the phase finite.
    """
    ops = ops_of(patches)
    amplitude = ops.abs(ops.modulus(patches) - ops.abs(labels))
    return weighted_mean(amplitude + phase_difference(patches, labels) / math.pi, weight)
