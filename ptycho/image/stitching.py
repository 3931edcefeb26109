"""Patches to one image without a backend: the mean of central windows, each at its own position, weight one.

The call of the field's older interface, and the reference for the weighted stitching of the backends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import DataError
from ptycho.image.canvas import make_frame

#: pixels with less weight are uncovered (one patch has weight 1): only the edge of an interpolation is there
COVERAGE_FLOOR = 1e-3


def reassemble_position(obj: ArrayLike, global_offsets: ArrayLike, M: int = 20) -> NDArray[Any]:
    """The mean of the central M x M windows of patches, on the client's canvas or around their centroid.

    Shapes: obj (n,N,N), (n,N,N,1) or (n,N,N,C), real or complex; global_offsets (n,1,2,1), or (n,1,2,C) with
    one place for every patch, [x, y] in px, of any real dtype: the object pixel under patch pixel
    (N//2, N//2). Returns (H, W) complex64 (complex128 for double precision). The `global_offsets` of a
    container whose scan has an object know its shape: the image has it, pixel on pixel. Otherwise
    `centroid_canvas` says where it lies. Bilinear at sub-pixel positions; pixels that no window reaches are
    zero. Time O(n C M^2), memory the canvas. Raises DataError: shapes that do not fit, offsets that are not
    finite real numbers, M outside 2..N, and groups of C patches with one place for all, because they lie at
    different places.

    >>> places = np.array([[8.0, 8.0], [12.0, 8.0]]).reshape(2, 1, 2, 1)  # [x, y]
    >>> image = reassemble_position(np.ones((2, 8, 8, 1)), places, M=4)
    >>> image.shape, float(image.real.max())
    ((4, 8), 1.0)
    """
    patches, places = _flat(np.asarray(obj), np.asarray(global_offsets))
    N = patches.shape[-1]
    if not 2 <= M <= N:
        raise DataError(f"M = {M}: the stitched window must be between 2 and N = {N} pixels")
    origin, (height, width) = centroid_canvas(places, M)
    # one row and one column more than the canvas: what a bilinear splat of weight zero would touch
    total = np.zeros((height + 1, width + 1), np.complex128)
    weight = np.zeros((height + 1, width + 1))
    low = N // 2 - M // 2
    for patch, (x, y) in zip(patches, places - M // 2 - np.array(origin), strict=True):
        window = patch[low : low + M, low : low + M]
        column, row = int(np.floor(x)), int(np.floor(y))
        fx, fy = x - column, y - row
        for right, wx in ((0, 1 - fx), (1, fx)):
            for down, wy in ((0, 1 - fy), (1, fy)):
                target = (slice(row + down, row + down + M), slice(column + right, column + right + M))
                total[target] += wx * wy * window
                weight[target] += wx * wy
    reached = weight > COVERAGE_FLOOR
    image = np.where(reached, total / np.where(reached, weight, 1.0), 0.0)[:height, :width]
    canvas_shape = getattr(global_offsets, "canvas_shape", None)
    if canvas_shape is not None:
        frame = make_frame(places, M, canvas_shape)
        x, y = (int(corner) for corner in frame.origin_xy)
        image = _laid(image, (origin[0] - x, origin[1] - y), frame.shape)
    double = patches.dtype in (np.dtype(np.complex128), np.dtype(np.float64))
    return image if double else image.astype(np.complex64)


def _laid(image: NDArray[Any], origin_xy: tuple[int, int], shape: tuple[int, int]) -> NDArray[Any]:
    """The image on zeros of another shape (H, W), its pixel [0, 0] on pixel `origin_xy` of it; cut to fit."""
    canvas = np.zeros(shape, image.dtype)
    x, y = origin_xy
    rows = slice(max(y, 0), max(min(y + image.shape[0], shape[0]), 0))
    columns = slice(max(x, 0), max(min(x + image.shape[1], shape[1]), 0))
    canvas[rows, columns] = image[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    return canvas


def centroid_canvas(global_offsets: ArrayLike, M: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(origin [x, y], shape (H, W)) of the smallest canvas of `reassemble_position` that holds every window.

    Its pixel (H//2, W//2) is the object pixel nearest to the centroid; `origin` is the one of pixel [0, 0].
    Shapes: global_offsets (n,2), (n,1,2,1) or (n,1,2,C).

    >>> centroid_canvas(np.array([[8.0, 8.0], [12.0, 8.0]]), M=4)
    ((6, 6), (4, 8))
    """
    places = _places(np.asarray(global_offsets))
    centre = np.floor(places.mean(0) + 0.5)
    before = centre - np.floor(places.min(0)) + M // 2
    after = np.ceil(places.max(0)) - centre + M - M // 2
    half = np.maximum(before, after).astype(int)
    left, top = (int(v) for v in centre - half)
    return (left, top), (2 * int(half[1]), 2 * int(half[0]))


def _places(offsets: NDArray[Any]) -> NDArray[np.float64]:
    """Positions (n C, 2) float64 [x, y], the patches of a group one after the other."""
    if offsets.dtype.kind not in "uif":
        raise DataError(f"global_offsets has dtype {offsets.dtype}; it must be real numbers, in pixels")
    if offsets.ndim == 4 and offsets.shape[1:3] == (1, 2):
        offsets = np.moveaxis(offsets[:, 0], 1, 2).reshape(-1, 2)
    if offsets.ndim != 2 or offsets.shape[1] != 2 or len(offsets) == 0:
        raise DataError(f"global_offsets has shape {offsets.shape}; expected (n,1,2,1), n at least 1")
    places = offsets.astype(np.float64)
    if not np.isfinite(places).all():
        raise DataError("global_offsets holds NaN or infinite values: remove those positions")
    return places


def _flat(obj: NDArray[Any], offsets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Patches (n C, N, N) and their places (n C, 2), in the same order."""
    if obj.dtype.kind not in "uifc":
        raise DataError(f"obj has dtype {obj.dtype}; it must be real or complex numbers")
    if obj.ndim not in (3, 4) or obj.shape[1] != obj.shape[2]:
        raise DataError(f"obj has shape {obj.shape}; expected patches (n,N,N,1) or (n,N,N)")
    patches = obj[:, None] if obj.ndim == 3 else np.moveaxis(obj, -1, 1)
    places = _places(offsets)
    if len(patches) == len(places) and patches.shape[1] > 1:
        raise DataError(
            f"obj holds {patches.shape[1]} patches a group, which lie at different places, but global_offsets"
            " has one place a group: pass container.global_offsets - container.local_offsets, (n,1,2,C)"
        )
    if patches.shape[0] * patches.shape[1] != len(places):
        raise DataError(
            f"obj has shape {obj.shape} but global_offsets {offsets.shape}: a place for every patch"
        )
    return patches.reshape(-1, *patches.shape[2:]), places
