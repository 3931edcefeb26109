"""Feeds `training.log` from Lightning."""

from __future__ import annotations

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from ptycho.run.training_log import TrainingLog
from ptycho_torch.callbacks.tracking import Row


class TextLog(Callback):
    """Tells the log what the history took down, on rank zero; stands after it."""

    def __init__(self, log: TrainingLog, history: Row) -> None:
        self._log, self._history = log, history

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._log.begin(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._log.epoch(self._history.row, trainer.current_epoch)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._log.end("done", trainer.current_epoch)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if trainer.is_global_zero:
            state = "interrupted" if isinstance(exception, KeyboardInterrupt) else "failed"
            self._log.end(state, trainer.current_epoch)
