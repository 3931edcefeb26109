"""Training: from scans and settings to the model with the best validation loss. The same for both
backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from ptycho import backends
from ptycho.backends import Network
from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.run.job import History, Job, Progress
from ptycho.run.preparation import Grouped, Scan, Scans, train_and_test
from ptycho.run.starting_probe import Starts, starting_probes
from ptycho.run.state import kept_starts
from ptycho.run.validation import validate_training_config
from ptycho.scan.pattern_store import keep_patterns
from ptycho.tracking import Recorder, make_recorder
from ptycho.workflows.references import with_references, with_start

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves.

    model: the one with the best validation loss. history: lists by metric name. train, test: the grouped
    scans. config: with what the execution overrode. recorder: the logs of the run; None: it has none.
    """

    model: Network
    history: History
    train: Grouped
    test: Grouped | None
    config: TrainingConfig
    execution: PyTorchExecutionConfig
    recorder: Recorder | None

    def plot(self) -> Figure:
        """Losses over epochs as a matplotlib Figure."""
        from ptycho.report.showing import draw_history

        return draw_history(self.history)

    def _repr_html_(self) -> str:
        from ptycho.report.showing import model_html

        return model_html(self.config, history=self.history)


class Options(TypedDict, total=False):
    """How a run goes on, and whom it tells.

    resume: a checkpoint of the same run. progress, probe_progress: told of epochs and of the sweeps that
    refine the starting probe.
    """

    resume: Path | None
    progress: Progress | None
    probe_progress: Callable[[int, int], None] | None


def train(
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    execution: PyTorchExecutionConfig | None = None,
    **options: Unpack[Options],
) -> TrainingResult:
    """Train on one scan, or on a list of them, each with a probe and scale of its own.

    `config.backend` says which library runs the network. Everything that can be wrong with configuration and
    data is found before the first step. Time linear in groups x epochs; memory: the containers and a few
    batches (TensorFlow: the patterns once more).
    """
    job = prepare(train_data, test_data, config, execution, **options)
    return fit(job, _start(job) if options.get("resume") is None else None)


def _start(job: Job) -> Network | None:
    """A model with the weights to start from; None: a new one."""
    weights = with_start(job.config)[1]
    if weights is None:
        return None
    backend = backends.find(job.config.backend)
    model: Network = backend.build(job.config, job.execution)
    backend.load_weights(model, weights)
    return model


def prepare(
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    execution: PyTorchExecutionConfig | None = None,
    **options: Unpack[Options],
) -> Job:
    """Everything before the first step: settings checked, scans grouped, starting probes found."""
    execution = execution or PyTorchExecutionConfig()
    backend = backends.find(config.backend)
    validate_training_config(config, require_files=False)
    backend.check(config, execution, options.get("resume"))
    make_recorder(config, execution)  # says now which package is missing
    train_data, test_data = keep_patterns((train_data, test_data), execution, config.output_dir)
    config, weights = with_start(config)
    grouped, test = train_and_test(train_data, test_data, config)
    resume, progress = options.get("resume"), options.get("progress")
    starts = find_starts(grouped, config, resume, options.get("probe_progress"))
    grouped, test = with_references(grouped, test, starts, config, weights)
    return Job.of(grouped, test, config, execution, starts=starts, resume=resume, progress=progress)


def find_starts(
    grouped: Grouped,
    config: TrainingConfig,
    resume: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Starts:
    """The probe that each scan starts from. For a resumed run they are read beside its checkpoint."""
    kept = kept_starts(resume) if resume is not None else None
    return kept or starting_probes(grouped, config, backends.refined_modes, progress)


def fit(job: Job, model: Network | None = None) -> TrainingResult:
    """Train a model (a new one: None) as the job says."""
    fitted = backends.find(job.config.backend).fit(job, model)
    return TrainingResult(
        fitted.model, fitted.history, job.train, job.test, job.config, job.execution, fitted.recorder
    )
