"""The canvas on which patches are stitched: its frame, the window and its weights, the order of patches.

Only geometry, in NumPy. Adding patches is done by `ptycho.image.stitcher`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import ConfigError, DataError
from ptycho.io.reading import check_memory

#: object complex64, sum of weights, and the copies that products are made of
_BYTES_A_PIXEL = 32

#: below this share of the largest weight a pixel counts as uncovered: only the tail of a patch is there
COVERAGE_FLOOR = 1e-3


@dataclass(frozen=True)
class Frame:
    """Where a canvas lies: `origin_xy` is the object pixel of canvas pixel [0, 0]; `shape` is (H, W)."""

    origin_xy: tuple[float, float]
    shape: tuple[int, int]


@dataclass(frozen=True)
class Stitched:
    """A stitched image.

    object: (H, W) complex64, zero where no patch reached. coverage: (H, W) float32, sum of weights divided by
    its median over the covered pixels. frame: where the image lies.
    """

    object: NDArray[np.complex64]
    coverage: NDArray[np.float32]
    frame: Frame

    @property
    def covered(self) -> NDArray[np.bool_]:
        """(H, W) True where patches reached."""
        return self.coverage > 0


def auto_window_side(probe: NDArray[np.complex64], power: float = 0.99) -> int:
    """Side M of the central window: N/2, or the side that holds `power` of the probe's light if that is
    larger.

    >>> beam = np.zeros((1, 16, 16), np.complex64)
    >>> beam[0, 6:10, 6:10] = 1
    >>> auto_window_side(beam), auto_window_side(np.ones_like(beam))
    (8, 16)
    """
    N = probe.shape[-1]
    lit = np.sum(np.abs(probe.astype(np.complex128)) ** 2, 0)
    for side in range(N // 2, N, 2):
        low = N // 2 - side // 2
        if lit[low : low + side, low : low + side].sum() >= power * lit.sum():
            return side
    return int(N)


def window_weights(probe: NDArray[np.complex64], M: int, weighting: str = "probe") -> NDArray[np.float32]:
    """(M, M) weights of the central window: |P|^2 with a floor of 1e-3 of its maximum, or uniform.

    >>> window_weights(np.ones((1, 8, 8), np.complex64), 4, "uniform").shape
    (4, 4)
    """
    N = probe.shape[-1]
    if not 2 <= M <= N:
        raise DataError(f"M = {M}: the stitched window must be between 2 and N = {N} pixels")
    if weighting == "uniform":
        return np.ones((M, M), np.float32)
    low = N // 2 - M // 2
    lit = np.sum(np.abs(probe.astype(np.complex128)) ** 2, 0)[low : low + M, low : low + M]
    return np.asarray(lit / lit.max() + 1e-3, np.float32)


def make_frame(
    positions_xy: NDArray[np.float64], M: int, canvas_shape: tuple[int, int] | None = None
) -> Frame:
    """The frame of a scan's canvas: just large enough, or with a given shape.

    A given shape is that of the client's object. If all positions lie inside it, they are pixels of that
    object and the origin is (0, 0). Otherwise the centre of the positions is put on the centre of the canvas.

    >>> make_frame(np.array([[10.0, 20.0], [14.0, 21.5]]), M=4)
    Frame(origin_xy=(8.0, 18.0), shape=(7, 9))
    >>> make_frame(np.array([[10.0, 20.0]]), M=4, canvas_shape=(64, 64))  # pixels of that object
    Frame(origin_xy=(0.0, 0.0), shape=(64, 64))
    """
    low, high = positions_xy.min(0), positions_xy.max(0)
    if canvas_shape is None:
        first = np.floor(low) - M // 2
        side = np.ceil(high) + (M - M // 2) - first + 1
        check_canvas((float(side[1]), float(side[0])))
        width, height = side.astype(int)
        return Frame((float(first[0]), float(first[1])), (int(height), int(width)))
    height, width = canvas_shape
    check_canvas((height, width))
    size = np.array([width, height], np.float64)
    if (low >= -0.5).all() and (high <= size - 0.5).all():
        return Frame((0.0, 0.0), (height, width))
    origin = np.round((low + high) / 2 - (size - 1) / 2)
    return Frame((float(origin[0]), float(origin[1])), (height, width))


def check_canvas(shape: tuple[float, float]) -> None:
    """DataError where an image (H, W) of this shape is larger than the memory, before it is allocated."""
    if not all(math.isfinite(side) for side in shape):
        raise DataError(
            "the positions are not finite, so there is no image of them; check xcoords and ycoords"
        )
    what = f"the image of {shape[0]:.4g} x {shape[1]:.4g} px that the positions span"
    check_memory(int(shape[0]) * int(shape[1]) * _BYTES_A_PIXEL, what, "check the unit of the positions")


def chunks(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size`.

    >>> list(chunks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def scan_order(positions_xy: NDArray[np.float64], chunk: int) -> NDArray[np.int64]:
    """An order of positions in which consecutive chunks are compact: strips, back and forth. O(K log K)."""
    count = len(positions_xy)
    strips = max(1, round(math.sqrt(count / chunk)))
    rank = np.empty(count, np.int64)
    rank[np.argsort(positions_xy[:, 1], kind="stable")] = np.arange(count)
    strip = rank * strips // count
    x = np.where(strip % 2 == 0, positions_xy[:, 0], -positions_xy[:, 0])
    return np.lexsort((x, strip))


def transform_positions(
    positions_xy: NDArray[np.float64], *, flip_x: bool, flip_y: bool, transpose: bool, coord_scale: float
) -> NDArray[np.float64]:
    """Positions (..., 2) with mirrored axes, exchanged axes and scale, in this order.

    >>> one = np.array([[1.0, 2.0]])
    >>> transform_positions(one, flip_x=True, flip_y=False, transpose=True, coord_scale=2.0).tolist()
    [[4.0, -2.0]]
    """
    if not (np.isfinite(coord_scale) and coord_scale > 0):
        raise ConfigError(f"coord_scale = {coord_scale}: must be a positive number")
    signs = np.array([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0])
    moved: NDArray[np.float64] = positions_xy * signs * coord_scale
    return moved[..., ::-1] if transpose else moved
