"""A training run as a backend takes it: scans, batches, settings, starting probes; and what it left."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.objectives.stages import resolve_stages, total_epochs
from ptycho.run.preparation import Grouped, TrainingPlan, plan_training, with_execution
from ptycho.run.starting_probe import Starts
from ptycho.scan.scan_set import KnownScan, ScanSet
from ptycho.tracking import Recorder

#: called with (epochs done, epochs in all, losses by name)
Progress = Callable[[int, int, dict[str, float]], None]
#: lists by metric name, one entry an epoch
History = dict[str, list[float]]
Model = TypeVar("Model")


@dataclass(frozen=True)
class Job:
    """A run before its first step.

    config: what is trained, with what the execution overrides. plan: batches and validation. starts: the
    probe of every scan; None where it is not known yet. resume: a checkpoint of the same run, continued
    exactly.
    """

    train: Grouped
    test: Grouped | None
    config: TrainingConfig
    execution: PyTorchExecutionConfig
    plan: TrainingPlan
    starts: Starts | None = None
    resume: Path | None = None
    progress: Progress | None = None

    @classmethod
    def of(
        cls,
        train: Grouped,
        test: Grouped | None,
        config: TrainingConfig,
        execution: PyTorchExecutionConfig | None = None,
        *,
        starts: Starts | None = None,
        resume: Path | None = None,
        progress: Progress | None = None,
    ) -> Job:
        """The job of grouped scans. Raises DataError where labels are needed and a scan has none."""
        execution = execution or PyTorchExecutionConfig()
        config = with_execution(config, execution)
        plan = plan_training(train, test, config)
        return cls(train, test, config, execution, plan, starts, resume, progress)

    @property
    def epochs(self) -> int:
        """The largest number of epochs, without the stages that a client adds. A run in stages ends in the
        epoch in which its steps end."""
        stages = resolve_stages(self.config)
        if not stages:
            return self.config.nepochs
        return total_epochs(stages, math.ceil(self.plan.n_batches / self.execution.accum_steps))

    @property
    def directory(self) -> Path | None:
        """The folder of the run; None: nothing is written."""
        return self.config.output_dir if self.config.output_dir not in (Path(), None) else None

    def known_scans(self, starts: Starts) -> list[KnownScan]:
        """What the model knows of every training scan before the first step."""
        containers = ScanSet.of(self.train).containers
        return [start.known(one) for start, one in zip(starts, containers, strict=True)]


@dataclass(frozen=True)
class Fitted(Generic[Model]):
    """The result of a fit: the model with the best validation loss, its history, and its logs (None: it has
    none)."""

    model: Model
    history: History
    recorder: Recorder | None
