"""How patches differ from labels, where the object is known: structure, edges, directions, phase.

Pure functions, twins of `ptycho_torch.label_losses`. Patches and labels (B, C, N, N) complex, weight (N, N),
the illumination: what is not lit is not judged. Every loss is zero for patches equal to the labels.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from ptycho.tf.penalties import squared

Tensor = Any

#: under this, a gradient has no direction
DIRECTION_EPSILON = 1e-6


def modulus(field: Tensor) -> Tensor:
    """|O| with a gradient that stays finite at zero."""
    return tf.sqrt(squared(field) + 1e-12)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over patches and pixels, weighted by the illumination."""
    w = tf.broadcast_to(weight, tf.shape(values))
    return tf.reduce_sum(values * w) / tf.reduce_sum(w)


def label_phase(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean |angle(O conj(label))| / pi: a jump of 2 pi costs nothing."""
    relative = patches * tf.math.conj(labels)
    angle = tf.atan2(tf.math.imag(relative), tf.math.real(relative) + 1e-12)
    return weighted_mean(tf.abs(angle) / math.pi, weight)


def label_ssim(patches: Tensor, labels: Tensor, sigma_px: float, data_range: float) -> Tensor:
    """1 - SSIM of amplitudes (Wang et al. 2004), Gaussian window of 2 int(3.5 sigma + 0.5) + 1 px.

    `tf.image.ssim` computes it, in single precision; windows that leave the patch are not used.
    """
    first, second = (_images(modulus(field)) for field in (patches, labels))
    side = 2 * int(3.5 * sigma_px + 0.5) + 1
    found = tf.image.ssim(first, second, data_range, filter_size=side, filter_sigma=sigma_px)
    return 1 - tf.cast(tf.reduce_mean(found), first.dtype)


def sobel(field: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives (down, right) of real (B, C, N, N) by Sobel's filters, edges reflected."""
    found = tf.reshape(tf.image.sobel_edges(_images(field)), tf.concat([tf.shape(field), [2]], 0))
    return found[..., 0], found[..., 1]


def label_edges(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference of the Sobel magnitudes of the amplitudes (Sobel and Feldman 1968)."""
    magnitudes = []
    for field in (patches, labels):
        down, right = sobel(modulus(field))
        magnitudes.append(tf.sqrt(tf.square(down) + tf.square(right) + 1e-12))
    return weighted_mean(tf.abs(magnitudes[0] - magnitudes[1]), weight)


def label_orientation(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """1 - cosine between the amplitudes' gradients, weighted by the label's gradient and the illumination."""
    down, right = sobel(modulus(patches))
    true_down, true_right = sobel(modulus(labels))
    length = tf.sqrt(tf.square(down) + tf.square(right) + DIRECTION_EPSILON**2)
    true_length = tf.sqrt(tf.square(true_down) + tf.square(true_right) + DIRECTION_EPSILON**2)
    cosine = (down * true_down + right * true_right) / (length * true_length)
    w = weight * true_length
    return tf.reduce_sum((1 - cosine) * w) / tf.reduce_sum(w)


def _images(field: Tensor) -> Tensor:
    """(B, C, N, N) -> (B C, N, N, 1)."""
    return tf.reshape(field, [-1, field.shape[-2], field.shape[-1], 1])
