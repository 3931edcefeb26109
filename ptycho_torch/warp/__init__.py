"""A warp fitted to two images: differentiable sampling, losses, the fit in stages, a network that predicts it."""

from __future__ import annotations

from ptycho_torch.warp.fit import Registered, register
from ptycho_torch.warp.field import WarpField, backward_warp

__all__ = ["Registered", "WarpField", "backward_warp", "register"]
