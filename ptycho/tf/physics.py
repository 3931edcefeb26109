"""The forward model in TensorFlow: differentiable twins of `ptycho.physics`, batched over groups.

Letters: B groups, C patterns a group, K patches in a flat list, P probe modes, N patch side, S canvas side.
Positions and shifts are [x, y] in pixels, float64, sub-pixel exact; arrays are [row, column].
`splat` and `gather` are adjoint to each other and serve every route: the merge inside a group, the region
canvas of training, and the stitched image. Every size may be a tensor, so that one trace of a `tf.function`
serves every batch.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ptycho.physics import MERGE_EPSILON, RATE_EPSILON

__all__ = [
    "amplitude", "central_window", "diffract", "extract_group", "gather", "inverse_weights", "merge",
    "merge_and_extract", "propagate", "rate", "splat",
]  # fmt: skip

Tensor = Any
DType = Any
#: a side in pixels: a number, or a scalar int32 tensor where it depends on the batch
Size = Any


def _real_dtype(dtype: DType) -> DType:
    return tf.as_dtype(dtype).real_dtype


def _split(corners_xy: Tensor, dtype: DType) -> tuple[Tensor, Tensor, Tensor]:
    """Whole-pixel corners (K, 2) int32 and the fractions fx, fy (K, 1, 1) of bilinear interpolation."""
    whole = tf.floor(corners_xy)
    fraction = tf.cast(corners_xy - whole, _real_dtype(dtype))
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
    return tf.reshape(tf.bitcast(patches, _real_dtype(patches.dtype)), [size[0], size[1], size[2] * 2]), 2


def _as_dtype(values: Tensor, dtype: DType) -> Tensor:
    """The way back of `_as_real`."""
    if not tf.as_dtype(dtype).is_complex:
        return values
    size = tf.shape(values)
    return tf.bitcast(tf.reshape(values, [size[0], size[1], size[2] // 2, 2]), dtype)


def splat(
    patches: Tensor, corners_xy: Tensor, canvas: Tensor, n_canvases: Size, shape: tuple[Size, Size]
) -> Tensor:
    """Add every patch to its canvas at its own sub-pixel place (bilinear).

    Shapes: patches (K, N, N) real or complex; corners_xy (K, 2) float64, the canvas pixel under patch pixel
    (0, 0), at least 0 and at most side - N - 1; canvas (K,) integer, which canvas; returns (n_canvases, H,
    W). Time and memory O(K N^2). Deterministic on the CPU: a pixel's terms are added in their own order.
    Differentiable in the patches, not in the corners.
    """
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
    """Cut the patch under every corner out of its canvas (bilinear): the adjoint of `splat`.

    Shapes: canvases (n, H, W); corners_xy (K, 2) float64; canvas (K,) integer; returns (K, N, N).
    Differentiable in the canvases, not in the corners.
    """
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


def central_window(N: int, *, dtype: DType = tf.float32) -> Tensor:
    """(N, N) window, one on the central N/2 x N/2."""
    before, inside = N // 4, N // 2
    after = N - before - inside
    return tf.pad(tf.ones([inside, inside], dtype), [[before, after], [before, after]])


def _group_corners(relative_xy: Tensor, N: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Corners (B*C, 2) on a canvas of the size that the widest group of the batch needs, and that size.

    Splatting needs one pixel more than the oracle's canvas, for the fraction; it is cropped by nobody.
    """
    size = tf.shape(relative_xy)
    reach = _reach(relative_xy)
    canvas = tf.repeat(tf.range(size[0]), size[1])
    corners = tf.reshape(relative_xy, [-1, 2]) + tf.cast(reach, relative_xy.dtype)
    return corners, canvas, N + 2 * reach + 1


def _reach(relative_xy: Tensor) -> Tensor:
    """Largest shift in whole pixels, int32; zero for an empty batch."""
    largest = tf.maximum(tf.reduce_max(tf.abs(relative_xy)), 0)
    return tf.cast(tf.math.ceil(largest), tf.int32)


def _merge_on(
    patches: Tensor, window: Tensor, corners: Tensor, canvas: Tensor, n: Size, side: Size
) -> Tensor:
    """Weighted mean of patches (K, N, N) on n canvases (n, side, side)."""
    w = tf.cast(window, _real_dtype(patches.dtype)) + MERGE_EPSILON
    total = splat(tf.cast(w, patches.dtype) * patches, corners, canvas, n, (side, side))
    weights = splat(tf.broadcast_to(w, tf.shape(patches)), corners, canvas, n, (side, side))
    return total * tf.cast(inverse_weights(weights), patches.dtype)


def inverse_weights(weights: Tensor) -> Tensor:
    """1 / weights, and zero where nothing was reached."""
    reached = weights > 0
    return tf.where(reached, 1 / tf.where(reached, weights, tf.ones_like(weights)), tf.zeros_like(weights))


def merge(patches: Tensor, relative_xy: Tensor, window: Tensor) -> Tensor:
    """Lay the C patches of every group on a common canvas: the constraint map of `ptycho.physics.merge`.

    Shapes: patches (B, C, N, N) complex, relative_xy (B, C, 2) float64 = position minus group mean, window
    (N, N); returns (B, S, S), S = N + 2 ceil(max |r|) over the batch, pixel (S//2, S//2) at the group mean.
    """
    size = tf.shape(patches)
    N = size[-1]
    corners, canvas, side = _group_corners(relative_xy, N)
    merged = _merge_on(tf.reshape(patches, [-1, N, N]), window, corners, canvas, size[0], side)
    return merged[:, :-1, :-1]


def extract_group(canvases: Tensor, relative_xy: Tensor, N: Size) -> Tensor:
    """Cut every pattern's own view out of its group's canvas: (B, S, S) and (B, C, 2) give (B, C, N, N)."""
    size = tf.shape(relative_xy)
    margin = tf.shape(canvases)[-1] // 2 - N // 2
    canvas = tf.repeat(tf.range(size[0]), size[1])
    padded = tf.pad(canvases, [[0, 0], [0, 1], [0, 1]])
    corners = tf.reshape(relative_xy, [-1, 2]) + tf.cast(margin, relative_xy.dtype)
    return tf.reshape(gather(padded, corners, canvas, N), [size[0], size[1], N, N])


def merge_and_extract(patches: Tensor, relative_xy: Tensor, window: Tensor) -> Tensor:
    """O'_k of the contract: merge the group, cut each pattern's view; the identity for C = 1.

    The number of patches and of patterns a group must be known when the function is traced.
    """
    if patches.shape[1] == 1 and relative_xy.shape[1] == 1:
        return patches
    if (
        patches.shape[1] == 1
    ):  # one shared patch a group (object_big off): the canvas is that patch, zero outside
        reach = _reach(relative_xy)
        canvases = tf.pad(patches[:, 0], [[0, 0], [reach, reach], [reach, reach]])
    else:
        canvases = merge(patches, relative_xy, window)
    return extract_group(canvases, relative_xy, tf.shape(patches)[-1])


def propagate(waves: Tensor) -> Tensor:
    """Unitary far-field propagation, zero frequency at (N//2, N//2)."""
    return tf.signal.fftshift(_fft2(waves), axes=(-2, -1))


def _fft2(waves: Tensor) -> Tensor:
    """Unitary FFT2, zero frequency at (0, 0)."""
    return tf.signal.fft2d(waves) * _unitary(waves)


def _unitary(waves: Tensor) -> Tensor:
    """1 / sqrt(pixels) in the complex dtype of the waves."""
    pixels = tf.cast(tf.reduce_prod(tf.shape(waves)[-2:]), _real_dtype(waves.dtype))
    return tf.cast(tf.math.rsqrt(pixels), waves.dtype)


def diffract(patches: Tensor, probe: Tensor) -> Tensor:
    """Intensity sum_p |FFT2_ortho(P_p O)|^2.

    Shapes: patches (..., N, N) and probe (P, N, N) complex give (..., N, N) real.
    """
    # the factor of the unitary transform goes to the probe, which is the smallest of the three arrays
    waves = tf.signal.fft2d(patches[..., None, :, :] * (probe * _unitary(probe)))
    intensity = tf.reduce_sum(tf.square(tf.math.real(waves)) + tf.square(tf.math.imag(waves)), -3)
    return tf.signal.fftshift(intensity, axes=(-2, -1))


def amplitude(intensity: Tensor) -> Tensor:
    """Square root with a gradient that stays finite at zero intensity."""
    return tf.sqrt(intensity + 1e-12)


def rate(intensity: Tensor, intensity_scale: Tensor | float) -> Tensor:
    """Expected counts a pixel: s^2 A^2 + 1e-6."""
    return intensity_scale**2 * intensity + RATE_EPSILON
