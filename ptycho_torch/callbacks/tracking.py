"""Feeds the logs of a run from Lightning: one row an epoch, from the history both backends keep alike."""

from __future__ import annotations

from typing import Protocol

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from ptycho.tracking import Recorder


class Row(Protocol):
    """What has the metrics of the epoch that just ended, on every process."""

    row: dict[str, float]


class Tracking(Callback):
    """Tells the recorder what the history took down; stands after it in the list of callbacks.

    The process of rank zero alone writes. Nothing is reduced here, so the others have nothing to wait for.
    """

    def __init__(self, recorder: Recorder, history: Row) -> None:
        self.recorder, self._history = recorder, history

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.recorder.begin(trainer.current_epoch, trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.recorder.epoch(self._history.row, trainer.global_step - 1, trainer.current_epoch)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.recorder.end("done")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if trainer.is_global_zero:
            self.recorder.end("interrupted" if isinstance(exception, KeyboardInterrupt) else "failed")


def recorder_of(trainer: L.Trainer) -> Recorder | None:
    """The recorder of a run, None where it logs nothing."""
    return next((made.recorder for made in trainer.callbacks if isinstance(made, Tracking)), None)  # type: ignore[attr-defined]
