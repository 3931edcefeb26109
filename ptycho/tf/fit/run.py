"""The optimisation of a run: what is refused, which callbacks, and Keras' `fit` in graph mode.

This file knows nothing of probes, and `model.py` knows nothing of epochs. No global state of
TensorFlow or Keras is touched: neither seeds, nor precision policy, nor threads.
"""

from __future__ import annotations

import contextlib
import logging
import math
from pathlib import Path
from typing import Any

import tensorflow as tf

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError, RunError
from ptycho.objectives.stages import resolve_stages, spans, total_epochs
from ptycho.run.job import Fitted, Job
from ptycho.run.objective_log import log_run
from ptycho.run.observers import Report
from ptycho.run.preparation import Grouped, TrainingPlan
from ptycho.run.state import prepare
from ptycho.scan.scan_set import ScanSet
from ptycho.tf.data import ScanSetTensors, training_dataset, validation_dataset
from ptycho.tf.fit.average import ExponentialAverage
from ptycho.tf.fit.checkpoints import Checkpoints, check_belongs, load_model_arrays, read_checkpoint
from ptycho.tf.fit.histograms import Histograms
from ptycho.tf.fit.observing import Observing, Reporting
from ptycho.tf.fit.stateful import Stateful
from ptycho.tf.fit.stopping import EarlyStopping, EndOfStages, Plateau, check_monitor
from ptycho.tf.model import PtychoPINN_Keras
from ptycho.tf.optimizers import Optimizer
from ptycho.tf.stages import StagedOptimizer, parts_of
from ptycho.tracking import Recorder, make_recorder

log = logging.getLogger(__name__)

_PYTORCH = "use --backend pytorch"


def check_execution(config: TrainingConfig, execution: PyTorchExecutionConfig) -> None:
    """Refuse by name what only the other backend does, and warn of settings that change nothing here.

    Raises ConfigError.
    """
    if execution.devices > 1:
        raise ConfigError(
            f"devices = {execution.devices}: the TensorFlow backend trains on one device - set 1, or "
            + _PYTORCH
        )
    if execution.strategy != "auto":
        raise ConfigError(
            f"strategy = {execution.strategy!r}: the TensorFlow backend knows 'auto' only - {_PYTORCH}"
        )
    if execution.checkpoint_every_s is not None:
        raise ConfigError(
            f"checkpoint_every_s = {execution.checkpoint_every_s:g}: the TensorFlow backend writes "
            f"checkpoints after whole epochs only - drop it, or {_PYTORCH}"
        )
    if execution.precision == "16-mixed":
        raise ConfigError(
            "precision = '16-mixed': the TensorFlow backend offers 32-true and bf16-mixed, which needs no "
            f"loss scaling - set one of them or {_PYTORCH}"
        )
    for line in settings_without_effect(execution):
        log.warning("%s", line)


def settings_without_effect(execution: PyTorchExecutionConfig) -> list[str]:
    """One line for every setting that differs from its default and does nothing on TensorFlow."""
    reasons = {
        "pin_memory": "TensorFlow places its own buffers",
        "persistent_workers": "tf.data keeps its threads anyway",
    }
    default = PyTorchExecutionConfig()
    return [
        f"{name} = {getattr(execution, name)}: no effect on the TensorFlow backend: {reason}"
        for name, reason in reasons.items()
        if getattr(execution, name) != getattr(default, name)
    ]


def resolve_device(execution: PyTorchExecutionConfig) -> contextlib.AbstractContextManager[Any]:
    """The device to compute on: the one asked for, or the CPU with a warning where that one is missing."""
    accelerator = execution.accelerator
    if accelerator == "mps":
        raise ConfigError("accelerator = 'mps': the TensorFlow backend knows no Apple GPU - use auto or cpu")
    if accelerator in ("gpu", "cuda") and not tf.config.list_physical_devices("GPU"):
        log.warning("accelerator %s: no CUDA device here, training on the CPU", accelerator)
        accelerator = "cpu"
    if accelerator == "cpu":
        device: contextlib.AbstractContextManager[Any] = tf.device("/CPU:0")
        return device
    return contextlib.nullcontext()


def make_callbacks(
    job: Job,
    model: PtychoPINN_Keras,
    recorder: Recorder | None,
    *,
    steps: int | None = None,
    average: ExponentialAverage | None = None,
) -> list[Any]:
    """In the order of their work: observers, rate, patience, average, checkpoints, progress.

    Logs come before checkpoints: a run that is killed may log an epoch again, but never skips one.
    `steps`: the end of a run in stages, whose last weights are kept, because its objective changes.
    """
    config, execution, directory = job.config, job.execution, job.directory
    terms = [f"{prefix}loss/{name}" for prefix in ("", "val/") for name in model.term_names]
    monitor, mode = execution.checkpoint_monitor_metric, execution.checkpoint_mode
    check_monitor(monitor, ["train_loss", "val_loss", *terms])
    observing = Observing(job, model, recorder)
    history = observing.history
    stateful: list[Stateful] = [observing]
    if config.scheduler == "ReduceLROnPlateau":
        stateful.append(Plateau(history, config))
    if steps is None:
        stateful.append(EarlyStopping(history, monitor, mode, execution.early_stop_patience))
    if average is not None:
        stateful.append(average)
    callbacks: list[Any] = list(stateful)
    if directory is not None and execution.enable_checkpointing:
        callbacks.append(
            Checkpoints(
                history,
                directory / "checkpoints",
                stateful,
                monitor=monitor,
                mode=mode,
                keep=execution.checkpoint_save_top_k if steps is None else 0,
            )
        )
    if average is not None:
        callbacks.append(average.restored)
    if steps is not None:
        callbacks.append(EndOfStages(steps))
    if job.progress is not None:
        callbacks.append(Reporting(history, Report(job.progress, job.epochs)))
    return callbacks


def fit(job: Job, model: PtychoPINN_Keras | None = None) -> Fitted[PtychoPINN_Keras]:
    """Train a model (a new one: None) as a job says; it has the weights with the best validation loss.

    Time linear in groups x epochs; memory: the patterns once more as a tensor, and a few batches.
    """
    config, execution, plan, directory = job.config, job.execution, job.plan, job.directory
    if job.starts is None:
        raise ConfigError("the job has no starting probes: find them first")
    with resolve_device(execution):
        model = model or PtychoPINN_Keras(config, precision=execution.precision)
        model.attach_scans(job.known_scans(job.starts))
        batches = plan.n_batches
        model.steps, epochs, steps = _optimizer(model, config, execution, batches)
        average = None if config.ema_decay is None else ExponentialAverage(config.ema_decay, model.steps)
        recorder = make_recorder(config, execution)
        callbacks = make_callbacks(job, model, recorder, steps=steps, average=average)
        observing = callbacks[0]
        log_run(model.manifest, config, execution)
        first = _resume(job.resume, model, callbacks) if job.resume is not None else 0
        ahead = execution.prefetch_factor * execution.num_workers if execution.prefetch_factor else None
        options: dict[str, Any] = {"workers": execution.num_workers, "ahead": ahead}
        training_scans = ScanSetTensors.of(job.train, label_scales=plan.label_scales)
        if recorder is not None and "tensorboard" in execution.logger_backend:
            callbacks.append(
                Histograms(
                    recorder, lambda epoch: training_scans.batch(*map(tf.constant, plan.epoch(epoch)[-1]))
                )
            )
        judged = _validation_set(training_scans, job.train, plan)
        if directory is not None and execution.enable_checkpointing:
            prepare(directory, job.starts, resumes=job.resume is not None)
        model.compile(optimizer=None, jit_compile=False, run_eagerly=config.debug)
        _fit(
            model,
            observing,
            training_dataset(training_scans, plan, first, epochs, **options),
            epochs=epochs,
            initial_epoch=first,
            steps_per_epoch=batches,
            shuffle=False,
            validation_data=validation_dataset(judged, plan, **options),
            callbacks=callbacks,
            verbose=1 if execution.enable_progress_bar else 0,
        )
        _restore_best(model, callbacks)
    return Fitted(model, observing.history.epochs, recorder)


def _optimizer(
    model: PtychoPINN_Keras, config: TrainingConfig, execution: PyTorchExecutionConfig, batches: int
) -> tuple[Optimizer, int, int | None]:
    """(optimiser, epochs of the run, its steps where stages say how many)."""
    options: dict[str, Any] = {"accumulate": execution.accum_steps, "batches_per_epoch": batches}
    stages = resolve_stages(config)
    rate = execution.learning_rate
    if not stages:
        return Optimizer(model.trained(), config, rate, **options), config.nepochs, None
    per_epoch = math.ceil(batches / execution.accum_steps)
    made = spans(stages, per_epoch)
    staged = StagedOptimizer(model.trained(), parts_of(model), made, config, rate, **options)
    return staged, total_epochs(stages, per_epoch), sum(span.length for span in made)


def _validation_set(training_scans: ScanSetTensors, train: Grouped, plan: TrainingPlan) -> ScanSetTensors:
    """The validation scans as tensors; shares the training scans' where they are the same."""
    if plan.validation_set.containers != ScanSet.of(train).containers:
        return ScanSetTensors.of(plan.validation_set, held_out=plan.held_out, label_scales=plan.label_scales)
    return training_scans.counting(plan.held_out)


def _resume(path: Path, model: PtychoPINN_Keras, callbacks: list[Any]) -> int:
    """Put a checkpoint into model, optimiser and callbacks; the number of the epoch that comes next."""
    arrays, optimizer, known = read_checkpoint(path)
    check_belongs(path, model, arrays, optimizer)
    load_model_arrays(model, arrays)
    model.steps.load_state(optimizer)
    for callback in callbacks:
        if isinstance(callback, Stateful) and callback.name in known:
            callback.restore(known[callback.name])
    return int(known["epoch"])


def _fit(model: PtychoPINN_Keras, observing: Observing, dataset: Any, **options: Any) -> None:
    """Keras' fit; a loss that is no number ends it with the message of both backends."""
    callbacks = options["callbacks"]
    patient = [made for made in callbacks if isinstance(made, EarlyStopping)]
    if options["initial_epoch"] >= options["epochs"] or any(made.over for made in patient):
        observing.on_train_end()
        return
    try:
        with observing.observers.ended_by_exception(lambda: observing.history.length):
            model.fit(dataset, **options)
    except tf.errors.InvalidArgumentError:
        loss, step = float(model.last_loss.numpy()), int(model.steps.iterations.numpy())
        if math.isfinite(loss):
            raise
        epoch = (step - 1) // model.steps.steps_per_epoch
        raise RunError(
            f"training diverged: the loss is {loss} at epoch {epoch}, step {step} - "
            "lower --learning_rate or set --gradient_clip_val 1"
        ) from None


def _restore_best(model: PtychoPINN_Keras, callbacks: list[Any]) -> None:
    """Put the weights of the best checkpoint into the model, if checkpoints were kept and one was best."""
    for callback in callbacks:
        if isinstance(callback, Checkpoints) and callback.best is not None:
            load_model_arrays(model, read_checkpoint(callback.best)[0])
            log.info("weights of the best epoch taken from %s", callback.best)
