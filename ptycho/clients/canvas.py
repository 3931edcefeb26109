"""On which canvas a client finds its object again, when it tells nothing about the object but positions.

ptychodus keeps the centre and the pixel size of its own object whatever comes back, so the canvas must be
that object's: same shape, centre on centre. It sizes objects around the scan (`compute_object_geometry`), so
the middle of the positions is the middle of the object, and the positions alone give the shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ptycho.io.ptychodus_frame import centre_offset_px

_SAME_PX = 0.05


def client_canvas(
    positions_xy: NDArray[np.float64],
    N: int,
    trained_scans: Sequence[dict[str, Any]] = (),
    object_shape: tuple[int, int] | None = None,
) -> tuple[tuple[int, int], str]:
    """Shape (H, W) of the client's object, and how it was found, from positions (n, 2) [x, y] px.

    In order: the shape that was given; the object of the same scan in training; the shape whose middle is the
    middle of the positions. Where that is no whole number, the object lies off the scan's centre: then the
    object of a training scan of about that size, else the nearest whole one. Positions that cannot be pixels
    of a canvas get one that just holds the patches.
    """
    if object_shape is not None:
        return (int(object_shape[0]), int(object_shape[1])), "as given"
    low, high = positions_xy.min(0), positions_xy.max(0)
    shapes = [(scan, tuple(scan["shape"])) for scan in trained_scans if scan.get("shape")]
    for scan, shape in shapes:
        bounds = np.concatenate([low - scan["low_px"], high - scan["high_px"]])
        if scan["positions"] == len(positions_xy) and np.abs(bounds).max() < _SAME_PX:
            return (shape[0], shape[1]), "the object of this scan in training"
    if (low < 0).any():
        width, height = (math.ceil(side) + N for side in high - low)
        return (height, width), "just holds the patches"
    width_px, height_px = low + high - 2 * centre_offset_px(N) + 1
    whole = (round(height_px), round(width_px))
    if max(abs(height_px - whole[0]), abs(width_px - whole[1])) < _SAME_PX:
        return whole, "centred on the scan"
    for _, shape in shapes:
        near = abs(shape[0] - height_px) <= N / 2 and abs(shape[1] - width_px) <= N / 2
        if near and high[0] <= shape[1] - 1 and high[1] <= shape[0] - 1:
            return (shape[0], shape[1]), "the object of a training scan of this size"
    return whole, "centred on the scan to half a pixel"


def spacing_px(positions_xy: NDArray[np.float64]) -> float:
    """How far neighbours lie apart: nearly all positions have three others within this many px of x and y."""
    if len(positions_xy) < 2:
        return 0.0
    k = min(3, len(positions_xy) - 1)
    distances, _ = cKDTree(positions_xy).query(positions_xy, k=[k + 1], p=np.inf)
    return float(np.quantile(distances, 0.95))
