"""The losses of a warp fit. Existing image terms are reused; the fold penalty is specific to warps.

Letters: H, W sides of a level. Images (H, W) complex, fields (H, W, 2) [x, y] px of that level.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ptycho.forward.fields import squared
from ptycho.forward.label_losses import label_edges, label_orientation, label_ssim
from ptycho.forward.losses import amplitude_charbonnier, total_variation
from ptycho.forward.penalties import smoothness
from ptycho.warp.warp import corner_areas

#: second difference of control points, 16 px apart, that is as likely as a misfit of one standard error
_BEND_PX, _BEND_AT_PX = 1.0, 16.0
_SSIM_SIGMA_PX = 1.5


def fold_penalty(field: Tensor, margin: float = 0.0) -> Tensor:
    """Mean of max(0, margin - area)^2 over the four corners of every cell of a field (H, W, 2) px.

    With margin 0 it is zero exactly if nothing folds; a margin keeps the area of every cell above it.
    """
    return F.relu(margin - torch.stack(corner_areas(field))).square().mean()


def local_factor(fixed: Tensor, moved: Tensor, weight: Tensor, window: int) -> Tensor:
    """The smooth complex factor (H, W) that fits `moved` to `fixed` best in each window of so many px.

    It contains the ptychographic gauge (scale, phase, ramp) and slow variations. No gradient goes
    through it: at the best factor the misfit does not depend on it to first order. O(H W).
    """
    with torch.no_grad():
        product = fixed * moved.conj()
        parts = (
            torch.stack([product.real, product.imag, squared(moved), torch.ones_like(moved.real)]) * weight
        )
        size = max(2, min(window, *fixed.shape))
        stride, pad = max(1, size // 4), size // 2
        sums = F.avg_pool2d(parts[None], size, stride, pad, count_include_pad=True)[0]
        # a small part of the factor of the whole image, for unlit windows
        sums = sums + 1e-3 * parts.mean((1, 2))[:, None, None]
        cells = torch.stack([sums[0], sums[1]]) / sums[2].clamp_min(1e-30)
        rows, columns = (
            _between(side, count, stride, cells)
            for side, count in zip(fixed.shape, cells.shape[1:], strict=True)
        )
        factor = rows @ cells @ columns.T
        return torch.complex(factor[0], factor[1])


def _between(side: int, count: int, stride: int, like: Tensor) -> Tensor:
    """Linear interpolation (side, count) of pixels from cells that are centred every `stride` px from -1/2
    on."""
    at = ((torch.arange(side) + 0.5) / stride).clamp_max(count - 1)
    hats = (1 - (at[:, None] - torch.arange(count)[None]).abs()).clamp_min(0)
    return hats.to(like)


class View(NamedTuple):
    """Two images of one level in units of the noise; the moving one is warped and multiplied by its local
    factor.

    fixed, moved (H, W) complex; weight (H, W), 0 for ignored pixels; field (H, W, 2) px of the level.
    """

    fixed: Tensor
    moved: Tensor
    weight: Tensor
    field: Tensor


def misfit(view: View) -> Tensor:
    """sqrt(1 + |d|^2) - 1 of each pixel (H, W): d in standard errors (Charbonnier et al. 1994)."""
    return torch.sqrt(1 + squared(view.fixed - view.moved)) - 1


def data_terms(view: View, weights: dict[str, float]) -> dict[str, Tensor]:
    """The terms of two images with non-zero weight, scalars."""
    found: dict[str, Tensor] = {}
    if weights["charbonnier"]:
        error, nothing = _modulus_of_error(view)
        found["charbonnier"] = amplitude_charbonnier(error, nothing, view.weight, 1.0)
    images = view.moved[None, None], view.fixed[None, None]
    if weights["ssim"]:
        reach = view.fixed.abs()
        found["ssim"] = label_ssim(*images, _SSIM_SIGMA_PX, float(reach.max() - reach.min()) or 1.0)
    if weights["edges"]:
        found["edges"] = label_edges(*images, view.weight)
    if weights["orientation"]:
        found["orientation"] = label_orientation(*images, view.weight)
    return found


def _modulus_of_error(view: View) -> tuple[Tensor, Tensor]:
    error = torch.sqrt(squared(view.fixed - view.moved) + 1e-20) * torch.sqrt(view.weight)
    return error, torch.zeros_like(error)


def flow_terms(
    points: Tensor | None, spacing_px: float, max_flow_px: float, pixels: float
) -> dict[str, Tensor]:
    """Priors of control points (2, h, w) px, spacing_px apart, for a misfit that is a mean of so many pixels.

    variation: Rudin, Osher and Fatemi's of the flow as a complex field; magnitude: its square in units of the
    bound; curvature: its second differences, as a Gaussian prior of 1 px at 16 px.
    """
    if points is None:
        return {}
    flow = torch.complex(points[0], points[1])
    share = flow.numel() / max(pixels, 1.0)
    bend = _BEND_PX * (spacing_px / _BEND_AT_PX) ** 2
    return {
        "variation": total_variation(flow) * share,
        "magnitude": squared(flow).mean() / (2 * max_flow_px**2) * share,
        "curvature": smoothness(flow) / (2 * bend**2) * share,
    }
