"""What is watched, in torch: the sums of `ptycho.objectives.diagnostics`, one function a diagnostic."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ptycho.objectives.diagnostics import SUMS, finish, slots
from ptycho.objectives.manifest import Module
from ptycho_torch.objectives import Seen

log = logging.getLogger(__name__)


def _r_factor(seen: Seen) -> tuple[Tensor, ...]:
    counted = seen.counted.to(seen.amplitude.dtype)
    measured = seen.batch["x"]
    return ((seen.amplitude - measured).square() * counted).sum(), (measured.square() * counted).sum()


def _photons(seen: Seen) -> tuple[Tensor, ...]:
    counted = seen.counted.to(seen.amplitude.dtype)
    patterns = seen.batch["counted"].sum()
    return (seen.expected * counted).sum(), (seen.counts * counted).sum(), patterns


def _phase_range(seen: Seen) -> tuple[Tensor, ...]:
    lit = seen.illumination > 0.1 * seen.illumination.max()
    angles = torch.angle(seen.patches)[..., lit]
    return (angles.amax(-1) - angles.amin(-1)).sum(), torch.tensor(angles[..., 0].numel())


def _collapse(seen: Seen) -> tuple[Tensor, ...]:
    lit = seen.illumination > 0.1 * seen.illumination.max()
    field = seen.patches[..., lit]
    modulus = field.abs()
    level = modulus.mean(-1).clamp_min(1e-12)
    spread = modulus.std(-1, correction=0) / level
    about = (field - field.mean(-1, keepdim=True)).abs().square().mean(-1).sqrt() / level
    return spread.sum(), about.sum(), torch.tensor(spread.numel())


_BATCH_SUMS: dict[str, Callable[[Seen], tuple[Tensor, ...]]] = {
    "r_factor": _r_factor,
    "photons": _photons,
    "phase_range": _phase_range,
    "collapse": _collapse,
}


class Watch:
    """The running sums of one pass over the data; `see` every batch, `finish` at its end."""

    def __init__(self, modules: tuple[Module, ...]) -> None:
        self._modules = modules
        self._off: set[str] = set()
        self._sums: dict[tuple[str, str], Tensor] = {}
        self.reset()

    @property
    def names(self) -> set[str]:
        """The diagnostics that are on."""
        return {module.name for module in self._modules}

    def reset(self) -> None:
        """Begin a pass."""
        self._sums = {slot: torch.zeros((), dtype=torch.float64) for slot in slots(self._modules)}

    @torch.no_grad()
    def see(self, seen: Seen) -> None:
        """Add one batch; the graph of the objective is left as it is."""
        for name in self.names & _BATCH_SUMS.keys():
            self._add(name, lambda name=name: _BATCH_SUMS[name](seen))  # type: ignore[misc]

    def see_gradient(self, parameters: Any) -> None:
        """Add the gradient's norm before clipping."""
        if "gradient_norm" in self.names:
            squared = [p.grad.detach().square().sum() for p in parameters if p.grad is not None]
            self._add("gradient_norm", lambda: (torch.stack(squared).sum().sqrt(), torch.tensor(1)))

    @torch.no_grad()
    def see_probe(self, now: Tensor, start: Tensor) -> None:
        """Take the probe's change since the start; at the end of a pass, on one process."""
        if "probe_drift" in self.names:
            self._add("probe_drift", lambda: ((now - start).abs().square().sum(), start.abs().square().sum()))

    def _add(self, name: str, sums: Callable[[], tuple[Tensor, ...]]) -> None:
        if name in self._off:
            return
        try:
            # kept as tensors: reading a number would make a GPU wait at every step
            found = [value.detach().to(torch.float64) for value in sums()]
        except Exception as error:  # a diagnostic must not stop a run, whatever goes wrong in it
            self._off.add(name)
            found = [torch.tensor(math.nan, dtype=torch.float64)] * len(SUMS[name])
            log.warning("diagnostic %s failed and is switched off: %s", name, error)
        for key, value in zip(SUMS[name], found, strict=True):
            self._sums[name, key] = self._sums[name, key].to(value.device) + value

    def finish(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The named values of the pass; `reduce` adds a tensor over all processes and is called by each."""
        if not self._sums:
            return {}
        device = next(iter(self._sums.values())).device
        total = reduce(torch.stack([value.to(device) for value in self._sums.values()])).tolist()
        return finish(self._modules, dict(zip(self._sums, total, strict=True)))
