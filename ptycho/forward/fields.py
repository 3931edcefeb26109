"""Small pieces that losses share: squared modulus, modulus, and means with weights."""

from __future__ import annotations

from ptycho.ops import Array, ops_of

#: added under a root, so that its gradient stays finite at zero
ROOT_EPSILON = 1e-12


def squared(field: Array) -> Array:
    """|O|^2 of complex O, with a gradient everywhere."""
    ops = ops_of(field)
    return ops.square(ops.real(field)) + ops.square(ops.imag(field))


def smooth_modulus(field: Array) -> Array:
    """sqrt(|O|^2 + 1e-12): the modulus of complex O with a finite gradient at zero."""
    return ops_of(field).sqrt(squared(field) + ROOT_EPSILON)


def masked_mean(values: Array, counted: Array) -> Array:
    """Mean of values where `counted` (broadcastable; bool or 0 and 1); zero where nothing counts.

    >>> import numpy as np
    >>> float(masked_mean(np.array([1.0, 5.0, 9.0]), np.array([True, True, False])))
    3.0
    """
    ops = ops_of(values)
    weight = ops.broadcast_like(ops.cast_like(counted, values), values)
    return ops.sum(values * weight) / ops.maximum(ops.sum(weight), 1.0)


def weighted_mean(values: Array, weight: Array) -> Array:
    """Mean of values (..., N, N) with weight (N, N), the illumination: what is not lit is not judged.

    >>> import numpy as np
    >>> float(weighted_mean(np.array([[1.0, 5.0]]), np.array([[3.0, 1.0]])))
    2.0
    """
    ops = ops_of(values)
    return ops.sum(values * weight) / ops.sum(ops.broadcast_like(weight, values))


def phase_difference(patches: Array, labels: Array) -> Array:
    """|angle(O conj(L))| in rad, in [0, pi]: a jump of 2 pi is no difference."""
    ops = ops_of(patches)
    relative = patches * ops.conj(labels)
    return ops.abs(ops.atan2(ops.imag(relative), ops.real(relative) + ROOT_EPSILON))
