"""How patches differ from labels, where the object is known: structure, edges, directions, phase.

Pure functions of arrays. Patches and labels (B, C, N, N) complex, weight (N, N), the illumination: what is
not lit is not judged. Every loss is zero for patches equal to the labels.
"""

from __future__ import annotations

import math

from ptycho.forward.fields import phase_difference, smooth_modulus, weighted_mean
from ptycho.ops import Array, ops_of

#: under this, a gradient has no direction
DIRECTION_EPSILON = 1e-6
#: the constants of Wang et al. 2004, as shares of the data range
SSIM_K1, SSIM_K2 = 0.01, 0.03


def label_phase(patches: Array, labels: Array, weight: Array) -> Array:
    """Weighted mean of |angle(O conj L)| / pi: a jump of 2 pi costs nothing."""
    return weighted_mean(phase_difference(patches, labels) / math.pi, weight)


def gaussian_taps(sigma_px: float) -> list[float]:
    """2 int(3.5 sigma + 0.5) + 1 weights of a Gaussian, of sum 1."""
    reach = int(3.5 * sigma_px + 0.5)
    weights = [math.exp(-0.5 * (step / sigma_px) ** 2) for step in range(-reach, reach + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def label_ssim(patches: Array, labels: Array, sigma_px: float, data_range: float) -> Array:
    """1 - SSIM of the amplitudes a = |O|, b = |L|, mean over the windows that lie inside a patch.

    SSIM = (2 <a><b> + c1)(2 cov(a, b) + c2) / ((<a>^2 + <b>^2 + c1)(var a + var b + c2)), <> the mean in a
    Gaussian window of 2 int(3.5 sigma + 0.5) + 1 px, c1 = (0.01 range)^2, c2 = (0.03 range)^2: Wang, Bovik,
    Sheikh and Simoncelli, IEEE TIP 13, 600 (2004).
    """
    ops = ops_of(patches)
    taps = gaussian_taps(sigma_px)

    def mean(field: Array) -> Array:
        return ops.correlate(ops.correlate(field, taps, -2), taps, -1)

    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    a, b = smooth_modulus(patches), smooth_modulus(labels)
    mean_a, mean_b = mean(a), mean(b)
    product, squares = mean_a * mean_b, ops.square(mean_a) + ops.square(mean_b)
    covariance = mean(a * b) - product
    variances = mean(ops.square(a) + ops.square(b)) - squares
    similarity = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return 1 - ops.mean(similarity)


def sobel(field: Array) -> tuple[Array, Array]:
    """Derivatives (down, right) of real (..., N, N) by Sobel's filters, edges reflected.

    Weights 1, 2, 1 along the edge and -1, 0, 1 across (Sobel and Feldman 1968): a slope of 1 per pixel is 8.

    >>> import numpy as np
    >>> down, right = sobel(np.arange(16.0).reshape(4, 4))
    >>> down[1:-1].tolist(), right[:, 1:-1].tolist()[0]
    ([[32.0, 32.0, 32.0, 32.0], [32.0, 32.0, 32.0, 32.0]], [8.0, 8.0])
    """
    ops = ops_of(field)
    tall = ops.concat([field[..., 1:2, :], field, field[..., -2:-1, :]], -2)
    whole = ops.concat([tall[..., :, 1:2], tall, tall[..., :, -2:-1]], -1)
    smooth, slope = (1.0, 2.0, 1.0), (-1.0, 0.0, 1.0)
    down = ops.correlate(ops.correlate(whole, slope, -2), smooth, -1)
    return down, ops.correlate(ops.correlate(whole, smooth, -2), slope, -1)


def label_edges(patches: Array, labels: Array, weight: Array) -> Array:
    """Weighted mean of |S(O) - S(L)|, S the Sobel magnitude of the amplitude (Sobel and Feldman 1968)."""
    ops = ops_of(patches)
    magnitudes = []
    for field in (patches, labels):
        down, right = sobel(smooth_modulus(field))
        magnitudes.append(ops.sqrt(ops.square(down) + ops.square(right) + 1e-12))
    return weighted_mean(ops.abs(magnitudes[0] - magnitudes[1]), weight)


def label_orientation(patches: Array, labels: Array, weight: Array) -> Array:
    """Mean of 1 - cos(grad |O|, grad |L|), weighted by the illumination and the label's gradient."""
    ops = ops_of(patches)
    down, right = sobel(smooth_modulus(patches))
    true_down, true_right = sobel(smooth_modulus(labels))
    length = ops.sqrt(ops.square(down) + ops.square(right) + DIRECTION_EPSILON**2)
    true_length = ops.sqrt(ops.square(true_down) + ops.square(true_right) + DIRECTION_EPSILON**2)
    cosine = (down * true_down + right * true_right) / (length * true_length)
    w = weight * true_length
    return ops.sum((1 - cosine) * w) / ops.sum(w)
