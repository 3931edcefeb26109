"""A network that predicts a warp in one pass: shared encoder, correlation of features, coordinates, two
heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptycho.warp.formula import BOUNDS, global_displacement
from ptycho.warp.network_shape import (
    FLOW_BOUND,
    FLOW_GAIN,
    POINTS,
    REACH,
    SIDE,
    STRIDE,
    TRUNK_STRIDES,
    WHOLE_GAIN,
    WINDOW_PX,
)
from ptycho_torch import undrawn
from ptycho_torch.layers import draw_he


class WarpNetwork(nn.Module):
    """(B, 4, 128, 128) details of two images -> values (B, 10) and control points (B, 2, 8, 8), in unit
    radii.

    Input: real and imaginary detail of the fixed, then of the moving image, as `details` makes them. About
    120,000 weights at 48 channels. The heads are zero at the start: the first prediction is the identity.
    """

    def __init__(self, channels: int = 48, seed: int = 0) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            undrawn.Conv2d(2, 16, 5, 2, 2),
            nn.GELU(),
            undrawn.Conv2d(16, 32, 3, 2, 1),
            nn.GELU(),
            undrawn.Conv2d(32, 32, 3, 1, 1),
        )
        seen = (2 * REACH + 1) ** 2 + 32 + 2
        wide = channels
        self.trunk = nn.Sequential(
            undrawn.Conv2d(seen, wide, 1),
            nn.GELU(),
            *(layer for stride in TRUNK_STRIDES for layer in _convolved(wide, stride)),
        )
        self.flow = undrawn.Conv2d(channels, 2, 3, 1, 1)
        self.whole = undrawn.Linear(channels * POINTS * POINTS, len(BOUNDS))
        line = (torch.arange(SIDE // STRIDE) + 0.5) * 2 * STRIDE / SIDE - 1
        down, across = torch.meshgrid(line, line, indexing="ij")
        self.register_buffer("coordinates", torch.stack([across, down])[None], persistent=False)
        self.register_buffer("bounds", torch.tensor(BOUNDS), persistent=False)
        draw_he(self, seed, zero=("flow", "whole"))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fixed, moving = self.encoder(images[:, :2]), self.encoder(images[:, 2:])
        fixed, moving = (f / (f.square().sum(1, keepdim=True) + 1e-6).sqrt() for f in (fixed, moving))
        padded = F.pad(moving, [REACH] * 4)
        side = SIDE // STRIDE
        alike = [
            (fixed * padded[:, :, i : i + side, j : j + side]).sum(1, keepdim=True)
            for i in range(2 * REACH + 1)
            for j in range(2 * REACH + 1)
        ]
        where = self.get_buffer("coordinates").expand(images.shape[0], -1, -1, -1)
        found = self.trunk(torch.cat([4 * torch.cat(alike, 1), fixed, where], 1))
        bound = self.get_buffer("bounds")
        values = bound * torch.tanh(WHOLE_GAIN * self.whole(found.flatten(1)) / bound)
        points = FLOW_BOUND * torch.tanh(FLOW_GAIN * self.flow(found) / FLOW_BOUND)
        return values, points


def _convolved(wide: int, stride: int) -> list[nn.Module]:
    return [undrawn.Conv2d(wide, wide, 3, stride, 1), nn.GELU()]


def displacements(values: Tensor, points: Tensor, places: Tensor, basis: Tensor) -> Tensor:
    """(B, n, n, 2) in unit radii at a lattice: values (B, 10), points (B, 2, k, k), places (n,), basis (n,
    k)."""
    ten = values.T[:, :, None, None]
    x, y = places[None, None, :], places[None, :, None]
    moved = torch.stack(global_displacement(ten, x, y), -1)
    return moved + (basis @ points @ basis.T).movedim(1, -1)


def details(image: Tensor, weight: Tensor, real: bool = False) -> Tensor:
    """Fine details of complex images (B, H, W), as (B, 2, H, W) of unit spread, without scale, phase and
    ramp.

    The image divided by its mean in windows of about 24 px, minus one. weight (B, H, W): 0 for unlit pixels.
    real: for a micrograph, the image minus its mean in each window, without imaginary part.
    """
    parts = torch.stack([image.real * weight, image.imag * weight, weight], 1)
    pooled = F.avg_pool2d(parts, WINDOW_PX, WINDOW_PX // 6, WINDOW_PX // 2, count_include_pad=False)
    pooled = F.interpolate(pooled, size=image.shape[-2:], mode="bilinear", align_corners=True)
    slow = torch.complex(pooled[:, 0], pooled[:, 1]) / pooled[:, 2].clamp_min(1e-3)
    if real:
        fine = image - slow
    else:
        level = (image.abs() * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-3)
        floor = (0.2 * level)[:, None, None]
        fine = image * slow.conj() / torch.maximum(slow.abs(), floor).square() - 1
    parts = torch.stack([fine.real, fine.imag], 1) * weight[:, None]
    spread = (parts.square().sum((1, 2, 3)) / weight.sum((1, 2)).clamp_min(1e-3)).sqrt().clamp_min(1e-6)
    return (parts / spread[:, None, None, None]).clamp(-4, 4)
