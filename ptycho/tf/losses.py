"""What is minimised, as pure functions of tensors; `ptycho.physics` has the same formulas in NumPy.

Letters: B groups, C patterns a group, N side. Every loss is a mean over the pixels that count.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

Tensor = Any

#: counts below this are none; far above the smallest float32, because TensorFlow takes denormals for zero and
#: the logarithm of count over rate must stay finite at any dose
SMALLEST_COUNT = 1e-20


def masked_mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of values where `counted` (broadcastable, 0 or 1); zero where nothing counts."""
    weight = tf.broadcast_to(tf.cast(counted, values.dtype), tf.shape(values))
    return tf.reduce_sum(values * weight) / tf.maximum(tf.reduce_sum(weight), 1)


def poisson_nll(rate: Tensor, counts: Tensor, counted: Tensor) -> Tensor:
    """Mean of rate - N log(rate): Poisson likelihood, negative log, without log N!, a constant."""
    return masked_mean(rate - counts * tf.math.log(rate), counted)


def poisson_deviance(rate: Tensor, counts: Tensor, counted: Tensor) -> Tensor:
    """Poisson NLL minus its floor (rate = N), so that 0 is perfect: mean of rate - N + N log(N / rate).

    Same gradient as `poisson_nll`, and exact in float32 at 1e9 photons, where a difference of means is not.
    """
    # not xlogy: its gradient at a count of zero is 0/0
    ratio = tf.maximum(counts, SMALLEST_COUNT) / rate
    return masked_mean(rate - counts + counts * tf.math.log(ratio), counted)


def shifted_poisson(rate: Tensor, counts: Tensor, counted: Tensor, variance: float) -> Tensor:
    """Poisson deviance of counts + variance under rate + variance: counting noise with Gaussian read noise.

    The sum of both noises has the mean and variance of a Poisson variable shifted by `variance` (counts^2),
    the read noise's (Snyder, Hammoud and White, JOSA A 10, 1014 (1993)).
    """
    return poisson_deviance(rate + variance, tf.maximum(counts + variance, 0), counted)


def amplitude_mae(predicted: Tensor, measured: Tensor, counted: Tensor) -> Tensor:
    """Mean absolute difference of diffraction amplitudes, both in the gauge of x."""
    return masked_mean(tf.abs(predicted - measured), counted)


def amplitude_charbonnier(predicted: Tensor, measured: Tensor, counted: Tensor, epsilon: float) -> Tensor:
    """Mean of sqrt(d^2 + epsilon^2) - epsilon over differences d of amplitudes (Charbonnier et al. 1994)."""
    difference = predicted - measured
    return masked_mean(tf.sqrt(tf.square(difference) + epsilon**2) - epsilon, counted)


def total_variation(patches: Tensor) -> Tensor:
    """Mean modulus of the complex forward differences: isotropic total variation (Rudin et al. 1992)."""
    rows = (patches[..., 1:, :] - patches[..., :-1, :])[..., :, :-1]
    columns = (patches[..., :, 1:] - patches[..., :, :-1])[..., :-1, :]
    return tf.reduce_mean(tf.sqrt(_squared(rows) + _squared(columns) + 1e-12))


def realspace_mae(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute complex difference from the labels, weighted by the illumination (N, N)."""
    modulus = tf.sqrt(_squared(patches - labels) + 1e-12)
    return tf.reduce_sum(modulus * weight) / _total(weight, modulus)


def supervised(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Amplitude error plus wrapped phase error over pi, weighted by the illumination (N, N).

    The phase error is |angle(O conj(label))|, so a jump of 2 pi costs nothing; pi * tanh keeps it finite.
    """
    relative = patches * tf.math.conj(labels)
    phase = tf.abs(tf.atan2(tf.math.imag(relative), tf.math.real(relative) + 1e-12)) / math.pi
    amplitude = tf.abs(_modulus(patches) - tf.abs(labels))
    return tf.reduce_sum((amplitude + phase) * weight) / _total(weight, phase)


def _squared(values: Tensor) -> Tensor:
    return tf.square(tf.math.real(values)) + tf.square(tf.math.imag(values))


def _modulus(values: Tensor) -> Tensor:
    """|values| with the gradient of torch at zero, which is zero; tf.abs has NaN there."""
    squared = _squared(values)
    some = squared > 0
    return tf.where(some, tf.sqrt(tf.where(some, squared, tf.ones_like(squared))), tf.zeros_like(squared))


def _total(weight: Tensor, like: Tensor) -> Tensor:
    """Sum of the weights (N, N) over everything that they weigh."""
    return tf.reduce_sum(tf.broadcast_to(weight, tf.shape(like)))
