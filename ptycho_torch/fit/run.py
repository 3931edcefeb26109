"""A training run with Lightning: loaders, module, callbacks and trainer made ready, then fitted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
from torch.utils.data import DataLoader

from ptycho.objectives.stages import resolve_stages
from ptycho.run.job import Fitted, Job
from ptycho.run.objective_log import log_run
from ptycho.run.observers import History
from ptycho.run.starting_probe import Starts
from ptycho.scan.pattern_store import start_method
from ptycho.tracking import Recorder, make_recorder
from ptycho_torch.data import FixedBatches, GroupBatches, GroupDataset, make_loader
from ptycho_torch.fit.checkpoints import check_checkpoint, fit_from, tell_start
from ptycho_torch.fit.finetuning import Finetuning
from ptycho_torch.fit.observing import Observing
from ptycho_torch.fit.stages import make_stages
from ptycho_torch.fit.trainer import deterministic_algorithms, make_callbacks, make_trainer, quiet_lightning
from ptycho_torch.module import PtychoPINN
from ptycho_torch.processes import another_ended, is_lost_message

Loader = DataLoader[dict[str, Any]]


@dataclass
class LightningRun:
    """A training run that is ready to go: clients look at module and trainer before it starts."""

    job: Job
    module: PtychoPINN
    trainer: L.Trainer
    loaders: tuple[Loader, Loader]
    history: History
    recorder: Recorder | None


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


def prepare(job: Job, module: PtychoPINN) -> LightningRun:
    """Loaders, callbacks and trainer of a run; nothing is trained yet."""
    config, execution = job.config, job.execution
    loaders = loaders_of(job)
    recorder = make_recorder(config, execution)
    observing = Observing(job, module, recorder)
    callbacks = make_callbacks(job, module, observing, recorder)
    if module.tuning:
        callbacks.insert(0, Finetuning(module.tuning, config.nepochs))
    declared = make_stages(resolve_stages(config), len(loaders[0]), execution.accum_steps)
    if declared is not None:
        module.rates = declared.rates
        callbacks.insert(0, declared)
    with quiet_lightning():
        trainer = make_trainer(config, execution, callbacks, job.directory)
    return LightningRun(job, module, trainer, loaders, observing.history, recorder)


@contextmanager
def naming_the_dead(trainer: L.Trainer) -> Iterator[None]:
    """RunError in one line where a message did not reach another process of the run."""
    try:
        yield
    except RuntimeError as error:
        if trainer.world_size > 1 and is_lost_message(error):
            raise another_ended(trainer.global_rank, trainer.world_size, error) from error
        raise


def fit(run: LightningRun, starts: Starts) -> Fitted[PtychoPINN]:
    """Fit a prepared run from these probes. Its module has the weights with the best validation loss."""
    job, module, trainer = run.job, run.module, run.trainer
    resume = job.resume
    tell_start(trainer.callbacks, starts, resumes=resume is not None)  # type: ignore[attr-defined]
    module.attach_scans(job.known_scans(starts))
    if resume is not None:
        order = run.loaders[0].sampler
        assert isinstance(order, GroupBatches)
        order.go_on_at(*check_checkpoint(resume, module))
    log_run(module.manifest, job.config, job.execution)
    with quiet_lightning(), deterministic_algorithms(job.execution.deterministic), naming_the_dead(trainer):
        fit_from(trainer, module, run.loaders, resume)
    module.eval()
    return Fitted(module, run.history.epochs, run.recorder)
