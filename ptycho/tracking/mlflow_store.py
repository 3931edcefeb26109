"""MLflow: settings, metrics, pictures and the model of a run in a store that compares runs.

Only MLflow's client is used, so its global state (tracking address, active run) is the caller's. The store is
the address given, else `MLFLOW_TRACKING_URI`, else `mlflow.db` and `mlartifacts/` in the run's folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ptycho.errors import MissingDependencyError
from ptycho.io.atomic import atomic_write
from ptycho.tracking.tracker import Tracker

#: experiment in the store, and name of the registered model
EXPERIMENT = MODEL = "ptychopinn"
_MEMORY = "mlflow.json"
_LONGEST = 6000  # characters of a parameter that every store takes
_BATCH = 100
_STATUS = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


def store_of(output_dir: Path, uri: str | None) -> str:
    """The address of the store that a run of this folder logs to."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{output_dir.resolve()}/mlflow.db"


class MlflowTracker(Tracker):
    """One run of the store; `logs/mlflow.json` holds its id, so that a resumed run continues it.

    MLflow cannot delete a logged value. If a run was killed and repeats some epochs, or continues with other
    settings, a new run is started: it copies the values that are still valid and names the earlier run in
    `resumed_from`.
    """

    name = "mlflow"

    def __init__(self, output_dir: Path, run_name: str, uri: str | None) -> None:
        # MLflow's usage statistics stay off unless the user turns them on.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            with _quiet():
                import mlflow
                import mlflow.pyfunc
        except ImportError as error:
            raise MissingDependencyError(
                "--logger mlflow needs the package mlflow: pip install 'ptychopinn[mlflow]'"
            ) from error
        self._mlflow: Any = mlflow
        self._client: Any = None
        self._uri = store_of(output_dir, uri)
        self._folder, self._run_name = output_dir, run_name
        self._memory = output_dir / "logs" / _MEMORY
        self.run_id = ""

    def begin(self, first_epoch: int, first_step: int, params: Mapping[str, Any]) -> None:
        with _quiet():
            self._client = self._mlflow.MlflowClient(tracking_uri=self._uri)
            earlier = self._remembered() if first_epoch else None
            told = {name: str(value)[:_LONGEST] for name, value in params.items()}
            if earlier is not None and self._goes_on(earlier, first_step, told):
                self.run_id = earlier.info.run_id
                self._client.update_run(self.run_id, status="RUNNING")
                return
            self.run_id = self._new_run(earlier, first_epoch)
            self._log_params(told)
            if earlier is not None:
                self._take_over(earlier, first_step)
        with atomic_write(self._memory) as temporary:
            temporary.write_text(json.dumps({"run_id": self.run_id}) + "\n", encoding="utf-8")

    def log_metrics(self, values: Mapping[str, float], step: int, epoch: int) -> None:
        made = [(name, value, step) for name, value in {**values, "epoch": float(epoch)}.items()]
        self._log_points(made, int(time.time() * 1000))

    def log_figure(self, path: Path, step: int) -> None:
        self._client.log_artifact(self.run_id, str(path), "figures")

    def log_artifact(self, path: Path) -> None:
        self._client.log_artifact(self.run_id, str(path))

    def log_model(self, bundle: Path) -> None:
        from ptycho.models.mlflow_folder import save_model

        with _quiet(), tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder) / "model", bundle)
            self._client.log_artifacts(self.run_id, str(Path(folder) / "model"), "model")
            source = f"{self._client.get_run(self.run_id).info.artifact_uri}/model"
            with contextlib.suppress(self._mlflow.exceptions.MlflowException):  # it may be there already
                self._client.create_registered_model(MODEL)
            self._client.create_model_version(MODEL, source, run_id=self.run_id)

    def close(self, state: str) -> None:
        self._client.set_terminated(self.run_id, _STATUS.get(state, "FAILED"))

    def _remembered(self) -> Any:
        """The run that this folder logged to, None where there is none in this store."""
        try:
            run_id = json.loads(self._memory.read_text(encoding="utf-8"))["run_id"]
            return self._client.get_run(str(run_id))
        except (OSError, ValueError, KeyError, TypeError, self._mlflow.exceptions.MlflowException):
            return None

    def _goes_on(self, earlier: Any, first_step: int, params: Mapping[str, str]) -> bool:
        history = self._history(earlier)
        return earlier.data.params == params and all(step < first_step for _, _, step, _ in history)

    def _history(self, run: Any) -> list[tuple[str, float, int, int]]:
        """Every (name, value, step, time) of a run."""
        names = sorted(run.data.metrics)
        return [
            (point.key, point.value, point.step, point.timestamp)
            for name in names
            for point in self._client.get_metric_history(run.info.run_id, name)
        ]

    def _take_over(self, earlier: Any, first_step: int) -> None:
        by_time: dict[int, list[tuple[str, float, int]]] = {}
        for name, value, step, when in self._history(earlier):
            if step < first_step:
                by_time.setdefault(when, []).append((name, value, step))
        for when, points in by_time.items():
            self._log_points(points, when)
        self._client.set_terminated(earlier.info.run_id, "KILLED")

    def _new_run(self, earlier: Any, first_epoch: int) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found is not None else self._new_experiment()
        tags = {"mlflow.source.name": "ptycho train", "mlflow.source.type": "LOCAL"}
        if earlier is not None:
            tags["resumed_from"] = earlier.info.run_id
        if first_epoch:
            tags["resumed_at_epoch"] = str(first_epoch)
        run = self._client.create_run(experiment, run_name=self._run_name, tags=tags)
        return str(run.info.run_id)

    def _new_experiment(self) -> str:
        """A new experiment. For a local database its artifacts lie beside it, not in the working
        directory.
        """
        prefix, place = "sqlite:///", None
        if self._uri.startswith(prefix) and self._uri != prefix:
            database = Path(self._uri.removeprefix(prefix))
            place = (database.resolve().parent / "mlartifacts").as_uri()
        kind = {"mlflow.experimentKind": "custom_model_development"}  # MLflow shows the metric curves first
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=place, tags=kind))

    def _log_params(self, params: Mapping[str, str]) -> None:
        made = [self._mlflow.entities.Param(name, value) for name, value in params.items()]
        for begin in range(0, len(made), _BATCH):
            self._client.log_batch(self.run_id, params=made[begin : begin + _BATCH])

    def _log_points(self, points: list[tuple[str, float, int]], when: int) -> None:
        made = [
            self._mlflow.entities.Metric(name, value, when, step)
            for name, value, step in points
            if not math.isnan(value)  # some stores refuse what is no number
        ]
        for begin in range(0, len(made), _BATCH):
            self._client.log_batch(self.run_id, metrics=made[begin : begin + _BATCH])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence MLflow's messages about its tables and other features; levels and filters are restored."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
