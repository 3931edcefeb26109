"""Stages after the main epochs: which part of the network trains in which, and how fast.

They follow in the same Lightning run, so that callbacks, checkpoints and resume see one run. See
`ptycho.run.tuning`. They are not the declared stages of `ptycho_torch.fit.stages`.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from ptycho.run.tuning import TuningStage
from ptycho_torch.fit.stages import Freezer

log = logging.getLogger(__name__)


class Finetuning(Callback):
    """Runs the stages after `main_epochs` epochs: freezes, sets learning rates, ends stages early.

    Its state is in the checkpoint, so that a resume goes on inside a stage. What was trainable before is
    trainable again when the run ends.
    """

    def __init__(self, stages: tuple[TuningStage, ...], main_epochs: int) -> None:
        self.stages = stages
        self._ends_main = main_epochs
        self.current = -1
        self._begun = 0
        self._best = math.inf
        self._waited = 0
        self._freezer = Freezer()

    @property
    def extra_epochs(self) -> int:
        """Most epochs that the stages can take."""
        return sum(stage.epochs for stage in self.stages)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch
        if self.current < 0:
            if epoch >= self._ends_main:
                self._enter(0, trainer)
        elif epoch > self._begun and self._is_over(epoch):
            self._enter(self.current + 1, trainer)
        self._freeze(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._freeze(pl_module)  # a resume restores no flags, and within an epoch begins none

    def _freeze(self, module: Any) -> None:
        if self.current >= 0:
            factors = self.stages[self.current].factors
            self._freezer.only(module, [part for part, factor in factors.items() if factor > 0])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # at every step, because the schedulers of the main epochs go on writing theirs
        self._set_rates(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.current < 0:
            return
        self._set_rates(trainer, pl_module)
        value = trainer.callback_metrics.get("val_loss", trainer.callback_metrics.get("train_loss"))
        if value is not None and float(value) < self._best:
            self._best, self._waited = float(value), 0
        else:
            self._waited += 1
        if self.current == len(self.stages) - 1 and self._is_over(trainer.current_epoch + 1):
            trainer.should_stop = True

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._freezer.restore()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._freezer.restore()

    def state_dict(self) -> dict[str, Any]:
        return {
            "current": self.current,
            "begun": self._begun,
            "best": self._best,
            "waited": self._waited,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.current, self._begun = state_dict["current"], state_dict["begun"]
        self._best, self._waited = state_dict["best"], state_dict["waited"]

    def _is_over(self, epoch: int) -> bool:
        stage = self.stages[self.current]
        too_long = stage.patience is not None and self._waited >= stage.patience
        return epoch - self._begun >= stage.epochs or too_long

    def _enter(self, number: int, trainer: L.Trainer) -> None:
        self.current, self._begun = number, trainer.current_epoch
        self._best, self._waited = math.inf, 0
        stage = self.stages[number]
        said = ", ".join(f"{part} {factor:g}" for part, factor in stage.factors.items())
        log.info("stage %r from epoch %d, learning rate times: %s", stage.name, trainer.current_epoch, said)

    def _set_rates(self, trainer: L.Trainer, module: Any) -> None:
        if self.current < 0:
            return
        factors = self.stages[self.current].factors
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = module.learning_rate * factors.get(group["name"], 0.0)
