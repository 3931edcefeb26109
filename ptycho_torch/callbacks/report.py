"""Tells the caller how far a run is."""

from __future__ import annotations

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from ptycho.run.image_quality import shown
from ptycho_torch.callbacks.tracking import Row
from ptycho_torch.training import Progress


class Report(Callback):
    """Calls `progress(epochs done, epochs in all, losses)`; stands after everything that adds to the row."""

    def __init__(self, history: Row, progress: Progress) -> None:
        self._history, self._progress = history, progress

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        row = shown(self._history.row)
        self._progress(trainer.current_epoch + 1, int(trainer.max_epochs or 0), row)
