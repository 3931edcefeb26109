"""Gradient descent by autograd with Adam's step, for any objective of counts and model.

D. Kingma, J. Ba, arXiv:1412.6980 (2014), algorithm 1. The gradient comes from torch's autograd through the
forward model, so a new objective needs no derivation:  m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) |g|^2,
x -= lr s m^ / (sqrt(v^) + eps), with one second moment for the real and imaginary part of a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ptycho_torch.refine.forward import Exit, predict
from ptycho_torch.refine.objectives import ObjectiveInput, PerPixel, named_objective
from ptycho_torch.refine.operators import power
from ptycho_torch.refine.rule import Rule
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.shared import add_up, own
from ptycho_torch.refine.state import RefineState


class Adam(Rule):
    """objective: as for `named_objective`; rate, probe_rate: steps relative to each unknown."""

    name: ClassVar[str] = "adam"
    batch_size: ClassVar[int] = 32

    def __init__(
        self,
        objective: str | PerPixel | Sequence[str | Mapping[str, Any]] = "amplitude",
        rate: float = 0.05,
        probe_rate: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        self.objective = named_objective(objective)
        self.rate, self.probe_rate, self.betas = rate, probe_rate, betas
        self._moments: dict[str, Tensor] = {}

    def start(self, scan: RefineScan, state: RefineState) -> None:
        """Zero moments."""
        for name, field in (("object", state.object), ("probe", state.probe)):
            self._moments[f"{name}.first"] = torch.zeros_like(field)
            self._moments[f"{name}.second"] = torch.zeros_like(field.real)
            self._moments[f"{name}.count"] = torch.zeros((), dtype=torch.float64)

    def step(
        self, scan: RefineScan, state: RefineState, index: Tensor, strength: float, with_probe: bool
    ) -> Exit:
        """One batch: gradient of the objective, one Adam step of object and probe."""
        field = state.object.detach().requires_grad_(True)
        probe = state.probe.detach().requires_grad_(with_probe)
        trial = RefineState(
            state.canvas, field, probe, state.positions_xy, state.intensity, state.background, state.epoch
        )
        with torch.enable_grad():
            part = own(scan, index)
            exit = predict(scan, trial, part)
            loss = self.objective(ObjectiveInput(scan, exit.intensity, part, field)) * (
                len(part) / len(index)
            )
            gradients = torch.autograd.grad(loss, [field, probe] if with_probe else [field])
        add_up(scan, *gradients)
        size = float(power(state.probe).sum(0).max().sqrt())
        state.object = field.detach() - self._adam("object", gradients[0], self.rate * strength)
        if with_probe:
            state.probe = probe.detach() - self._adam(
                "probe", gradients[1], self.probe_rate * size * strength
            )
        for name in ("patches", "probes", "far", "intensity"):
            setattr(exit, name, getattr(exit, name).detach())
        return exit

    def _adam(self, name: str, gradient: Tensor, rate: float) -> Tensor:
        first, second = self._moments[f"{name}.first"], self._moments[f"{name}.second"]
        count = self._moments[f"{name}.count"].add_(1)
        first.lerp_(gradient, 1 - self.betas[0])
        second.lerp_(power(gradient), 1 - self.betas[1])
        unbiased = first / (1 - self.betas[0] ** float(count))
        scale = (second / (1 - self.betas[1] ** float(count))).sqrt()
        return rate * unbiased / (scale + 1e-8 * scale.max().clamp_min(1e-30))

    def tensors(self) -> dict[str, Tensor]:
        """Both moments and the count of each unknown."""
        return dict(self._moments)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the moments back."""
        self._moments = {name: tensor.to(self._moments[name].device) for name, tensor in tensors.items()}
