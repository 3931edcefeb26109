"""Closes the books of the diagnostics after every pass: adds over processes, logs, sounds the alarm."""

from __future__ import annotations

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback

from ptycho.objectives.diagnostics import CollapseAlarm
from ptycho_torch.module import PtychoPINN


class Diagnostics(Callback):
    """Logs `diagnostics/*` and `val/diagnostics/*`; stands before callbacks that read the metrics."""

    def __init__(self) -> None:
        self._alarm: CollapseAlarm | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, PtychoPINN):
            pl_module.watching.reset()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, PtychoPINN):
            pl_module.watching_validation.reset()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, PtychoPINN):
            return
        if trainer.is_global_zero:  # every process has the same probe; one of them counts it
            now = torch.view_as_complex(pl_module.probe.detach()).cpu()
            pl_module.watching.see_probe(now, pl_module.starting_probe.cpu())
        values = self._close(trainer, pl_module, validation=False)
        if self._alarm is None:
            dimmest, N = float(pl_module.gauge[..., 1].min()), pl_module.config.model.N
            self._alarm = CollapseAlarm(pl_module.manifest.diagnostics, dimmest / N**2)
        self._alarm.listen(values)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, PtychoPINN):
            self._close(trainer, pl_module, validation=True)

    def _close(self, trainer: L.Trainer, module: PtychoPINN, *, validation: bool) -> dict[str, float]:
        def add(values: torch.Tensor) -> torch.Tensor:
            total = trainer.strategy.reduce(values.to(module.device), reduce_op="sum")
            assert isinstance(total, torch.Tensor)
            return total.cpu()

        watch = module.watching_validation if validation else module.watching
        values = watch.finish(add)
        prefix = "val/diagnostics/" if validation else "diagnostics/"
        for name, value in values.items():
            if value == value:  # what nothing was seen of is not a number, and not logged
                module.log(f"{prefix}{name}", value, on_step=False, on_epoch=True, sync_dist=False)
        return values
