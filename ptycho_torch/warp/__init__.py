"""A warp fitted to two images: differentiable sampling, losses, the fit in stages, a network that predicts
it."""

from __future__ import annotations

from ptycho_torch.warp.field import WarpField, backward_warp
from ptycho_torch.warp.fit import Registered, register

__all__ = ["Registered", "WarpField", "backward_warp", "register"]
