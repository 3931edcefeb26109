"""One training of a network that ships: falling rate, moving average, state on disk.

The two commands (`train.py`, `prior_train.py`) differ in what a step is.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ptycho.io.atomic import atomic_write


class Course:
    """Network, its moving average, AdamW; the rate falls as a cosine over `seconds` of CPU time.

    rate: the largest; last: the last over the largest; warm: steps in which it rises from zero; decay: of the
    average; norm: the largest norm of a gradient.
    """

    def __init__(
        self, network: nn.Module, seconds: float, seed: int, *, rate: float, last: float, warm: int,
        decay: float, norm: float,
    ) -> None:  # fmt: skip
        self.network, self.average = network, copy.deepcopy(network)
        self.seconds, self.seed = seconds, seed
        self.optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=1e-3)
        self.step, self.spent_s = 0, 0.0
        self._rate, self._last, self._warm, self._decay, self._norm = rate, last, warm, decay, norm

    def begin_step(self) -> None:
        """Set the rate of this step, and gradients to none."""
        done = min(1.0, self.spent_s / self.seconds)
        course = self._last + (1 - self._last) * 0.5 * (1 + math.cos(math.pi * done))
        self.optimizer.param_groups[0]["lr"] = self._rate * course * min(1.0, (self.step + 1) / self._warm)
        self.optimizer.zero_grad(set_to_none=True)

    def end_step(self, *, usable: bool = True) -> None:
        """Move the weights by the gradients, unless they are not finite or not `usable`; then the average."""
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self._norm)
        if usable and math.isfinite(float(norm)):
            self.optimizer.step()
        keep = min(self._decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1 - keep)
        self.step += 1

    def save(self, path: Path) -> None:
        """Everything that a later run needs, as tensors and numbers."""
        held = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "numbers": {"step": self.step, "spent_s": self.spent_s, "seed": self.seed},
        }
        with atomic_write(path) as temporary:
            torch.save(held, temporary)

    def load(self, path: Path) -> None:
        """Continue from `save`."""
        held: dict[str, Any] = torch.load(path, weights_only=True)
        self.network.load_state_dict(held["network"])
        self.average.load_state_dict(held["average"])
        self.optimizer.load_state_dict(held["optimizer"])
        self.step, self.spent_s = held["numbers"]["step"], held["numbers"]["spent_s"]
