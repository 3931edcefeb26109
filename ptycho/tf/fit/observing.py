"""The adapter between Keras and the observers of `ptycho.run.observers`."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.backends import predictor_of
from ptycho.forward.seen import explained
from ptycho.image.canvas import Stitched
from ptycho.report.run_panels import Panels, RunPanels
from ptycho.run.batches import Index
from ptycho.run.job import Job
from ptycho.run.observers import Epoch, History, Observers, Report, Throughput, observers_of
from ptycho.run.reconstruction import reconstruct
from ptycho.run.schedules import learning_rate_factor
from ptycho.scan.container import PtychoDataContainer
from ptycho.tf.fit.stateful import Stateful
from ptycho.tf.model import PtychoPINN_Keras
from ptycho.tracking import Recorder

_EVERY_EPOCH = ("Exponential", "WarmupCosine", "OneCycle")


class Observing(Stateful):
    """Tells the observers of a run, and sets the course of the learning rate; stands first.

    The history is in the checkpoints. What an epoch did not see is no entry of its row. Keras tells no
    callback of an exception: `Observers.ended_by_exception` around the fit does.
    """

    name = "history"

    def __init__(self, job: Job, model: PtychoPINN_Keras, recorder: Recorder | None) -> None:
        super().__init__()
        self.history = History()
        self._job = job
        self._throughput = Throughput() if job.execution.log_throughput else None
        panels = RunPanels.asked_for(job.execution, job.train, job.test, job.directory)
        asked = _Asked(model)
        drawn = Panels(panels, asked.explain, asked.image) if panels is not None else None
        self.observers = Observers(observers_of(job, self.history, recorder, drawn, self._throughput))

    def knowledge(self) -> dict[str, Any]:
        return dict(self.history.knowledge())

    def restore(self, known: dict[str, Any]) -> None:
        self.history.restore(known)

    def on_train_begin(self, logs: Any = None) -> None:
        for watch in (self.model.watching, self.model.watching_validation):
            watch.open(self.model.variable_dtype)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.observers.begin(epoch, self._steps())
        self.model.watching.reset()
        self.model.watching_validation.reset()
        self._set_course()
        if self._throughput is not None:
            self._throughput.start()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.watching.look()

    def on_test_begin(self, logs: Any = None) -> None:
        if self._throughput is not None:  # the first epoch holds the time of tracing
            self._throughput.count(self._job.plan.n_groups * self._job.config.model.gridsize**2)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.watching_validation.look()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        steps = self.model.steps
        rates = {"learning_rate": float(steps.learning_rate.numpy())}
        rates |= {f"learning_rate/{part}": rate for part, rate in steps.named_rates().items()}
        row = {**row_of(logs), **self._watched(), **rates, "epoch": float(epoch)}
        now = Epoch(epoch, row, self._steps())
        self.observers.epoch(now)
        self.model.stop_training = self.model.stop_training or now.stop

    def on_train_end(self, logs: Any = None) -> None:
        self.observers.end("done", self.history.length)

    def _steps(self) -> int:
        return int(self.model.steps.iterations.numpy())

    def _set_course(self) -> None:
        steps, config = self.model.steps, self._job.config
        if config.scheduler not in _EVERY_EPOCH:
            steps.begin_epoch(None)
            return
        per_epoch = steps.steps_per_epoch
        total = per_epoch * config.nepochs
        steps.begin_epoch(lambda step: learning_rate_factor(config, config.scheduler, step, per_epoch, total))

    def _watched(self) -> dict[str, float]:
        """The diagnostics of the epoch; what nothing was seen of is left out."""
        model = self.model
        pair = model.probe.numpy()
        model.watching.see_probe(pair[..., 0] + 1j * pair[..., 1], model.starting_probe)
        found = model.watching.finish()
        named = {f"val/diagnostics/{name}": v for name, v in model.watching_validation.finish().items()}
        named |= {f"diagnostics/{name}": value for name, value in found.items()}
        return {name: value for name, value in named.items() if not math.isnan(value)}


class Reporting(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the caller how far the run is; after the checkpoint of the epoch."""

    def __init__(self, history: History, report: Report) -> None:
        super().__init__()
        self._history, self._report = history, report

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._report.epoch(Epoch(epoch, self._history.row, 0))


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


class _Asked:
    """What the panels ask of the model."""

    def __init__(self, model: PtychoPINN_Keras) -> None:
        self._model = model

    def explain(
        self, container: PtychoDataContainer, members: Index, scan: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        x, positions = tf.constant(container.patterns[members]), tf.constant(container.positions_px[members])
        batch = {"x": x, "positions_xy": positions, "region": False, "scan": scan}
        if container.reference is not None:
            batch["reference"] = tf.constant(container.pattern_references(members))
        return explained(self._model, batch)

    def image(self, container: PtychoDataContainer, scan: int) -> Stitched:
        return reconstruct(predictor_of(self._model, scan), container).image
