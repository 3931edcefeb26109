"""A warp with trainable parameters, and images resampled through it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptycho.warp.formula import BOUNDS, NAMES, PARTS, global_displacement
from ptycho.warp.splines import FEWEST, refine_points, spline_basis
from ptycho.warp.warp import Warp


def backward_warp(image: Tensor, displacement: Tensor, mode: str = "bilinear", finer: int = 1) -> Tensor:
    """image (B, C, H, W) sampled at p + u(p): real, differentiable in both.

    displacement (B, H', W', 2) [x, y] px of the image; the output is (B, C, H', W'), its pixel (0, 0) lies on
    the image's. Outside the image its edge is repeated. `grid_sample` with align_corners=True, so that px -1
    and +1 are the centres of the first and last pixel. finer: samples of the image a px of the displacement.

    >>> image = torch.arange(4.0).reshape(1, 1, 1, 4)
    >>> backward_warp(image, torch.tensor([0.5, 0.0]).expand(1, 1, 4, 2)).flatten().tolist()
    [0.5, 1.5, 2.5, 3.0]
    """
    height, width = displacement.shape[1:3]
    y = torch.arange(height, dtype=image.dtype, device=image.device)[:, None]
    x = torch.arange(width, dtype=image.dtype, device=image.device)[None, :]
    sides = (max(image.shape[3] - 1, 1) / finer, max(image.shape[2] - 1, 1) / finer)
    grid = torch.stack(
        [2 * (x + displacement[..., 0]) / sides[0] - 1, 2 * (y + displacement[..., 1]) / sides[1] - 1], -1
    )
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=True)


def bounded(raw: Tensor, bound: Tensor | float) -> Tensor:
    """Equal to raw near zero, never beyond +-bound."""
    return bound * torch.tanh(raw / bound)


def unbounded(value: Tensor, bound: Tensor | float) -> Tensor:
    """The inverse of `bounded`."""
    return bound * torch.atanh((value / bound).clamp(-0.999999, 0.999999))


class Lattice:
    """The pixels of one level of a pyramid: every `factor` px of a grid (H, W), and the splines at them."""

    def __init__(self, shape: tuple[int, int], factor: int, dtype: torch.dtype = torch.float32) -> None:
        self.shape, self.factor, self.dtype = shape, factor, dtype
        self.lines = [np.arange(side // factor) * factor + (factor - 1) / 2 for side in shape]
        radius = max(max(shape) - 1, 1) / 2
        y, x = (
            torch.tensor((line - (side - 1) / 2) / radius, dtype=dtype)
            for line, side in zip(self.lines, shape, strict=True)
        )
        self.y, self.x, self.radius = y[:, None], x[None, :], radius
        self._bases: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def bases(self, counts: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Splines of so many control points at the rows and at the columns."""
        if counts not in self._bases:
            rows, columns = (
                torch.tensor(spline_basis(line, count, max(side - 1, 1)), dtype=self.dtype)
                for line, count, side in zip(self.lines, counts, self.shape, strict=True)
            )
            self._bases[counts] = rows, columns
        return self._bases[counts]


def _mixture() -> Tensor:
    """Matrix (10, 10) from raw numbers to the ten of a warp: it removes scale and lower terms from each lens
    term, on a square.

    r, r^3 and r^5 are similar functions; a fit of orthogonal combinations needs fewer steps.
    """
    mixture = torch.eye(len(BOUNDS), dtype=torch.float64)
    scale, lens, high = (NAMES.index(name) for name in ("scale", "lens", "lens_high"))
    mixture[scale, lens], mixture[scale, high], mixture[lens, high] = -0.9333, 0.778, -1.936
    return mixture


class WarpField(nn.Module):
    """`ptycho.warp.Warp` with bounded numbers that a gradient moves; the identity at the start.

    raw (10,) px at the unit radius; head (2, h, w) px: the flow's control points before tanh, or None.
    """

    def __init__(
        self, shape: tuple[int, int], max_flow_px: float, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.shape, self.max_flow_px = shape, max_flow_px
        self.radius = max(max(shape) - 1, 1) / 2
        self.raw = nn.Parameter(torch.zeros(len(BOUNDS), dtype=dtype))
        self.head: nn.Parameter | None = None
        self.register_buffer("bounds", torch.tensor(BOUNDS, dtype=dtype))
        self.register_buffer("mixture", _mixture().to(dtype))
        self.register_buffer("mask", torch.zeros(len(BOUNDS), dtype=dtype))

    def use(self, kind: str) -> None:
        """Fit only the numbers of this kind; a "flow" needs `refine` too."""
        mask = self.get_buffer("mask")
        mask.zero_()
        mask[list(PARTS[kind])] = 1.0

    def refine(self, points: int) -> None:
        """Set the control points so that the longer side has `points`; the field does not change."""
        counts = [max(FEWEST, round((points - 3) * side / max(self.shape)) + 3) for side in self.shape]
        shape = (counts[0], counts[1])
        if self.head is None:
            made = torch.zeros((2, *shape), dtype=self.raw.dtype)
        else:
            finer = refine_points(self.points().detach().double().numpy(), shape)
            made = unbounded(torch.from_numpy(finer), self.max_flow_px).to(self.raw.dtype)
        self.head = nn.Parameter(made)

    def values(self) -> Tensor:
        """The ten numbers, each within its bound."""
        bound = self.get_buffer("bounds")
        mixed = self.get_buffer("mixture") @ (self.raw * self.get_buffer("mask"))
        return bounded(mixed / self.radius, bound)

    def points(self) -> Tensor:
        """Control points (2, h, w) px within +-max_flow_px."""
        assert self.head is not None
        return bounded(self.head, self.max_flow_px)

    def forward(self, lattice: Lattice) -> Tensor:
        """Displacement (h, w, 2) [x, y] in px of the full grid at the pixels of a lattice."""
        dx, dy = global_displacement(self.values(), lattice.x, lattice.y)
        moved = torch.stack([d.expand(lattice.y.shape[0], lattice.x.shape[1]) for d in (dx, dy)], -1)
        moved = moved * self.radius
        if self.head is not None:
            rows, columns = lattice.bases((self.head.shape[1], self.head.shape[2]))
            moved = moved + (rows @ self.points() @ columns.T).movedim(0, -1)
        return moved

    def warp(self) -> Warp:
        """The same in NumPy."""
        with torch.no_grad():
            points = None if self.head is None else self.points().double().numpy().copy()
            return Warp(self.shape, self.values().double().numpy().copy(), points)

    def set(self, warp: Warp) -> None:
        """Start from a warp of the same grid; values beyond a bound are clipped. All numbers are used."""
        dtype = self.raw.dtype
        bound = self.get_buffer("bounds").double()
        with torch.no_grad():
            mixed = unbounded(torch.from_numpy(warp.values), bound) * self.radius
            raw = torch.linalg.solve(_mixture(), mixed)
            mask = self.get_buffer("mask")
            mask.copy_(torch.maximum(mask, (raw != 0).to(dtype)))
            self.raw.copy_(raw.to(dtype))
        if warp.points is not None:
            self.head = nn.Parameter(unbounded(torch.from_numpy(warp.points), self.max_flow_px).to(dtype))
        else:
            self.head = None
