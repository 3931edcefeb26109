"""R of every pattern as a picture, for scans of so many positions that dots would hide each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: positions from which on R is a picture and not dots
MANY = 1500
_LONGEST = 512
_REACH = 1.5


def r_image(
    positions_px: NDArray[np.float64],
    r_per_pattern: NDArray[np.float64],
    corner_xy: tuple[float, float],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """R of the nearest pattern on a grid over an image, float32, NaN where no position is near.

    positions_px (M, 2) [x, y] and corner_xy of the image in object px, shape (H, W) of the image; the grid
    has its aspect, at most 512 px, and no finer pixels than half a step of the scan. Near is one and a half
    times the area of a position, as a length. Time O(pixels log M), memory O(pixels + M).

    >>> places = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), -1).reshape(-1, 2)
    >>> r_image(places, places[:, 0], (0.0, 0.0), (8, 8))[3].tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    """
    from scipy.spatial import cKDTree

    extent = np.maximum(np.ptp(positions_px, axis=0), 1e-9)
    step = float(np.sqrt(extent.prod() / max(len(positions_px), 1)))
    pixel = max(max(shape) / _LONGEST, step / 2, 1.0)
    rows, columns = (max(round(side / pixel), 1) for side in shape)
    y = corner_xy[1] + (np.arange(rows) + 0.5) * shape[0] / rows - 0.5
    x = corner_xy[0] + (np.arange(columns) + 0.5) * shape[1] / columns - 0.5
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    far, nearest = cKDTree(positions_px).query(grid, distance_upper_bound=_REACH * max(step, pixel))
    found = np.isfinite(far)
    values = np.full(len(grid), np.nan, np.float32)
    values[found] = r_per_pattern[nearest[found]]
    return values.reshape(rows, columns)
