"""Lightning's trainer for a run: devices, and callbacks in their order. Global flags are put back."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.run.job import Job
from ptycho.run.state import CHECKPOINTS
from ptycho.tracking import Recorder
from ptycho_torch.devices import accumulation, of_this_machine, resolve_accelerator
from ptycho_torch.fit.average import ExponentialAverage
from ptycho_torch.fit.checkpoints import AtomicCheckpoints, BestAndLast, RunStart
from ptycho_torch.fit.finetuning import Finetuning
from ptycho_torch.fit.histograms import Histograms
from ptycho_torch.fit.observing import Observing
from ptycho_torch.fit.stages import Stages
from ptycho_torch.fit.stopping import Health, Patience, Plateau
from ptycho_torch.fit.within_epoch import WithinEpoch
from ptycho_torch.module import PtychoPINN

log = logging.getLogger(__name__)


def make_callbacks(
    job: Job, module: PtychoPINN, observing: Observing, recorder: Recorder | None
) -> list[Callback]:
    """Observers, health, average, plateau, histograms, checkpoints (within epochs; best and last), patience.

    The logs of an epoch are written before its checkpoint, so a killed run may log one again but skips none.
    `logger_backend` 'none' is no metric logger: the text log and the coverage belong to the run's folder.
    """
    config, execution, directory = job.config, job.execution, job.directory
    monitor = execution.checkpoint_monitor_metric
    if monitor not in ("train_loss", "val_loss") and not monitor.startswith(("loss/", "val/")):
        raise ConfigError(
            f"checkpoint_monitor_metric = {monitor!r}: no such metric; use val_loss, train_loss, or a term "
            "such as val/loss/poisson_deviance"
        )
    callbacks: list[Callback] = [observing, Health()]
    if config.ema_decay is not None:
        callbacks.append(ExponentialAverage(config.ema_decay))
    if config.scheduler == "ReduceLROnPlateau":
        callbacks.append(
            Plateau(
                "val_loss",
                factor=config.plateau_factor,
                patience=config.plateau_patience,
                min_lr=config.plateau_min_lr,
            )
        )
    if recorder is not None and "tensorboard" in execution.logger_backend:
        callbacks.append(Histograms(recorder))
    # the objective changes between stages, so that no epoch is the best: the last weights are kept
    staged = config.stages is not None
    kept = directory / CHECKPOINTS if execution.enable_checkpointing and directory is not None else None
    callbacks.append(WithinEpoch(module, kept, execution.checkpoint_every_s))
    if kept is not None and directory is not None:
        callbacks.append(RunStart(directory))
        callbacks.append(
            BestAndLast(
                dirpath=kept,
                filename="last" if staged else "best-{epoch}",
                monitor=None if staged else execution.checkpoint_monitor_metric,
                mode=execution.checkpoint_mode,
                save_top_k=1 if staged else execution.checkpoint_save_top_k,
                save_last=not staged,
                enable_version_counter=False,
            )
        )
    if staged:
        return callbacks
    callbacks.append(
        Patience(
            monitor=execution.checkpoint_monitor_metric,
            mode=execution.checkpoint_mode,
            patience=execution.early_stop_patience,
        )
    )
    return callbacks


def make_trainer(
    config: TrainingConfig,
    execution: PyTorchExecutionConfig,
    callbacks: list[Callback],
    directory: Path | None,
) -> L.Trainer:
    """A Lightning trainer for this run; no global flag is touched, since the CPU path is deterministic.

    Fine-tuning stages among the callbacks come after the configured epochs; declared stages replace them.
    """
    tuning = [one for one in callbacks if isinstance(one, Finetuning)]
    declared = [one for one in callbacks if isinstance(one, Stages)]
    if (tuning or declared) and execution.devices > 1:
        raise ConfigError(f"devices = {execution.devices}: training in stages runs on one device")
    if tuning and declared:
        raise ConfigError("stages beside fine-tuning settings: write the fine-tuning into stages as well")
    epochs = declared[0].epochs if declared else config.nepochs
    accelerator, strategy = resolve_accelerator(execution)
    devices, machines = of_this_machine(execution)
    return L.Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=machines,
        strategy=strategy,
        precision=execution.precision,  # type: ignore[arg-type]
        max_epochs=epochs + sum(one.extra_epochs for one in tuning),
        gradient_clip_val=execution.gradient_clip_val or config.gradient_clip_val,
        gradient_clip_algorithm=config.gradient_clip_algorithm,
        accumulate_grad_batches=accumulation(execution),
        enable_progress_bar=execution.enable_progress_bar,
        enable_model_summary=False,
        enable_checkpointing=execution.enable_checkpointing and directory is not None,
        logger=False,  # an observer logs, the same way for both backends
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        detect_anomaly=config.debug,
        default_root_dir=str(directory) if directory is not None else None,
    )


@contextlib.contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Torch's deterministic kernels for the time of a run on a GPU; the CPU path needs no flag.

    The global flags are put back. Kernels without a deterministic form warn instead of failing.
    """
    if not wanted or not torch.cuda.is_available():
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        torch.backends.cudnn.benchmark = benchmark


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silences Lightning's advice on workers and its tips. Loggers and warning filters are put back."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*logs directory .* exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            # it is: our sampler is told where to go on
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
