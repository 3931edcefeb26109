"""The region context: a block of neighbouring groups on one canvas, as it will be stitched.

A single far-field pattern does not fix its patch: the global phase is free, the dark tails of the probe are almost
free, and amplitude may pass for phase. Neighbours that look at the same pixels settle all three. So a block of
neighbouring groups is predicted, laid on one canvas, and every pattern is explained by that canvas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ptycho.physics import MERGE_EPSILON
from ptycho_torch.physics import gather, splat

#: rounds of canvas-and-patch alignment; the phases of a block of some tens of patches settle in three
SYNC_ROUNDS = 3


@dataclass(frozen=True)
class Canvas:
    """A region's frame: where object pixel (0, 0) lies and how large it is."""

    origin_xy: Tensor
    shape: tuple[int, int]

    @classmethod
    def around(cls, positions_xy: Tensor, N: int) -> Canvas:
        """The smallest canvas that holds the patch of every position (K, 2)."""
        lowest, highest = positions_xy.amin(0).floor() - N // 2, positions_xy.amax(0).ceil() + (N - N // 2) + 1
        width, height = (highest - lowest).to(torch.int64).tolist()
        return cls(lowest, (height, width))

    def corners(self, positions_xy: Tensor, N: int) -> Tensor:
        """Canvas pixel under patch pixel (0, 0) for every position."""
        return positions_xy - N // 2 - self.origin_xy


def region_views(
    patches: Tensor, places_xy: Tensor, positions_xy: Tensor, window: Tensor, *, sync: bool = True
) -> Tensor:
    """What every pattern of a block sees of the block's common canvas.

    Shapes: patches (B, C_out, N, N) complex; places_xy (B, C_out, 2) float64, where each patch lies; positions_xy
    (B, C, 2) float64, where each pattern looks; window (N, N), the patch weights (|P|^2). Returns (B, C, N, N).
    With `sync` each group is first turned by the global phase that fits it best to the others; that phase is held
    fixed for the gradient, since diffraction does not know it.
    """
    B, _, N, _ = patches.shape
    flat, place = patches.reshape(-1, N, N), places_xy.reshape(-1, 2)
    canvas = Canvas.around(torch.cat([place, positions_xy.reshape(-1, 2)]), N)
    corners = canvas.corners(place, N)
    one = torch.zeros(len(flat), dtype=torch.int64, device=flat.device)
    w = (window / window.max() + MERGE_EPSILON).expand(flat.shape).contiguous()
    weights = splat(w, corners, one, 1, canvas.shape)
    inverse = torch.where(weights > 0, 1 / torch.where(weights > 0, weights, 1), 0)

    if sync and B > 1:
        fixed = flat.detach()
        turn = torch.ones(B, 1, 1, 1, dtype=flat.dtype, device=flat.device)
        for _ in range(SYNC_ROUNDS):
            turned = (fixed.view(patches.shape) * turn).reshape(-1, N, N)
            merged = splat(w * turned, corners, one, 1, canvas.shape) * inverse
            fit = (gather(merged, corners, one, N) * fixed.conj() * w).view(patches.shape)
            turn = torch.polar(torch.ones_like(turn.real), fit.sum((1, 2, 3), keepdim=True).angle())
        flat = (patches * turn).reshape(-1, N, N)
    merged = splat(w * flat, corners, one, 1, canvas.shape) * inverse
    looks = canvas.corners(positions_xy.reshape(-1, 2), N)
    which = torch.zeros(len(looks), dtype=torch.int64, device=flat.device)
    return gather(merged, looks, which, N).view(*positions_xy.shape[:2], N, N)
