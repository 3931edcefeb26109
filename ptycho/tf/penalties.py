"""What is asked of object and probe beside the data: smoothness, agreement of overlapping patches, the probe.

Pure functions of tensors, twins of `ptycho_torch.penalties`. Letters: B groups, C patches a group, P probe
modes, N side.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Tensor = Any


def squared(values: Tensor) -> Tensor:
    """|values|^2 of a complex tensor, with a gradient everywhere."""
    return tf.square(tf.math.real(values)) + tf.square(tf.math.imag(values))


def smoothness(patches: Tensor) -> Tensor:
    """Mean square of the second differences along rows and columns, of complex patches (..., N, N).

    The discrete bending of a field: sum |d2O/dx2|^2 + |d2O/dy2|^2 (Reinsch 1967 in one dimension).
    """
    rows = patches[..., 2:, :] - 2 * patches[..., 1:-1, :] + patches[..., :-2, :]
    columns = patches[..., :, 2:] - 2 * patches[..., :, 1:-1] + patches[..., :, :-2]
    return tf.reduce_mean(squared(rows)) + tf.reduce_mean(squared(columns))


def overlap_consistency(patches: Tensor, views: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean square difference of every patch from its view of the merged canvas.

    Zero where patches agree wherever they overlap. Shapes: patches and views (B, C, N, N) complex, weight
    (N, N), the illumination.
    """
    apart = squared(patches - views)
    return tf.reduce_sum(apart * weight) / tf.reduce_sum(tf.broadcast_to(weight, tf.shape(apart)))


def probe_power(probe: Tensor, power: float) -> Tensor:
    """(sum |P|^2 / power - 1)^2 for probe (P, N, N): the probe keeps the power it started with."""
    return tf.square(tf.reduce_sum(squared(probe)) / power - 1)


def probe_support(probe: Tensor, inside: Tensor) -> Tensor:
    """Share of the probe's power (P, N, N) outside a support `inside` (N, N) in [0, 1]."""
    lit = squared(probe)
    return tf.reduce_sum(lit * (1 - inside)) / tf.reduce_sum(lit)
