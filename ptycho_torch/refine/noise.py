"""Noise models: the factor f for which `wave * f` is the change of the far wave that fits the data.

All three agree to first order if model and data are close; they differ for few photons.
With r = (n + floor) / (I + floor), n the counts and I the model's counts:
  amplitude  f = sqrt(r) - 1              Gaussian noise on sqrt(counts); projects onto the measured modulus
  poisson    f = (r - 1) / 2              score of the Poisson likelihood, in the amplitude's curvature
  bounded    the score where the model is too bright, the projection where it is too dark
The plain score is unbounded if a pixel with almost no model intensity has a photon. The plain projection
reduces pixels without photons too much. `bounded` has neither fault and is the default of the solvers.
(Thibault & Guizar-Sicairos, New J. Phys. 14, 063004 (2012); Odstrcil et al., Opt. Express 26, 3108 (2018).)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ptycho.errors import ConfigError

NOISES = ("bounded", "poisson", "amplitude")


def check_noise(noise: str) -> str:
    """The name itself, or ConfigError naming the known ones."""
    if noise not in NOISES:
        raise ConfigError(f"noise model '{noise}' is unknown; use one of {', '.join(NOISES)}")
    return noise


def factor(noise: str, counts: Tensor, model: Tensor, floor: float, good: Tensor | None = None) -> Tensor:
    """f of the module docstring for counts and model (B, N, N); zero where `good` is zero."""
    ratio = (counts + floor) / (model + floor)
    if noise == "amplitude":
        change = ratio.sqrt_().sub_(1)
    elif noise == "poisson":
        change = ratio.sub_(1).mul_(0.5)
    else:
        change = ratio.clamp_max(1).mul_(0.5).add_(ratio.clamp_min_(1).sqrt_()).sub_(1.5)
    return change if good is None else change.mul_(good)


def misfit(counts: Tensor, model: Tensor, good: Tensor | None = None) -> Tensor:
    """Per pattern sum (sqrt(model) - sqrt(counts))^2, the numerator of R^2, (B,) float64."""
    difference = _root(model) - _root(counts)
    squared = difference * difference if good is None else difference * difference * good
    return squared.sum((-2, -1)).to(torch.float64)


def _root(values: Tensor) -> Tensor:
    """Square root; torch's own takes ten times as long on the CPU where many counts are zero."""
    if values.device.type != "cpu" or values.requires_grad:
        return values.sqrt()
    return torch.from_numpy(np.sqrt(values.numpy()))
