"""A pair of images as a pyramid: halved images, weights, and the held-out pixels that judge a fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ptycho.warp.prepare import Pair
from ptycho.warp.settings import PairSettings
from ptycho_torch.warp.field import Lattice, WarpField, backward_warp
from ptycho_torch.warp.losses import View, local_factor

#: side of the held-out squares, px, and their share
BLOCK_PX, _HELD = 6, 0.4
_FEWEST_PX = 20
#: samples a px of the moving image at full size, and for images of more pixels than that. Between samples a
#: line is drawn, which smooths noise: with one a px, noise fits noise better half a pixel away
_FINER, _FINER_OF_LARGE, _LARGE = 4, 2, 2**20


@dataclass(frozen=True)
class Level:
    """One level: fixed (h, w) complex; moving (3, k (h - 1) + 1, k (w - 1) + 1) real, imaginary part and
    weight, k = finer samples a px; weight (h, w); judges (h, w) True where a pixel is held out; block (h, w)
    the number of its square; lattice: where its pixels lie.
    """

    fixed: Tensor
    moving: Tensor
    weight: Tensor
    judges: Tensor
    block: Tensor
    lattice: Lattice
    finer: int = 1

    def view(self, warp: WarpField, settings: PairSettings, *, held: bool = True) -> View:
        """Both images under a warp, the held-out pixels without weight; images in their own units."""
        factor = self.lattice.factor
        field = warp(self.lattice) / factor
        drawn = backward_warp(self.moving[None], field[None], finer=self.finer)[0]
        seen = drawn[2].detach()
        weight = 2 * self.weight * seen / (self.weight + seen).clamp_min(1e-6)
        if held:
            weight = weight * ~self.judges
        moved = torch.complex(drawn[0], drawn[1])
        gauge = local_factor(self.fixed, moved, weight, round(settings.gauge_px / factor))
        return View(self.fixed, gauge * moved, weight, field)


def make_levels(pair: Pair, settings: PairSettings, seed: int = 0) -> dict[int, Level]:
    """Levels 1, 2, 4, ... of a pair, down to a side of 20 px; at most 8. The seed determines the squares."""
    fixed, moving = (_smoothed(image, settings.smooth_px) for image in (pair.fixed, pair.moving))
    weights = [torch.from_numpy(w.astype(np.float32)) for w in (pair.fixed_weight, pair.moving_weight)]
    height, width = pair.shape
    rows, columns = -(-height // BLOCK_PX), -(-width // BLOCK_PX)
    chosen = torch.from_numpy(np.random.default_rng([seed, 7]).random(rows * columns) < _HELD)
    block = (torch.arange(height) // BLOCK_PX)[:, None] * columns + (torch.arange(width) // BLOCK_PX)[None]
    found = {}
    for factor in (1, 2, 4, 8):
        if factor > 1 and min(height, width) // factor < _FEWEST_PX:
            break
        middle = slice(factor // 2, None, factor)
        size = (height // factor, width // factor)
        numbers = block[middle, middle][: size[0], : size[1]]
        parts = F.avg_pool2d(torch.stack([*fixed, *moving, *weights])[None], factor)[0]
        source, finer = parts[[2, 3, 5]], 1
        if factor == 1:
            finer = _FINER if height * width <= _LARGE else _FINER_OF_LARGE
            orders = (3, 3, 1)
            source = torch.stack([_finer(part, finer, o) for part, o in zip(source, orders, strict=True)])
        found[factor] = Level(
            torch.complex(parts[0], parts[1]),
            source,
            parts[4],
            chosen[numbers],
            numbers,
            Lattice(pair.shape, factor),
            finer,
        )
    return found


def _finer(part: Tensor, times: int, order: int) -> Tensor:
    """An image (H, W) with `times` samples a px, from its first pixel to its last, by splines."""
    from scipy import ndimage

    share = [(times * (side - 1) + 1) / side for side in part.shape]
    return torch.from_numpy(ndimage.zoom(part.numpy(), share, order=order, mode="mirror"))


def _smoothed(image: NDArray[np.complex128], sigma_px: float) -> list[Tensor]:
    from scipy import ndimage

    parts = (image.real, image.imag)
    return [torch.from_numpy(ndimage.gaussian_filter(part, sigma_px).astype(np.float32)) for part in parts]
