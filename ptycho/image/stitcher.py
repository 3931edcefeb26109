"""Patches to one image in NumPy: the same as the backends' `Stitcher`, for runs that load no backend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.image.canvas import COVERAGE_FLOOR, Frame, Stitched
from ptycho.ops.team import Team


class Stitcher:
    """Adds patches to a canvas, chunk by chunk; `result` gives the weighted mean.

    `weights` (M, M) float32 is the window of `ptycho.image.canvas.window_weights`. Time O(K M^2) for K
    patches; memory: the canvas and one chunk.
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

    def add(self, patches: NDArray[np.complex64], positions_xy: NDArray[np.float64]) -> None:
        """Patches (..., N, N) complex64 at (K, 2) float64: the object pixels under pixel (N//2, N//2)."""
        patches = patches.reshape(-1, *patches.shape[-2:])
        N, M = patches.shape[-1], self.M
        low = N // 2 - M // 2
        corners = positions_xy - M // 2 - np.array(self.frame.origin_xy) + self._margin
        limit = np.array(self._sum.shape[::-1]) - M - 1
        inside = ((corners >= 0) & (corners <= limit)).all(1)
        whole = np.floor(corners[inside]).astype(int)
        fraction = (corners[inside] - whole).astype(np.float32)[:, :, None, None]
        window = patches[inside, low : low + M, low : low + M]
        values = _spread(window * self._weights, fraction)
        weights = _spread(np.broadcast_to(self._weights, window.shape), fraction)
        for (x, y), value, weight in zip(whole, values, weights, strict=True):
            target = (slice(y, y + M + 1), slice(x, x + M + 1))
            self._sum[target] += value
            self._weight[target] += weight

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
        # the lower of the two middle values, as torch takes it
        found = weight[reached]
        middle = np.partition(found, (len(found) - 1) // 2)[(len(found) - 1) // 2]
        return Stitched(image, np.where(reached, weight / middle, 0).astype(np.float32), self.frame)


def _spread(patches: NDArray[Any], fraction_xy: NDArray[np.float32]) -> NDArray[Any]:
    """(K, M+1, M+1): patches (K, M, M) moved right and down by a fraction (K, 2, 1, 1) of a px, bilinear."""
    fx, fy = fraction_xy[:, 0], fraction_xy[:, 1]
    K, M = patches.shape[:2]
    rows = np.zeros((K, M + 1, M), patches.dtype)
    rows[:, :-1] = (1 - fy) * patches
    rows[:, 1:] += fy * patches
    spread = np.zeros((K, M + 1, M + 1), patches.dtype)
    spread[:, :, :-1] = (1 - fx) * rows
    spread[:, :, 1:] += fx * rows
    return spread
