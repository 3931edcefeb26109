"""Lightning runs that are looked at before they start, and what they left, as clients get it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ptycho.clients.results import training_results
from ptycho.config.config import PyTorchExecutionConfig, TrainingConfig
from ptycho.run.job import Job
from ptycho.workflows.train import TrainingResult, find_starts
from ptycho_torch.fit import run as fit
from ptycho_torch.fit.run import LightningRun
from ptycho_torch.workflows.components import module_of_four


def prepare_lightning_run(
    train: Any,
    test: Any,
    config: TrainingConfig,
    execution: PyTorchExecutionConfig | None = None,
    *,
    module: Any = None,
    progress: Any = None,
) -> LightningRun:
    job = Job.of(train, test, config, execution, progress=progress)
    return fit.prepare(job, module or module_of_four(job.config, job.execution))


def fit_lightning_run(run: LightningRun, *, resume: Path | None = None) -> dict[str, Any]:
    run.job = job = dataclasses.replace(run.job, resume=resume)
    made = fit.fit(run, find_starts(job.train, job.config, job.resume))
    result = TrainingResult(
        made.model, made.history, job.train, job.test, job.config, job.execution, made.recorder
    )
    return training_results(result)
