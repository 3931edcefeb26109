"""From patches to one image: every patch goes to its own sub-pixel place on a rectangular canvas.

Letters: K patches, N their side, M side of the central window that is used, (H, W) canvas.
Time O(K M^2); memory: the canvas and one chunk of patches, since patches are added as they are predicted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.image import stitcher as numpy_stitcher
from ptycho.image.canvas import Stitched, chunks, make_frame, scan_order
from ptycho.ops.tf import splat

Tensor = Any


class Stitcher(numpy_stitcher.Stitcher):
    """Adds patches to a canvas, chunk by chunk; `result` gives the weighted mean.

    The canvas is NumPy's, because a chunk changes a small part of it in place; TensorFlow splats the chunk.
    """

    def add(self, patches: Tensor, positions_xy: NDArray[np.float64]) -> None:
        """Patches (..., N, N) complex64 at (K, 2) float64: the object pixels under pixel (N//2, N//2)."""
        patches = tf.convert_to_tensor(patches)
        N, M = int(patches.shape[-1]), self.M
        low = N // 2 - M // 2
        shift = M // 2 + np.array(self.frame.origin_xy) - self._margin
        corners = np.asarray(positions_xy, np.float64) - shift
        height, width = self._sum.shape
        inside = ((corners >= 0) & (corners <= (width - M - 1, height - M - 1))).all(1)
        if not inside.any():
            return
        window = tf.reshape(patches, [-1, N, N])[:, low : low + M, low : low + M]
        if not inside.all():
            window = tf.boolean_mask(window, inside)
        corners = corners[inside]
        # one small canvas around the chunk, so that the cost does not depend on the size of the image
        first = np.floor(corners.min(0))
        x, y = (int(v) for v in first)
        columns, rows = (int(v) for v in np.floor(corners.max(0)) - first + M + 1)
        total, weight = _splat_chunk(window, tf.constant(self._weights), corners - first, rows, columns)
        target = (slice(y, y + rows), slice(x, x + columns))
        self._sum[target] += total.numpy()
        self._weight[target] += weight.numpy()


def _splat_chunk(
    window: Tensor, weights: Tensor, corners: NDArray[np.float64], rows: int, columns: int
) -> tuple[Tensor, Tensor]:
    """Weighted patches and weights on one canvas (rows, columns)."""
    places = tf.constant(corners)
    one = tf.zeros([len(corners)], tf.int32)
    total = splat(tf.cast(weights, window.dtype) * window, places, one, 1, (rows, columns))[0]
    return total, splat(tf.broadcast_to(weights, window.shape), places, one, 1, (rows, columns))[0]


def stitch(
    patches: NDArray[np.complex64],
    positions_xy: NDArray[np.float64],
    weights: NDArray[np.float32],
    *,
    canvas_shape: tuple[int, int] | None = None,
    chunk: int = 256,
) -> Stitched:
    """Stitch patches (K, N, N) that are in memory already; see `Stitcher` for patches that are not."""
    if len(patches) != len(positions_xy):
        raise DataError(f"{len(patches)} patches but {len(positions_xy)} positions")
    frame = make_frame(positions_xy, weights.shape[0], canvas_shape)
    stitcher = Stitcher(frame, weights)
    # neighbours in space share a chunk, so that its box stays small whatever the order of the scan
    order = scan_order(positions_xy, chunk)
    for part in chunks(len(order), chunk):
        rows = order[part]
        stitcher.add(tf.constant(patches[rows]), positions_xy[rows])
    return stitcher.result()
