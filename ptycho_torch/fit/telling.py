"""The callback that passes Lightning's events to the observers of `ptycho.run.observers`."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from ptycho.run.observers import Epoch, History, Observers, outcome_of


class Telling(Callback):
    """Tells observers that a run begins, every epoch, and how it ends; the history is in the checkpoint.

    It must come before the checkpoints. The logs of an epoch are written first, so a killed run may log an
    epoch twice, but never misses one.
    """

    def __init__(self, history: History, observers: Observers) -> None:
        self.history, self._observers = history, observers

    @property
    def state_key(self) -> str:
        """The name under which checkpoints hold the history."""
        return "History"

    def state_dict(self) -> dict[str, Any]:
        return dict(self.history.knowledge())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history.restore(state_dict)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._observers.begin(trainer.current_epoch, trainer.global_step, leads=trainer.is_global_zero)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = Epoch(trainer.current_epoch, row_of(trainer), trainer.global_step)
        self._observers.epoch(epoch, leads=trainer.is_global_zero)
        # if one process wants to stop, all stop
        if trainer.strategy.reduce_boolean_decision(epoch.stop, all=False):
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._observers.end("done", trainer.current_epoch, leads=trainer.is_global_zero)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A resume of a run that was complete trains nothing, and ends here alone."""
        self.on_train_end(trainer, pl_module)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._observers.end(outcome_of(exception), trainer.current_epoch, leads=trainer.is_global_zero)


def row_of(trainer: L.Trainer) -> dict[str, float]:
    """The metrics and learning rates of the epoch that just ended; of several parts the highest rate, and
    each under its own name."""
    row = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if not name.startswith("_") and not name.endswith(("_step", "_epoch"))
    }
    groups = trainer.optimizers[0].param_groups
    row["learning_rate"] = max(float(group["lr"]) for group in groups)
    if len(groups) > 1:
        named = {group.get("name", f"group_{n}"): float(group["lr"]) for n, group in enumerate(groups)}
        row |= {f"learning_rate/{name}": rate for name, rate in named.items()}
    return {**row, "epoch": float(trainer.current_epoch)}
