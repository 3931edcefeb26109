"""Callbacks that end a run early or lower its learning rate. After a resume they go on where they were."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import keras

from ptycho.config.settings import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.run.observers import History
from ptycho.tf.fit.stateful import Stateful

log = logging.getLogger(__name__)


class Plateau(Stateful):
    """Lowers the rate when the validation loss stops falling: torch's ReduceLROnPlateau (relative 1e-4)."""

    name = "plateau"

    def __init__(self, history: History, config: TrainingConfig) -> None:
        super().__init__()
        self._history, self._config = history, config
        self._best, self._waited = math.inf, 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        value, config = self._history.row["val_loss"], self._config
        better = value < self._best * (1 - 1e-4)
        self._best, self._waited = (value, 0) if better else (self._best, self._waited + 1)
        if self._waited <= config.plateau_patience:
            return
        self._waited = 0
        rate = float(self.model.steps.learning_rate.numpy())
        lower = max(rate * config.plateau_factor, config.plateau_min_lr)
        if rate - lower > 1e-8:
            self.model.steps.learning_rate.assign(lower)

    def knowledge(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited}

    def restore(self, known: dict[str, Any]) -> None:
        self._best, self._waited = known["best"], known["waited"]


class EarlyStopping(Stateful):
    """Ends the run after `patience` epochs without progress, or when the metric is no longer a number."""

    name = "early_stopping"

    def __init__(self, history: History, monitor: str, mode: str, patience: int) -> None:
        super().__init__()
        self._history, self._monitor, self._patience = history, monitor, patience
        self._sign = 1.0 if mode == "min" else -1.0
        self._best, self._waited = math.inf, 0

    @property
    def over(self) -> bool:
        """Whether the patience was spent: a resume of such a run trains nothing."""
        return self._waited >= self._patience

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        value = self._sign * self._history.row[self._monitor]
        if not math.isfinite(value):
            self.model.stop_training = True
            log.info("%s is %s: training ends", self._monitor, self._sign * value)
            return
        better = value < self._best
        self._best, self._waited = (value, 0) if better else (self._best, self._waited + 1)
        if self.over:
            self.model.stop_training = True
            log.info("%s made no progress for %d epochs: training ends", self._monitor, self._waited)

    def knowledge(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited}

    def restore(self, known: dict[str, Any]) -> None:
        self._best, self._waited = known["best"], known["waited"]


class EndOfStages(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends the run after the last stage's last step, inside an epoch if need be."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.steps.iterations.numpy()) >= self._steps:
            self.model.stop_training = True


def check_monitor(monitor: str, known: Sequence[str]) -> None:
    """Refuse a metric that this run does not log."""
    if monitor not in known:
        raise ConfigError(
            f"checkpoint_monitor_metric = {monitor!r}: no such metric; use val_loss, train_loss, or a term "
            f"such as {known[-1]}"
        )
