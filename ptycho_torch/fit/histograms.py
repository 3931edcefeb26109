"""Histograms of weights and gradients, for logs that can show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from ptycho.tracking import Recorder
from ptycho.tracking.histograms import EVERY, Histogram, histogram_of
from ptycho_torch.layers import neutral_name

if TYPE_CHECKING:
    from torch import Tensor


class Histograms(Callback):
    """Every tenth epoch: `weights/NAME`, and `gradients/NAME` of its last step before clipping, by neutral
    names. Stands after the logs, on rank zero. Memory: one tensor at a time."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._gradients: dict[str, Histogram] = {}

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        if trainer.is_global_zero and _due(trainer) and trainer.is_last_batch:
            found = {f"gradients/{n}": p.grad for n, p in _named(pl_module) if p.grad is not None}
            self._gradients = {name: histogram_of(_array(value)) for name, value in found.items()}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and _due(trainer):
            weights = {f"weights/{name}": histogram_of(_array(p)) for name, p in _named(pl_module)}
            self._recorder.histograms({**weights, **self._gradients}, trainer.global_step - 1)


def _due(trainer: L.Trainer) -> bool:
    return (trainer.current_epoch + 1) % EVERY == 0


def _named(module: L.LightningModule) -> list[tuple[str, Tensor]]:
    return [(neutral_name(name.removeprefix("network.")), p) for name, p in module.named_parameters()]


def _array(value: Tensor) -> Any:
    return value.detach().float().cpu().numpy()
