"""The table of TensorFlow. See `ptycho.ops.table` for the meanings; only this file of the core, and the
backend `ptycho.tf`, import tensorflow.

Every size may be a tensor, so that one trace of a `tf.function` serves every batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Tensor = Any
DType = Any
Size = Any

# ------------------------------------------------------------------------------------------ shapes and kinds


def shape(x: Tensor) -> tuple[Size, ...]:
    sides = x.shape.as_list()
    if None not in sides:
        return tuple(sides)
    when_run = tf.shape(x)
    return tuple(when_run[i] if side is None else side for i, side in enumerate(sides))


def reshape(x: Tensor, shape: Sequence[Size]) -> Tensor:
    return tf.reshape(x, list(shape))


def broadcast_like(x: Tensor, like: Tensor) -> Tensor:
    return tf.broadcast_to(x, tf.shape(like))


def concat(parts: Sequence[Tensor], axis: int) -> Tensor:
    return tf.concat(list(parts), axis)


def pad(x: Tensor, widths: Sequence[tuple[Size, Size]]) -> Tensor:
    return tf.pad(x, [list(pair) for pair in widths])


def cast_like(x: Tensor, like: Tensor) -> Tensor:
    return tf.cast(x, like.dtype.real_dtype)


def constant(values: NDArray[Any], like: Tensor) -> Tensor:
    return tf.constant(values, like.dtype.real_dtype)


def double(values: NDArray[np.float64], like: Tensor) -> Tensor:
    return tf.constant(values, tf.float64)


def to_numpy(x: Tensor) -> NDArray[Any]:
    return np.asarray(x)


def take(x: Tensor, rows: NDArray[np.int64]) -> Tensor:
    return tf.gather(x, rows)


def number(size: Size, like: Tensor) -> Tensor:
    return tf.cast(size, like.dtype)


def sizes(x: Tensor) -> list[Size]:
    made: list[Size] = tf.unstack(tf.cast(x, tf.int32))
    return made


def repeat_index(n: Size, times: Size, like: Tensor) -> Tensor:
    return tf.repeat(tf.range(n), times)


def masked(x: Tensor, mask: Tensor) -> Tensor:
    return tf.boolean_mask(x, mask, axis=2)


# -------------------------------------------------------------------------------------------------- elements

real, imag, conj, angle, abs = tf.math.real, tf.math.imag, tf.math.conj, tf.math.angle, tf.abs
square, sqrt, log, exp = tf.square, tf.sqrt, tf.math.log, tf.exp
floor, ceil, atan2, maximum = tf.floor, tf.math.ceil, tf.atan2, tf.maximum


def modulus(x: Tensor) -> Tensor:
    squared = tf.square(tf.math.real(x)) + tf.square(tf.math.imag(x))
    some = squared > 0
    return tf.where(some, tf.sqrt(tf.where(some, squared, tf.ones_like(squared))), tf.zeros_like(squared))


def where(condition: Tensor, x: Tensor, number: float) -> Tensor:
    return tf.where(condition, x, tf.constant(number, x.dtype))


def times(x: Tensor, factor: Tensor) -> Tensor:
    return x * tf.cast(factor, x.dtype)


# ------------------------------------------------------------------------------------------------ reductions

sum, mean, max, min = tf.reduce_sum, tf.reduce_mean, tf.reduce_max, tf.reduce_min

# ---------------------------------------------------------------------------------------------- whole images

fft2, stop_gradient = tf.signal.fft2d, tf.stop_gradient


def fftshift(x: Tensor) -> Tensor:
    return tf.signal.fftshift(x, axes=(-2, -1))


def correlate(x: Tensor, taps: Sequence[float], axis: int) -> Tensor:
    sides = shape(x)
    kernel = tf.reshape(tf.constant(list(taps), x.dtype), [-1, 1, 1, 1] if axis == -2 else [1, -1, 1, 1])
    made = tf.nn.conv2d(tf.reshape(x, [-1, *sides[-2:], 1]), kernel, 1, "VALID")
    return tf.reshape(made, [*sides[:-2], *shape(made)[1:3]])


def _split(corners_xy: Tensor, dtype: DType) -> tuple[Tensor, Tensor, Tensor]:
    """Whole-pixel corners (K, 2) int32 and the fractions fx, fy (K, 1, 1) of bilinear interpolation."""
    whole = tf.floor(corners_xy)
    fraction = tf.cast(corners_xy - whole, dtype.real_dtype)
    return tf.cast(whole, tf.int32), fraction[:, 0, None, None], fraction[:, 1, None, None]


def _flat_index(whole: Tensor, canvas: Tensor, side: Size, height: Size, width: Size) -> Tensor:
    """Index (K, side, side) into n flattened canvases of height x width."""
    steps = tf.range(side)
    rows = whole[:, 1, None] + steps + tf.cast(canvas, tf.int32)[:, None] * height
    columns = whole[:, 0, None] + steps
    return rows[:, :, None] * width + columns[:, None, :]


def _as_real(patches: Tensor) -> tuple[Tensor, int]:
    """Patches (K, R, S) as real numbers (K, R, S * parts), and the parts: 2 for complex (real, imaginary).

    Weights of interpolation are real: half the arithmetic. TensorFlow has no gradient for this view.
    """
    if not patches.dtype.is_complex:
        return patches, 1
    size = tf.shape(patches)
    return tf.reshape(tf.bitcast(patches, patches.dtype.real_dtype), [size[0], size[1], size[2] * 2]), 2


def _as_dtype(values: Tensor, dtype: DType) -> Tensor:
    """The way back of `_as_real`."""
    if not dtype.is_complex:
        return values
    size = tf.shape(values)
    return tf.bitcast(tf.reshape(values, [size[0], size[1], size[2] // 2, 2]), dtype)


def splat(
    patches: Tensor, corners_xy: Tensor, canvas: Tensor, n_canvases: Size, shape: tuple[Size, Size]
) -> Tensor:
    N = tf.shape(patches)[-1]
    height, width = shape
    whole, fx, fy = _split(corners_xy, patches.dtype)
    index = _flat_index(whole, canvas, N + 1, height, width)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def forward(given: Tensor) -> tuple[Tensor, Any]:
        values, parts = _as_real(given)
        rows = tf.pad((1 - fy) * values, [[0, 0], [0, 1], [0, 0]])
        rows += tf.pad(fy * values, [[0, 0], [1, 0], [0, 0]])
        spread = tf.pad((1 - fx) * rows, [[0, 0], [0, 0], [0, parts]])
        spread += tf.pad(fx * rows, [[0, 0], [0, 0], [parts, 0]])
        spread = _as_dtype(spread, given.dtype)
        flat = tf.math.unsorted_segment_sum(spread, index, n_canvases * height * width)
        canvases = tf.reshape(flat, [n_canvases, height, width])
        return canvases, lambda upstream: gather(upstream, corners_xy, canvas, N)

    return forward(patches)


def gather(canvases: Tensor, corners_xy: Tensor, canvas: Tensor, N: Size) -> Tensor:
    size = tf.shape(canvases)
    whole, fx, fy = _split(corners_xy, canvases.dtype)
    index = _flat_index(whole, canvas, N + 1, size[-2], size[-1])

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def forward(given: Tensor) -> tuple[Tensor, Any]:
        window, parts = _as_real(tf.gather(tf.reshape(given, [-1]), index))
        rows = (1 - fy) * window[:, :-1] + fy * window[:, 1:]
        patches = _as_dtype((1 - fx) * rows[:, :, :-parts] + fx * rows[:, :, parts:], given.dtype)
        return patches, lambda upstream: splat(upstream, corners_xy, canvas, size[0], (size[1], size[2]))

    return forward(canvases)
