"""The running sums of the diagnostics in torch. They stay tensors, so that no step waits for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ptycho.forward.diagnostics import BATCH_SUMS, Switches
from ptycho.forward.seen import Seen
from ptycho.objectives.diagnostics import SUMS, finish
from ptycho.objectives.manifest import Module


class Watch(Switches):
    """The running sums of one pass over the data; `see` every batch, `finish` at its end."""

    def __init__(self, modules: tuple[Module, ...]) -> None:
        super().__init__(modules)
        self._sums: dict[tuple[str, str], Tensor] = {}
        self.reset()

    def reset(self) -> None:
        """Begin a pass."""
        self._sums = {slot: torch.zeros((), dtype=torch.float64) for slot in self._slots}

    def sums(self) -> dict[str, Tensor]:
        """The sums so far, by a name of their own, as a checkpoint within a pass keeps them."""
        return {f"{name}/{key}": value for (name, key), value in self._sums.items()}

    def add(self, known: Mapping[str, Tensor]) -> None:
        """Take back `sums` of a checkpoint."""
        for name, key in self._slots:
            if f"{name}/{key}" in known:
                self._sums[name, key] = known[f"{name}/{key}"].to(torch.float64)

    @torch.no_grad()
    def see(self, seen: Seen) -> None:
        """Add one batch; the graph of the objective is left as it is."""
        for name in self.of_batch():
            self._add(name, lambda name=name: BATCH_SUMS[name](seen))  # type: ignore[misc]

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
        # kept as tensors: reading a number would make a GPU wait at every step
        found = self.attempt(name, lambda: [value.detach().to(torch.float64) for value in sums()])
        if found is None:
            found = [torch.tensor(math.nan, dtype=torch.float64)] * len(SUMS[name])
        for key, value in zip(SUMS[name], found, strict=True):
            self._sums[name, key] = self._sums[name, key].to(value.device) + value

    def finish(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The named values of the pass; `reduce` adds a tensor over all processes and is called by each."""
        if not self._sums:
            return {}
        device = next(iter(self._sums.values())).device
        total = reduce(torch.stack([value.to(device) for value in self._sums.values()])).tolist()
        return finish(self._modules, dict(zip(self._sums, total, strict=True)))
