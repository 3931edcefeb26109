"""Callbacks that end a run early or lower its learning rate. After a resume they go on where they were."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping

from ptycho.errors import RunError


class Patience(EarlyStopping):
    """Early stopping. A run that it had ended trains no further epoch when it is resumed."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class Plateau(Callback):
    """Lowers the rate when the validation loss stops falling: torch's ReduceLROnPlateau, stepped before the
    checkpoint of the epoch is written. Lightning steps it after, and a resume would lose that step."""

    def __init__(self, monitor: str, **options: Any) -> None:
        self._monitor, self._options = monitor, options
        self._scheduler: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._known: dict[str, Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(trainer.optimizers[0], **self._options)
        if self._known is not None:
            self._scheduler.load_state_dict(self._known)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._scheduler is not None
        self._scheduler.step(float(trainer.callback_metrics[self._monitor]))

    def state_dict(self) -> dict[str, Any]:
        scheduler = self._scheduler
        return scheduler.state_dict() if scheduler is not None else (self._known or {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._known = dict(state_dict) or None


class Health(Callback):
    """Stops a run whose loss is no longer a number, with a message that says so."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if loss is not None and not bool(torch.isfinite(loss)):
            raise RunError(
                f"training diverged: the loss is {loss.item()} at epoch {trainer.current_epoch}, step "
                f"{trainer.global_step} - lower --learning_rate or set --gradient_clip_val 1"
            )
