"""The kinds of log by name, and the ones that a run asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.tracking.recorder import Recorder
from ptycho.tracking.tracker import Tracker


def _csv(output_dir: Path, run_name: str, uri: str | None) -> Tracker:
    from ptycho.tracking.csv_file import CsvTracker

    return CsvTracker(output_dir)


def _tensorboard(output_dir: Path, run_name: str, uri: str | None) -> Tracker:
    from ptycho.tracking.tensorboard import TensorBoardTracker

    return TensorBoardTracker(output_dir)


def _mlflow(output_dir: Path, run_name: str, uri: str | None) -> Tracker:
    from ptycho.tracking.mlflow_store import MlflowTracker

    return MlflowTracker(output_dir, run_name, uri)


KINDS: dict[str, Callable[[Path, str, str | None], Tracker]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
}


def make_trackers(
    names: str | Iterable[str], output_dir: Path, run_name: str | None = None, uri: str | None = None
) -> list[Tracker]:
    """The logs of a run, by name: 'csv,mlflow' or a sequence; 'none' alone is no log. Nothing is opened.

    run_name: how MLflow shows the run; None: the folder's name. uri: MLflow's store; None: see
    `ptycho.tracking.mlflow_store`. Raises ConfigError for an unknown name, MissingDependencyError with the
    install command for a package that is not there.
    """
    wanted = names.split(",") if isinstance(names, str) else list(names)
    wanted = [name for name in dict.fromkeys(map(str.strip, wanted)) if name != "none"]
    for name in wanted:
        if name not in KINDS:
            raise ConfigError(f"--logger {name}: must be one of {', '.join((*KINDS, 'none'))}")
    return [KINDS[name](output_dir, run_name or output_dir.resolve().name, uri) for name in wanted]


def make_recorder(config: TrainingConfig, execution: PyTorchExecutionConfig) -> Recorder | None:
    """The recorder of a run, None where nothing is to be logged or nothing may be written.

    Also the check that comes before long work. Raises as `make_trackers`.
    """
    from ptycho.tracking.parameters import run_parameters

    if config.output_dir in (Path(), None):
        return None
    trackers = make_trackers(
        execution.logger_backend, config.output_dir, execution.run_name, execution.mlflow_uri
    )
    return Recorder(trackers, config.output_dir, run_parameters(config, execution)) if trackers else None
