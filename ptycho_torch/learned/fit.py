"""Trains a learned tool, from its settings to the files that the tool uses."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from ptycho.config.learned import LearnedSettings, check_same_run, plain, write_settings
from ptycho.config.settings import PyTorchExecutionConfig
from ptycho.errors import MissingFileError
from ptycho.io.atomic import atomic_write
from ptycho.report.style import save
from ptycho.run.observers import (
    History,
    Observer,
    Observers,
    Report,
    TextLog,
    Throughput,
    TimeLimit,
    Tracking,
)
from ptycho.run.training_log import TrainingLog
from ptycho.tracking import Recorder, make_trackers
from ptycho_torch.devices import check_devices, resolve_accelerator
from ptycho_torch.fit.average import ExponentialAverage
from ptycho_torch.fit.checkpoints import AtomicCheckpoints, BestAndLast, check_checkpoint, fit_from
from ptycho_torch.fit.histograms import Histograms
from ptycho_torch.fit.stopping import Health, Patience
from ptycho_torch.fit.telling import Telling
from ptycho_torch.fit.trainer import quiet_lightning
from ptycho_torch.learned.module import Learner, loaders
from ptycho_torch.learned.task import Task

log = logging.getLogger(__name__)

#: called with (epochs done, epochs in all, the numbers of the bar)
Progress = Callable[[int, int, dict[str, float]], None]
CONFIG, CHECKPOINTS, LAST, FIGURES = "config.yaml", "checkpoints", "last.ckpt", "figures"


@dataclass(frozen=True)
class Fit:
    """A finished training: its history, the numbers of its best weights (`headline`: those of the progress
    bar), its files."""

    history: dict[str, list[float]]
    best: dict[str, float]
    headline: dict[str, float]
    files: list[Path]


def fit(task: Task[Any], settings: LearnedSettings, progress: Progress | None = None) -> Fit:
    """Train a task and write everything into `settings.output_dir`.

    The folder gets config.yaml, training.log, the metric logs, history.json, checkpoints/ (best and last),
    figures/, metrics.json, and the exports of the task, made from the weights of the best epoch. With
    `resume` an interrupted training continues and ends with the same weights. Memory: the network four times
    (weights, average, Adam), and a batch. Raises ConfigError, MissingFileError before any work.
    """
    folder = settings.output_dir
    module = Learner(task)
    resume = _resumed(task, settings, module)
    execution = PyTorchExecutionConfig(accelerator=settings.accelerator)
    check_devices(execution)
    trackers = make_trackers(settings.logger, folder)
    recorder = Recorder(trackers, folder, plain(settings)) if trackers else None
    history = History()
    write_settings(settings, task.name, folder / CONFIG)
    with quiet_lightning():
        trainer = _trainer(task, settings, execution, history, recorder, progress)
        fit_from(trainer, module, loaders(task), resume)
    module.eval()
    best = {name: float(value) for name, value in task.evaluate(task.network).items()}
    made = [*task.export(task.network, folder)]
    assert {path.name for path in made} <= set(settings.exports), "a new training would leave an old export"
    made.append(_write_json(folder / "history.json", history.epochs))
    made.append(_write_json(folder / "metrics.json", best))
    if recorder is not None:
        recorder.add_outputs()
    headline = {name: best[name] for name in (word.removeprefix("val/") for word in task.bar) if name in best}
    return Fit(history.epochs, best, headline, made)


def _resumed(task: Task[Any], settings: LearnedSettings, module: Learner) -> Path | None:
    """The checkpoint from which a training continues, None for a new one."""
    if not settings.resume:
        return None
    folder = settings.output_dir
    if not (folder / CONFIG).is_file():
        raise MissingFileError(f"resume=true: {folder} holds no training; leave it out")
    check_same_run(settings, task.name, folder / CONFIG)
    last = folder / CHECKPOINTS / LAST
    if not last.is_file():
        log.warning("%s was stopped before its first checkpoint: it starts over", folder)
        return None
    check_checkpoint(last, module)
    return last


def _trainer(
    task: Task[Any],
    settings: LearnedSettings,
    execution: PyTorchExecutionConfig,
    history: History,
    recorder: Recorder | None,
    progress: Progress | None,
) -> L.Trainer:
    accelerator, strategy = resolve_accelerator(execution)
    return L.Trainer(
        accelerator=accelerator,
        devices=1,
        strategy=strategy,
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip_val,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,  # an observer logs
        callbacks=_callbacks(task, settings, history, recorder, progress),
        plugins=[AtomicCheckpoints()],
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        default_root_dir=str(settings.output_dir),
    )


def _callbacks(
    task: Task[Any],
    settings: LearnedSettings,
    history: History,
    recorder: Recorder | None,
    progress: Progress | None,
) -> list[Callback]:
    """Health, rate, pictures, average, observers, histograms, best and last checkpoints, early stopping."""
    about = {"tool": task.name, "seed": settings.seed, "epochs": settings.epochs}
    throughput = Throughput()
    observers: list[Observer] = [
        history, throughput, TextLog(TrainingLog(settings.output_dir, about))
    ]  # fmt: skip
    if recorder is not None:
        observers.append(Tracking(recorder))
    if settings.max_time_s:
        observers.append(TimeLimit(settings.max_time_s))
    if progress is not None:
        chosen = functools.partial(_named, names=task.bar)
        observers.append(Report(progress, settings.epochs, chosen))
    made: list[Callback] = [Health(), Counting(throughput, settings.batch_size)]
    if settings.figures_every:
        made.append(Pictures(task))
    if settings.ema_decay is not None:
        made.append(ExponentialAverage(settings.ema_decay))
    made.append(Telling(history, Observers(observers)))
    if recorder is not None:
        made.append(Histograms(recorder))
    made.append(
        BestAndLast(
            dirpath=settings.output_dir / CHECKPOINTS,
            filename="best-{epoch}",
            monitor=task.monitor,
            mode=task.mode,
            save_last=True,
            enable_version_counter=False,
        )
    )
    # a failed evaluation counts as inf, which must not end the training
    patience = settings.early_stop_patience
    made.append(Patience(monitor=task.monitor, mode=task.mode, patience=patience, check_finite=False))
    return made


class Counting(Callback):
    """Reports the number and time of the trained examples to the rate meter."""

    def __init__(self, throughput: Throughput, batch_size: int) -> None:
        self._throughput, self._batch_size = throughput, batch_size

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._throughput.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._throughput.count(self._batch_size)


class Pictures(Callback):
    """Writes the pictures of a task after its evaluation. It must come before the averaging callback, whose
    weights it shows.
    """

    def __init__(self, task: Task[Any]) -> None:
        self._task = task

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        settings, number = self._task.settings, trainer.current_epoch + 1
        if number % settings.figures_every and number != settings.epochs:
            return
        for name, figure in self._task.shown(self._task.network).items():
            save(figure, settings.output_dir / FIGURES / f"{name}_{number:03d}.png")


def _named(row: dict[str, float], names: Sequence[str]) -> dict[str, float]:
    return {name: row[name] for name in names if name in row}


def _write_json(path: Path, values: Any) -> Path:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path
