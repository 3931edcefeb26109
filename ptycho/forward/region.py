"""The region context: a block of neighbouring groups on one canvas, as it will be stitched.

A single far-field pattern does not fix its patch: the global phase is free, the dark tails of the probe are
almost free, and amplitude may pass for phase. Neighbours that look at the same pixels settle all three. So a
block of neighbouring groups is predicted, laid on one canvas, and every pattern is explained by that canvas.
"""

from __future__ import annotations

from dataclasses import dataclass

from ptycho.forward.merging import weighted_mean_on
from ptycho.ops import Array, Size, ops_of
from ptycho.physics import MERGE_EPSILON


@dataclass(frozen=True)
class Region:
    """Where a block lies: the object pixel of canvas pixel [0, 0] as [x, y], and the shape (H, W)."""

    origin_xy: Array
    shape: tuple[Size, Size]

    @classmethod
    def around(cls, positions_xy: Array, N: Size) -> Region:
        """The smallest canvas that holds the N x N patch at every position (K, 2), fractions included.

        >>> import numpy as np
        >>> region = Region.around(np.array([[10.0, 20.0], [12.5, 20.0]]), 4)
        >>> region.origin_xy.tolist(), region.shape
        ([8.0, 18.0], (5, 8))
        """
        ops = ops_of(positions_xy)
        before, after = ops.number(N // 2, positions_xy), ops.number(N - N // 2, positions_xy)
        lowest = ops.floor(ops.min(positions_xy, 0)) - before
        highest = ops.ceil(ops.max(positions_xy, 0)) + after + 1
        width, height = ops.sizes(highest - lowest)
        return cls(lowest, (height, width))

    def corners(self, positions_xy: Array, N: Size) -> Array:
        """Canvas pixel under patch pixel (0, 0) of every position (K, 2): position - N//2 - origin."""
        return positions_xy - ops_of(positions_xy).number(N // 2, positions_xy) - self.origin_xy


def region_views(patches: Array, places_xy: Array, positions_xy: Array, window: Array) -> Array:
    """What every pattern of a block sees of the block's common canvas.

    Shapes: patches (B, C_out, N, N) complex; places_xy (B, C_out, 2) float64, where each patch lies;
    positions_xy (B, C, 2) float64, where each pattern looks; window (N, N), the patch weights (|P|^2), of any
    scale. Returns (B, C, N, N). Time and memory O(B C N^2 + H W).
    """
    ops = ops_of(patches)
    N = ops.shape(patches)[-1]
    flat, places = ops.reshape(patches, (-1, N, N)), ops.reshape(places_xy, (-1, 2))
    looks = ops.reshape(positions_xy, (-1, 2))
    region = Region.around(ops.concat([places, looks], 0), N)
    w = window / ops.max(window) + MERGE_EPSILON
    all_on_one = ops.repeat_index(1, ops.shape(flat)[0], flat)
    merged = weighted_mean_on(flat, w, region.corners(places, N), all_on_one, 1, region.shape)
    all_from_one = ops.repeat_index(1, ops.shape(looks)[0], flat)
    views = ops.gather(merged, region.corners(looks, N), all_from_one, N)
    return ops.reshape(views, (*ops.shape(positions_xy)[:2], N, N))


def block_views(patches: Array, positions_xy: Array, illumination: Array) -> Array:
    """What each pattern sees of its block: patches (B, C_out, N, N), positions_xy (B, C, 2) -> (B, C, N, N).

    A patch that is shared by its group (C_out = 1 < C) lies at the mean position of the group.
    """
    places = positions_xy
    if patches.shape[1] != positions_xy.shape[1]:
        places = ops_of(positions_xy).mean(positions_xy, 1, keepdims=True)
    return region_views(patches, places, positions_xy, illumination)
