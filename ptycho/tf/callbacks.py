"""What happens between epochs, one small callback each, in the order in which `training` lists them.

They share one `Record`: the row of the epoch under the names that both backends log. Whatever must survive an
interruption has `knowledge()` and `restore()`, and goes into the checkpoints.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from ptycho.config.settings import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.objectives.diagnostics import CollapseAlarm
from ptycho.run.history import append_row
from ptycho.run.image_quality import shown
from ptycho.run.schedules import learning_rate_factor
from ptycho.tf.checkpoint import SUFFIX, write_checkpoint

log = logging.getLogger(__name__)

#: called with (epochs done, epochs in all, losses by name)
Progress = Callable[[int, int, dict[str, float]], None]
_EVERY_EPOCH = ("Exponential", "WarmupCosine", "OneCycle")


class Stateful(keras.callbacks.Callback):  # type: ignore[misc]
    """A callback whose knowledge goes into the checkpoints."""

    name = ""

    def knowledge(self) -> dict[str, Any]:
        """Plain values."""
        return {}

    def restore(self, known: dict[str, Any]) -> None:
        """Take back what `knowledge` gave."""


def row_of(logs: dict[str, Any]) -> dict[str, float]:
    """Keras' logs of an epoch under the names both backends use: validation first, then training.

    A term that no step of the epoch computed is left out.
    """
    row: dict[str, float] = {}
    for name, value in logs.items():
        if name.startswith("val_loss/") and not math.isnan(value):
            row[f"val/loss/{name.removeprefix('val_loss/')}"] = float(value)
    if "val_loss" in logs:
        row["val_loss"] = float(logs["val_loss"])
    for name, value in logs.items():
        if name.startswith("loss/") and not math.isnan(value):
            row[name] = float(value)
    row["train_loss"] = float(logs["train_loss"])
    return row


class History(Stateful):
    """Every epoch's metrics and learning rates, as plain numbers; sets the course of the learning rate.

    `row` is the epoch's, for the callbacks after this one; what the epoch did not see is no entry of it.
    """

    name = "history"

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__()
        self.epochs: dict[str, list[float]] = {}
        self.row: dict[str, float] = {}
        self._config = config
        self._alarm: CollapseAlarm | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        steps, config = self.model.steps, self._config
        self.model.watching.reset()
        self.model.watching_validation.reset()
        if config.scheduler not in _EVERY_EPOCH:
            steps.begin_epoch(None)
            return
        per_epoch = steps.steps_per_epoch
        total = per_epoch * config.nepochs
        steps.begin_epoch(lambda step: learning_rate_factor(config, config.scheduler, step, per_epoch, total))

    def on_train_begin(self, logs: Any = None) -> None:
        for watch in (self.model.watching, self.model.watching_validation):
            watch.open(self.model.variable_dtype)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.watching.look()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.watching_validation.look()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        steps = self.model.steps
        rates = {"learning_rate": float(steps.learning_rate.numpy())}
        rates |= {f"learning_rate/{part}": rate for part, rate in steps.named_rates().items()}
        self.row = {**row_of(logs), **self._watched(), **rates, "epoch": float(epoch)}
        append_row(self.epochs, self.row)

    def _watched(self) -> dict[str, float]:
        """The diagnostics of the epoch; what nothing was seen of is left out. Sounds the alarm."""
        model = self.model
        pair = model.probe.numpy()
        model.watching.see_probe(pair[..., 0] + 1j * pair[..., 1], model.starting_probe)
        found = model.watching.finish()
        if self._alarm is None:
            dimmest = min(scan.nphotons for scan in model.scans)
            self._alarm = CollapseAlarm(model.manifest.diagnostics, dimmest / model.config.model.N**2)
        self._alarm.listen(found)
        named = {f"val/diagnostics/{name}": v for name, v in model.watching_validation.finish().items()}
        named |= {f"diagnostics/{name}": value for name, value in found.items()}
        return {name: value for name, value in named.items() if not math.isnan(value)}

    def knowledge(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def restore(self, known: dict[str, Any]) -> None:
        self.epochs = {name: list(values) for name, values in known["epochs"].items()}


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


class Checkpoints(Stateful):
    """After every epoch `last.safetensors`, and the `keep` best as `best-epoch=N.safetensors` (-1: all)."""

    name = "checkpoints"

    def __init__(
        self,
        history: History,
        folder: Path,
        others: Sequence[Stateful],
        *,
        monitor: str,
        mode: str,
        keep: int,
    ) -> None:
        super().__init__()
        self._history, self._folder, self._others = history, folder, tuple(others)
        self._monitor, self._keep = monitor, keep
        self._sign = 1.0 if mode == "min" else -1.0
        self.kept: dict[str, float] = {}

    @property
    def best(self) -> Path | None:
        """The best checkpoint kept, or None."""
        name = min(self.kept, key=lambda n: self._sign * self.kept[n], default=None)
        return None if name is None else self._folder / name

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        value = self._history.row[self._monitor]
        worst = max(self.kept, key=lambda n: self._sign * self.kept[n], default=None)
        full = self._keep >= 0 and len(self.kept) >= self._keep
        beats = worst is None or self._sign * value < self._sign * self.kept[worst]
        name, dropped = f"best-epoch={epoch}{SUFFIX}", None
        wanted = self._keep != 0 and (beats if full else True)
        if wanted:
            self.kept[name] = value
            if full and worst is not None:
                dropped = worst
                del self.kept[worst]
        known: dict[str, Any] = {other.name: other.knowledge() for other in (*self._others, self)}
        known["epoch"] = epoch + 1
        for path in ([self._folder / name] if wanted else []) + [self._folder / f"last{SUFFIX}"]:
            write_checkpoint(path, self.model, known)
        if dropped is not None:
            (self._folder / dropped).unlink(missing_ok=True)

    def knowledge(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def restore(self, known: dict[str, Any]) -> None:
        self.kept = {name: value for name, value in known["kept"].items() if (self._folder / name).is_file()}


class TimeLimit(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends training after so many seconds, at the end of an epoch."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._end = time.monotonic() + seconds

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if time.monotonic() > self._end:
            self.model.stop_training = True
            log.info("time limit reached after epoch %d", epoch)


class Report(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the caller how far the run is; last, so that what it may raise finds everything written."""

    def __init__(self, history: History, progress: Progress, epochs: int) -> None:
        super().__init__()
        self._history, self._progress, self._epochs = history, progress, epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._progress(epoch + 1, self._epochs, shown(self._history.row))


def check_monitor(monitor: str, known: Sequence[str]) -> None:
    """Refuse a metric that this run does not log."""
    if monitor not in known:
        raise ConfigError(
            f"checkpoint_monitor_metric = {monitor!r}: no such metric; use val_loss, train_loss, or a term "
            f"such as {known[-1]}"
        )
