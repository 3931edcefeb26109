"""The optimisation of a run: what is refused, which callbacks, and Keras' `fit` in graph mode.

Nothing here knows what a probe is; nothing in `model.py` knows what an epoch is. No global state of
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
from ptycho.report.run_panels import RunPanels
from ptycho.run.objective_log import log_run
from ptycho.run.preparation import Grouped, TrainingPlan, plan_training, with_execution
from ptycho.run.starting_probe import Starts
from ptycho.run.state import prepare
from ptycho.run.training_log import TrainingLog
from ptycho.scan.scan_set import ScanSet
from ptycho.tf import callbacks as between
from ptycho.tf.callbacks import Progress
from ptycho.tf.callbacks_average import ExponentialAverage
from ptycho.tf.callbacks_histograms import Histograms
from ptycho.tf.callbacks_run import SamplerCoverage, TextLog, Throughput, text_closed_by_exception
from ptycho.tf.checkpoint import check_belongs, load_model_arrays, read_checkpoint
from ptycho.tf.data import HeldSet, training_dataset, validation_dataset
from ptycho.tf.model import PtychoPINN_Keras
from ptycho.tf.optimizers import Optimizer
from ptycho.tf.panels import ReconstructionPanels
from ptycho.tf.stages import EndOfStages, StagedOptimizer, parts_of
from ptycho.tf.tracking import Tracking, closed_by_exception, recorder_of
from ptycho.tracking import Recorder, make_recorder

log = logging.getLogger(__name__)

__all__ = ["Progress", "check_execution", "resolve_device", "train_with_keras"]

_PYTORCH = "use --backend pytorch"


def check_execution(config: TrainingConfig, execution: PyTorchExecutionConfig) -> None:
    """Refuse by name what only the other backend does, and warn of settings that change nothing here.

    Raises ConfigError, or MissingDependencyError for a logger that is not installed.
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
    if execution.precision == "16-mixed":
        raise ConfigError(
            "precision = '16-mixed': the TensorFlow backend offers 32-true and bf16-mixed, which needs no "
            f"loss scaling - set one of them or {_PYTORCH}"
        )
    make_recorder(config, execution)  # says now which package is missing
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
    """Where to compute: what was asked for if it is there, else the CPU with a word about it."""
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
    config: TrainingConfig,
    execution: PyTorchExecutionConfig,
    directory: Path | None,
    names: tuple[str, ...],
    progress: Progress | None,
    *,
    epochs: int,
    steps: int | None = None,
    average: ExponentialAverage | None = None,
) -> list[Any]:
    """In the order of their work: history, logs, rate, patience, checkpoints, time limit, progress.

    Logs come before checkpoints: a run that is killed may log an epoch again, but never skips one.
    `steps`: the end of a run in stages, whose last weights are kept, because its objective changes.
    """
    terms = [f"{prefix}loss/{name}" for prefix in ("", "val/") for name in names]
    monitor, mode = execution.checkpoint_monitor_metric, execution.checkpoint_mode
    between.check_monitor(monitor, ["train_loss", "val_loss", *terms])
    history = between.History(config)
    stateful: list[between.Stateful] = [history]
    if config.scheduler == "ReduceLROnPlateau":
        stateful.append(between.Plateau(history, config))
    if steps is None:
        stateful.append(between.EarlyStopping(history, monitor, mode, execution.early_stop_patience))
    if average is not None:
        stateful.append(average)
    recorder = make_recorder(config, execution)
    logs: list[Any] = [Tracking(recorder, history)] if recorder is not None else []
    if directory is not None:
        logs.append(TextLog(TrainingLog.of(config, execution), history))
    made: list[Any] = [history, *logs, *stateful[1:]]
    if directory is not None and execution.enable_checkpointing:
        made.append(
            between.Checkpoints(
                history,
                directory / "checkpoints",
                stateful,
                monitor=monitor,
                mode=mode,
                keep=execution.checkpoint_save_top_k if steps is None else 0,
            )
        )
    if average is not None:
        made.append(average.restored)
    if config.max_time_s:
        made.append(between.TimeLimit(config.max_time_s))
    if steps is not None:
        made.append(EndOfStages(steps))
    if progress is not None:
        made.append(between.Report(history, progress, epochs))
    return made


def train_with_keras(
    train_container: Grouped,
    test_container: Grouped | None,
    config: TrainingConfig,
    execution_config: PyTorchExecutionConfig | None = None,
    *,
    starts: Starts,
    resume: Path | None = None,
    progress: Progress | None = None,
) -> tuple[PtychoPINN_Keras, dict[str, list[float]], Recorder | None]:
    """Build the model, fit it, and give back the one that validated best, the history of the run, its logs.

    `resume` is a checkpoint of the same run, continued exactly. Time linear in groups x epochs; memory: the
    patterns once more as a tensor, and a few batches.
    """
    execution = execution_config or PyTorchExecutionConfig()
    config = with_execution(config, execution)
    check_execution(config, execution)
    plan = plan_training(train_container, test_container, config)
    directory = config.output_dir if config.output_dir not in (Path(), None) else None
    with resolve_device(execution):
        model = PtychoPINN_Keras(config, precision=execution.precision)
        containers = ScanSet.of(train_container).containers
        model.attach_scans([start.known(one) for start, one in zip(starts, containers, strict=True)])
        batches = plan.n_batches
        model.steps, epochs, steps = _optimizer(model, config, execution, batches)
        average = None if config.ema_decay is None else ExponentialAverage(config.ema_decay, model.steps)
        made = make_callbacks(
            config, execution, directory, model.term_names, progress,
            epochs=epochs, steps=steps, average=average,
        )  # fmt: skip
        history = made[0]
        log_run(model.manifest, config, execution)
        panels = RunPanels.asked_for(execution, train_container, test_container, directory)
        if panels is not None:  # before the logs, so that they have its numbers and pictures
            made.insert(1, ReconstructionPanels(panels, history))
        if execution.log_throughput:
            made.insert(1, Throughput(plan.n_groups * config.model.gridsize**2, history))
        if directory is not None:  # the picture stands before the logs are closed, so that they show it
            made.insert(1, SamplerCoverage(directory, plan, train_container, history))
        first = _resume(resume, model, made) if resume is not None else 0
        ahead = execution.prefetch_factor * execution.num_workers if execution.prefetch_factor else None
        options: dict[str, Any] = {"workers": execution.num_workers, "ahead": ahead}
        held = HeldSet.of(train_container, label_scales=plan.label_scales)
        recorder = recorder_of(made)
        if recorder is not None and "tensorboard" in execution.logger_backend:
            made.append(
                Histograms(recorder, lambda epoch: held.batch(*map(tf.constant, plan.epoch(epoch)[-1])))
            )
        judged = _validation_set(held, train_container, plan)
        if directory is not None and execution.enable_checkpointing:
            prepare(directory, starts, resumes=resume is not None)
        model.compile(optimizer=None, jit_compile=False, run_eagerly=config.debug)
        _fit(
            model,
            training_dataset(held, plan, first, epochs, **options),
            epochs=epochs,
            initial_epoch=first,
            steps_per_epoch=batches,
            shuffle=False,
            validation_data=validation_dataset(judged, plan, **options),
            callbacks=made,
            verbose=1 if execution.enable_progress_bar else 0,
        )
        _restore_best(model, made)
    return model, history.epochs, recorder


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


def _validation_set(held: HeldSet, train: Grouped, plan: TrainingPlan) -> HeldSet:
    """The validation scans as tensors; shares the training scans' where they are the same."""
    if plan.validation_set.containers != ScanSet.of(train).containers:
        return HeldSet.of(plan.validation_set, held_out=plan.held_out, label_scales=plan.label_scales)
    return held.counting(plan.held_out)


def _resume(path: Path, model: PtychoPINN_Keras, callbacks: list[Any]) -> int:
    """Put a checkpoint into model, optimiser and callbacks; the number of the epoch that comes next."""
    arrays, optimizer, known = read_checkpoint(path)
    check_belongs(path, model, arrays, optimizer)
    load_model_arrays(model, arrays)
    model.steps.load_state(optimizer)
    for callback in callbacks:
        if isinstance(callback, between.Stateful) and callback.name in known:
            callback.restore(known[callback.name])
    return int(known["epoch"])


def _fit(model: PtychoPINN_Keras, dataset: Any, **options: Any) -> None:
    """Keras' fit; a loss that is no number ends it with the message of both backends."""
    callbacks = options["callbacks"]
    patient = [made for made in callbacks if isinstance(made, between.EarlyStopping)]
    if options["initial_epoch"] >= options["epochs"] or any(made.over for made in patient):
        for made in callbacks:
            if isinstance(made, SamplerCoverage):
                made.on_train_end()
        return
    try:
        with closed_by_exception(callbacks), text_closed_by_exception(callbacks):
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
        if isinstance(callback, between.Checkpoints) and callback.best is not None:
            load_model_arrays(model, read_checkpoint(callback.best)[0])
            log.info("weights of the best epoch taken from %s", callback.best)
