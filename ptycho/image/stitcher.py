"""From patches to one image: every patch goes to its own sub-pixel place on a rectangular canvas.

Letters: K patches, N their side, M side of the central window that is used, (H, W) canvas.
Time O(K M^2); memory: the canvas and one chunk of patches, since patches are added as they are predicted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.image.canvas import COVERAGE_FLOOR, Frame, Stitched, chunks, make_frame, scan_order
from ptycho.ops import Array, ops_of
from ptycho.ops.team import Team


class Stitcher:
    """Adds patches to a canvas, chunk by chunk; `result` gives the weighted mean.

    `weights` (M, M) float32 is the window of `ptycho.image.canvas.window_weights`. The canvas is NumPy's,
    because a chunk changes a small part of it in place; the patches may be of any kind that `ptycho.ops`
    knows, which adds up the chunk.
    """

    def __init__(self, frame: Frame, weights: NDArray[np.float32]) -> None:
        self.frame = frame
        self.M = len(weights)
        self._weights = weights
        # a patch may reach beyond a given canvas: that part goes to a margin, which `result` cuts off
        self._margin = self.M + 1
        height, width = (side + 2 * self._margin for side in frame.shape)
        self._sum = np.zeros((height, width), np.complex64)
        self._weight = np.zeros((height, width), np.float32)

    def add(self, patches: Array, positions_xy: NDArray[np.float64]) -> None:
        """Patches (..., N, N) complex64 at (K, 2) float64: the object pixels under pixel (N//2, N//2)."""
        ops, N, M = ops_of(patches), int(patches.shape[-1]), self.M
        low = N // 2 - M // 2
        shift = M // 2 + np.array(self.frame.origin_xy) - self._margin
        corners = np.asarray(positions_xy, np.float64) - shift
        limit = np.array(self._sum.shape[::-1]) - M - 1
        inside = ((corners >= 0) & (corners <= limit)).all(1)
        if not inside.any():
            return
        window = ops.reshape(patches, (-1, N, N))[:, low : low + M, low : low + M]
        if not inside.all():
            window = ops.take(window, np.flatnonzero(inside))
        corners = corners[inside]
        # one small canvas around the chunk, so that the cost does not depend on the size of the image
        first = np.floor(corners.min(0))
        x, y = (int(v) for v in first)
        columns, rows = (int(v) for v in np.floor(corners.max(0)) - first + M + 1)
        places = ops.double(corners - first, patches)
        one = ops.repeat_index(1, len(corners), patches)
        weights = ops.constant(self._weights, patches)
        target = (slice(y, y + rows), slice(x, x + columns))
        for canvas, values in (
            (self._sum, ops.times(window, weights)),
            (self._weight, ops.broadcast_like(weights, window)),
        ):
            canvas[target] += ops.to_numpy(ops.splat(values, places, one, 1, (rows, columns))[0])

    def pool(self, team: Team) -> None:
        """Add what the other processes have on their canvases; one message of three floats a pixel."""
        team.add_up(self._sum, self._weight)

    def result(self) -> Stitched:
        """The weighted mean, its coverage and its frame; pixels that hardly any weight reached are zero.

        Raises DataError when no patch reached the canvas.
        """
        m = self._margin
        height, width = self.frame.shape
        total = self._sum[m : m + height, m : m + width]
        weight = self._weight[m : m + height, m : m + width]
        reached = weight > COVERAGE_FLOOR * self._weights.max()
        if not reached.any():
            raise DataError("no patch reached the canvas: are the positions in pixels of the given object?")
        image = np.where(reached, total / np.where(reached, weight, 1), 0).astype(np.complex64)
        # the lower of the two middle values
        found = weight[reached]
        middle = np.partition(found, (len(found) - 1) // 2)[(len(found) - 1) // 2]
        return Stitched(image, np.where(reached, weight / middle, 0).astype(np.float32), self.frame)


def stitch(
    patches: Array,
    positions_xy: NDArray[np.float64],
    weights: NDArray[np.float32],
    *,
    canvas_shape: tuple[int, int] | None = None,
    chunk: int = 256,
) -> Stitched:
    """Stitch patches (K, N, N) that are in memory already; see `Stitcher` for patches that are not.

    >>> from ptycho.image.canvas import window_weights
    >>> weights = window_weights(np.ones((1, 8, 8), np.complex64), 4, "uniform")
    >>> image = stitch(np.ones((2, 8, 8), np.complex64), np.array([[8.0, 8.0], [12.0, 8.0]]), weights)
    >>> float(abs(image.object).max()), int(image.covered.sum())
    (1.0, 32)
    """
    if len(patches) != len(positions_xy):
        raise DataError(f"{len(patches)} patches but {len(positions_xy)} positions")
    stitcher = Stitcher(make_frame(positions_xy, len(weights), canvas_shape), weights)
    # neighbours in space share a chunk, so that its box stays small whatever the order of the scan
    order = scan_order(positions_xy, chunk)
    for part in chunks(len(order), chunk):
        rows = order[part]
        stitcher.add(ops_of(patches).take(patches, rows), positions_xy[rows])
    return stitcher.result()
