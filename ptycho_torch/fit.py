"""A training run with Lightning: loaders, module, callbacks and trainer made ready, then fitted."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
from torch.utils.data import DataLoader

from ptycho.objectives.stages import resolve_stages
from ptycho.report.run_panels import RunPanels
from ptycho.run.job import Fitted, Job
from ptycho.run.objective_log import log_run
from ptycho.run.starting_probe import Starts
from ptycho.scan.pattern_store import start_method
from ptycho_torch import finetuning, training
from ptycho_torch import stages as declared_stages
from ptycho_torch.callbacks.panels import ReconstructionPanels
from ptycho_torch.callbacks.report import Report
from ptycho_torch.callbacks.resume import tell_start
from ptycho_torch.callbacks.tracking import recorder_of
from ptycho_torch.data import FixedBatches, GroupBatches, GroupDataset, make_loader
from ptycho_torch.module import PtychoPINN

Loader = DataLoader[dict[str, Any]]


@dataclass
class LightningRun:
    """A training run that is ready to go: clients look at module and trainer before it starts."""

    job: Job
    module: PtychoPINN
    trainer: L.Trainer
    loaders: tuple[Loader, Loader]
    history: training.History


def loaders_of(job: Job) -> tuple[Loader, Loader]:
    """Training and validation loaders; validation is the test scan, or held-out training groups."""
    execution, plan = job.execution, job.plan
    options: dict[str, Any] = {"num_workers": execution.num_workers, "pin_memory": execution.pin_memory}
    if execution.num_workers:
        options["persistent_workers"] = execution.persistent_workers
        options["prefetch_factor"] = execution.prefetch_factor
        options["multiprocessing_context"] = start_method(job.train, job.test)
    trained = GroupDataset(job.train, label_scales=plan.label_scales)
    validated = GroupDataset(plan.validation_set, held_out=plan.held_out, label_scales=plan.label_scales)
    return (
        make_loader(trained, GroupBatches(plan), **options),
        make_loader(validated, FixedBatches(plan.validation), **options),
    )


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's advice about workers and tips is not about this data; loggers and filters are put back."""
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
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def prepare(job: Job, module: PtychoPINN) -> LightningRun:
    """Loaders, callbacks and trainer of a run; nothing is trained yet."""
    config, execution = job.config, job.execution
    loaders = loaders_of(job)
    history = training.History()
    callbacks = training.make_callbacks(config, execution, job.directory, history)
    if module.tuning:
        callbacks.insert(0, finetuning.Finetuning(module.tuning, config.nepochs))
    declared = declared_stages.make_stages(
        resolve_stages(module.config), len(loaders[0]), execution.accum_steps
    )
    if declared is not None:
        callbacks.insert(0, declared)
    panels = RunPanels.asked_for(execution, job.train, job.test, job.directory)
    if panels is not None:  # before the logs, so that they have its numbers and pictures
        callbacks.insert(callbacks.index(history) + 1, ReconstructionPanels(panels, history))
    if job.progress is not None:
        callbacks.append(Report(history, job.progress))
    with quiet_lightning():
        trainer = training.make_trainer(config, execution, callbacks, job.directory)
    return LightningRun(job, module, trainer, loaders, history)


def fit(run: LightningRun, starts: Starts) -> Fitted[PtychoPINN]:
    """Fit a prepared run from these probes; its module has the weights that validated best."""
    job, module, trainer = run.job, run.module, run.trainer
    resume = job.resume
    tell_start(trainer.callbacks, starts, resumes=resume is not None)  # type: ignore[attr-defined]
    module.attach_scans(job.known_scans(starts))
    if resume is not None:
        training.check_checkpoint(resume, module)
    log_run(module.manifest, job.config, job.execution)
    with quiet_lightning(), training.deterministic_algorithms(job.execution.deterministic):
        trainer.fit(
            module,
            *run.loaders,
            ckpt_path=str(resume) if resume else None,
            weights_only=True if resume else None,
        )
        if trainer.interrupted:
            raise KeyboardInterrupt
        training.restore_best(module, trainer)
    module.eval()
    return Fitted(module, run.history.epochs, recorder_of(trainer))
