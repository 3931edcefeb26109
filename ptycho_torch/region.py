"""The region context: a block of neighbouring groups on one canvas, as it will be stitched.

A single far-field pattern does not fix its patch: the global phase is free, the dark tails of the probe are
almost free, and amplitude may pass for phase. Neighbours that look at the same pixels settle all three. So a
block of neighbouring groups is predicted, laid on one canvas, and every pattern is explained by that canvas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ptycho.physics import MERGE_EPSILON
from ptycho_torch.physics import gather, splat


@dataclass(frozen=True)
class Canvas:
    """A region's frame: where object pixel (0, 0) lies and how large it is."""

    origin_xy: Tensor
    shape: tuple[int, int]

    @classmethod
    def around(cls, positions_xy: Tensor, N: int) -> Canvas:
        """The smallest canvas that holds the patch of every position (K, 2)."""
        lowest = positions_xy.amin(0).floor() - N // 2
        highest = positions_xy.amax(0).ceil() + (N - N // 2) + 1
        width, height = (highest - lowest).to(torch.int64).tolist()
        return cls(lowest, (height, width))

    def corners(self, positions_xy: Tensor, N: int) -> Tensor:
        """Canvas pixel under patch pixel (0, 0) for every position."""
        return positions_xy - N // 2 - self.origin_xy


def region_views(patches: Tensor, places_xy: Tensor, positions_xy: Tensor, window: Tensor) -> Tensor:
    """What every pattern of a block sees of the block's common canvas.

    Shapes: patches (B, C_out, N, N) complex; places_xy (B, C_out, 2) float64, where each patch lies;
    positions_xy (B, C, 2) float64, where each pattern looks; window (N, N), the patch weights (|P|^2).
    Returns (B, C, N, N). Time and memory O(B C N^2).
    """
    N = patches.shape[-1]
    flat, place = patches.reshape(-1, N, N), places_xy.reshape(-1, 2)
    canvas = Canvas.around(torch.cat([place, positions_xy.reshape(-1, 2)]), N)
    corners = canvas.corners(place, N)
    one = torch.zeros(len(flat), dtype=torch.int64, device=flat.device)
    w = (window / window.max() + MERGE_EPSILON).expand(flat.shape).contiguous()
    weights = splat(w, corners, one, 1, canvas.shape)
    inverse = torch.where(weights > 0, 1 / torch.where(weights > 0, weights, 1), 0)
    merged = splat(w * flat, corners, one, 1, canvas.shape) * inverse
    looks = canvas.corners(positions_xy.reshape(-1, 2), N)
    which = torch.zeros(len(looks), dtype=torch.int64, device=flat.device)
    return gather(merged, looks, which, N).view(*positions_xy.shape[:2], N, N)
