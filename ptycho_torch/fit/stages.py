"""A run in stages: which parameters move at a step and how fast, set by a Lightning callback.

Which stage a step belongs to follows from the number of optimiser steps alone, so a stage may end within an
epoch and a resume inside any stage is exact. What a stage freezes needs no gradient, so torch's optimisers
leave it and its moments as they are. `ptycho.tf.stages` is the twin.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from torch import nn

from ptycho.networks.parts import PARTS
from ptycho.objectives.stages import Stage, span_at, spans, total_epochs

if TYPE_CHECKING:
    from ptycho_torch.module import PtychoPINN

from ptycho_torch.optimizers import StagedRates, parts

log = logging.getLogger(__name__)


class Freezer:
    """Freezes parts of the model: only the chosen ones get a gradient. Can put everything back."""

    def __init__(self) -> None:
        self._trained: list[tuple[str, nn.Parameter]] = []

    def only(self, module: PtychoPINN, moving: Collection[str]) -> None:
        """Let these parts move."""
        if not self._trained:
            self._trained = [pair for pair in parts(module) if pair[1].requires_grad]
        for part, parameter in self._trained:
            parameter.requires_grad_(part in moving)

    def restore(self) -> None:
        """As it was before the first call."""
        for _, parameter in self._trained:
            parameter.requires_grad_(True)
        self._trained = []


class Stages(Callback):
    """Sets the stage of a module at every step, freezes what stands still in it, ends the run after the last.

    The learning rates are the scheduler's (`rates`), so they are in the checkpoint as any other's.
    """

    def __init__(self, stages: tuple[Stage, ...], steps_per_epoch: int) -> None:
        self.spans = spans(stages, steps_per_epoch)
        self.epochs = total_epochs(stages, steps_per_epoch)
        self.steps = sum(span.length for span in self.spans)
        self.rates = StagedRates(self.spans, steps_per_epoch)
        self._freezer = Freezer()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        module: Any = pl_module
        span = span_at(self.spans, trainer.global_step)
        if module.stage is span.stage:
            return
        moving = [part for part in PARTS if span.stage.trains(part)]
        log.info("stage %r at step %d: %s", span.stage.name, trainer.global_step, ", ".join(moving))
        module.stage = span.stage
        self._freezer.only(module, moving)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self.steps:
            trainer.should_stop = True

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(pl_module)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._end(pl_module)

    def _end(self, module: Any) -> None:
        module.stage = None
        self._freezer.restore()


def make_stages(stages: tuple[Stage, ...], batches_per_epoch: int, accumulate: int) -> Stages | None:
    """The callback of a run with stages, None for others."""
    return Stages(stages, math.ceil(batches_per_epoch / accumulate)) if stages else None
