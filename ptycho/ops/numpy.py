"""The table of NumPy: examples, tests and what needs no gradient. See `ptycho.ops.table` for the meanings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

real, imag, conj, angle = np.real, np.imag, np.conj, np.angle
abs, modulus, square, sqrt = np.abs, np.abs, np.square, np.sqrt
log, exp, floor, ceil, atan2 = np.log, np.exp, np.floor, np.ceil, np.arctan2
maximum, where, times = np.maximum, np.where, np.multiply
sum, mean, max, min = np.sum, np.mean, np.max, np.min
reshape, concat, pad = np.reshape, np.concatenate, np.pad


def shape(x: Array) -> tuple[int, ...]:
    return tuple(x.shape)


def broadcast_like(x: Array, like: Array) -> Array:
    return np.broadcast_to(x, like.shape)


def cast_like(x: Array, like: Array) -> Array:
    return np.asarray(x, like.real.dtype)


def constant(values: Array, like: Array) -> Array:
    return np.asarray(values, like.real.dtype)


def double(values: Array, like: Array) -> Array:
    return np.asarray(values, np.float64)


def to_numpy(x: Array) -> Array:
    return x


def take(x: Array, rows: Array) -> Array:
    return np.asarray(x[rows])


def number(size: int, like: Array) -> int:
    return size


def sizes(x: Array) -> list[int]:
    return [int(value) for value in x]


def repeat_index(n: int, times: int, like: Array) -> Array:
    return np.repeat(np.arange(n), times)


def masked(x: Array, mask: Array) -> Array:
    return np.asarray(x[..., mask])


def fft2(x: Array) -> Array:
    return np.asarray(np.fft.fft2(x))


def fftshift(x: Array) -> Array:
    return np.fft.fftshift(x, axes=(-2, -1))


def correlate(x: Array, taps: Sequence[float], axis: int) -> Array:
    total = None
    for start, tap in enumerate(taps):
        if tap:
            part = slice(start, start - len(taps) + 1 or None)
            shifted = tap * (x[..., part, :] if axis == -2 else x[..., part])
            total = shifted if total is None else total + shifted
    assert total is not None, "a filter has a tap that is not zero"
    return np.asarray(total)


def stop_gradient(x: Array) -> Array:
    return x


def _split(corners_xy: Array, like: Array) -> tuple[Array, Array, Array]:
    """Whole-pixel corners (K, 2) and the fractions fx, fy (K, 1, 1) of bilinear interpolation."""
    whole = np.floor(corners_xy)
    fraction = (corners_xy - whole).astype(like.real.dtype)
    return whole.astype(np.int64), fraction[:, 0, None, None], fraction[:, 1, None, None]


def _pixels(whole: Array, side: int) -> tuple[Array, Array]:
    """Rows (K, side, 1) and columns (K, 1, side) under patches with these corners."""
    steps = np.arange(side)
    return whole[:, 1, None, None] + steps[:, None], whole[:, 0, None, None] + steps


def splat(patches: Array, corners_xy: Array, canvas: Array, n_canvases: int, shape: Sequence[int]) -> Array:
    whole, fx, fy = _split(corners_xy, patches)
    spread = np.zeros((len(patches), patches.shape[1] + 1, patches.shape[2] + 1), patches.dtype)
    for down, weight_y in ((0, 1 - fy), (1, fy)):
        for right, weight_x in ((0, 1 - fx), (1, fx)):
            target = spread[:, down : down + patches.shape[1], right : right + patches.shape[2]]
            target += weight_y * weight_x * patches
    out = np.zeros((n_canvases, *shape), patches.dtype)
    rows, columns = spread.shape[1:]
    for number, (x, y), values in zip(canvas, whole, spread, strict=True):
        out[number, y : y + rows, x : x + columns] += values
    return out


def gather(canvases: Array, corners_xy: Array, canvas: Array, N: int) -> Array:
    whole, fx, fy = _split(corners_xy, canvases)
    rows, columns = _pixels(whole, N + 1)
    window = canvases[canvas[:, None, None], rows, columns]
    upper = (1 - fx) * window[:, :-1, :-1] + fx * window[:, :-1, 1:]
    lower = (1 - fx) * window[:, 1:, :-1] + fx * window[:, 1:, 1:]
    return np.asarray((1 - fy) * upper + fy * lower)
