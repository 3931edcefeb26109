"""The logs of a run without a backend: what each keeps, how it goes on after a kill, which names pass."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError, MissingDependencyError, RunError
from ptycho.objectives.manifest import resolve
from ptycho.report.figures import history_figure
from ptycho.tracking import Recorder, Tracker, make_recorder, make_trackers
from ptycho.tracking.names import in_contract, public
from ptycho.tracking.parameters import run_parameters

tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def told(folder: Path, epochs: range, names: str = "csv", *, end: str | None = "done") -> Recorder:
    """A recorder that was told of these epochs, two steps each; the value says the epoch."""
    recorder = Recorder(make_trackers(names, folder), folder, {"seed": 3, "train_data_file": None})
    recorder.begin(epochs.start, 2 * epochs.start)
    for epoch in epochs:
        values = {"train_loss": epoch + 0.25, "val_loss": 1 / (epoch + 1), "epoch": float(epoch)}
        recorder.epoch(values, 2 * epoch + 1, epoch)
    if end is not None:
        recorder.end(end)
    return recorder


def test_csv_holds_one_row_an_epoch_and_the_settings(tmp_path):
    told(tmp_path, range(3))
    assert [row["epoch"] for row in rows(tmp_path)] == ["0", "1", "2"]
    assert [row["step"] for row in rows(tmp_path)] == ["1", "3", "5"]
    assert [float(row["val_loss"]) for row in rows(tmp_path)] == [1.0, 0.5, 1 / 3]
    assert list(rows(tmp_path)[0]) == ["epoch", "step", "train_loss", "val_loss"]
    settings = yaml.safe_load((tmp_path / "logs" / "hparams.yaml").read_text())
    assert settings == {"seed": 3, "train_data_file": None}


def test_csv_is_on_disk_after_every_epoch(tmp_path):
    told(tmp_path, range(2), end=None)
    assert len(rows(tmp_path)) == 2


def test_csv_takes_a_metric_that_appears_later_and_one_that_goes(tmp_path):
    recorder = Recorder(make_trackers("csv", tmp_path), tmp_path, {})
    recorder.begin(0, 0)
    recorder.epoch({"train_loss": 2.0, "loss/poisson_nll": 2.0}, 0, 0)
    recorder.epoch({"train_loss": 1.0, "loss/amplitude_mae": 1.0}, 1, 1)
    first, second = rows(tmp_path)
    assert (first["loss/amplitude_mae"], second["loss/amplitude_mae"]) == ("", "1.0")
    assert (first["loss/poisson_nll"], second["loss/poisson_nll"]) == ("2.0", "")


@pytest.mark.parametrize("names", ["csv", pytest.param("tensorboard", marks=tensorboard)])
def test_a_killed_run_goes_on_without_gaps_or_doubles(names, tmp_path):
    told(tmp_path / "whole", range(6), names)
    told(tmp_path / "cut", range(4), names, end=None)  # killed: the checkpoint is that of two epochs
    told(tmp_path / "cut", range(2, 6), names)
    if names == "csv":
        assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
        assert not list((tmp_path / "cut" / "logs").glob("metrics.*.csv"))
    else:
        assert scalars(tmp_path / "cut" / "logs") == scalars(tmp_path / "whole" / "logs")
        assert len(list((tmp_path / "cut" / "logs").glob("events*"))) == 1


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path):
    told(tmp_path, range(3), end=None)
    path = tmp_path / "logs" / "metrics.csv"
    path.write_text(path.read_text()[:-7])
    told(tmp_path, range(2, 4))
    assert [row["epoch"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]
    assert [float(row["train_loss"]) for row in rows(tmp_path)] == [0.25, 1.25, 2.25, 3.25]


@pytest.mark.parametrize("names", ["csv", pytest.param("tensorboard", marks=tensorboard)])
def test_the_log_of_an_earlier_run_is_kept_beside_the_new_one(names, tmp_path):
    told(tmp_path, range(3), names)
    told(tmp_path, range(1), names)
    logs = tmp_path / "logs"
    if names == "csv":
        assert len(rows(tmp_path)) == 1
        assert len((logs / "metrics.1.csv").read_text().splitlines()) == 4
    else:
        assert len(scalars(logs)["train_loss"]) == 1
        assert len(scalars(logs / "earlier.1")["train_loss"]) == 3


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag, read by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                array = tensor_util.make_ndarray(value.tensor)
                if array.dtype.kind == "f":
                    found.setdefault(value.tag, []).append((event.step, float(array.reshape(-1)[0])))
    return found


@tensorboard
def test_tensorboard_reads_metrics_figures_and_settings(tmp_path):
    (tmp_path / "figures").mkdir()
    recorder = told(tmp_path, range(2), "tensorboard", end=None)
    history_figure(tmp_path / "figures" / "patterns_0002.png", {"train_loss": [2.0, 1.0]})
    recorder.end("done")
    assert scalars(tmp_path / "logs")["train_loss"] == [(1, 0.25), (3, 1.25)]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(tmp_path / "logs"), size_guidance={"tensors": 0, "images": 0})
    seen.Reload()
    tags = seen.Tags()
    assert "figures/patterns" in tags["images"]
    assert seen.Images("figures/patterns")[0].width > 100
    assert "settings" in tags["tensors"]
    assert b"| seed | 3 |" in seen.Tensors("settings")[0].tensor_proto.string_val[0]


@tensorboard
def test_tensorboard_needs_no_backend(tmp_path):
    code = (
        "import sys; from pathlib import Path; from ptycho.tracking import Recorder, make_trackers; "
        "r = Recorder(make_trackers('csv,tensorboard', Path('run')), Path('run'), {}); r.begin(0, 0); "
        "r.epoch({'loss': 1.0}, 0, 0); r.end('done'); "
        "print(sorted({'torch', 'tensorflow', 'mlflow', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_helpers_never_reach_a_tracker(tmp_path):
    values = {"train_loss": np.float32(1), "_seconds": 2.0, "loss/_sum": 3.0, "val/_x/y": 4.0, "epoch": 0.0}
    assert public(values) == {"train_loss": 1.0}
    recorder = Recorder(make_trackers("csv", tmp_path), tmp_path, {})
    recorder.begin(0, 0)
    recorder.epoch(values, 0, 0)
    assert set(rows(tmp_path)[0]) == {"epoch", "step", "train_loss"}


@pytest.mark.parametrize(
    "name, fits",
    [
        ("loss/poisson_nll", True), ("val/loss/poisson_nll", True), ("diagnostics/r_factor", True),
        ("val/diagnostics/r_factor", True), ("train_loss", True), ("val_loss", True),
        ("learning_rate", True), ("loss/_sum", False), ("_loss", False), ("Loss/x", False),
        ("diagnostics/val/x", True), ("val/learning_rate", False), ("loss", False),
    ],
)  # fmt: skip
def test_the_contract_of_names(name, fits):
    assert in_contract(name) == fits


def test_parameters_are_flat_and_say_what_is_minimised():
    flat = run_parameters(TrainingConfig(model=ModelConfig(N=128)), PyTorchExecutionConfig())
    assert (flat["model.N"], flat["batch_size"], flat["execution.learning_rate"]) == (128, 16, 1e-3)
    assert flat["train_data_file"] is None and flat["output_dir"] == "training_outputs"
    assert flat["objectives_checksum"] == resolve(TrainingConfig()).checksum
    assert json.loads(flat["objectives"]) == resolve(TrainingConfig()).as_dict()["objectives"]
    declared = TrainingConfig(model=ModelConfig(N=128), objectives=[{"name": "poisson_nll"}])
    assert run_parameters(declared, PyTorchExecutionConfig())["objectives"] == flat["objectives"]


def test_an_address_with_a_password_is_no_parameter():
    secret = PyTorchExecutionConfig(mlflow_uri="postgresql://me:secret@host/db")
    assert "secret" not in str(run_parameters(TrainingConfig(), secret))


class Broken(Tracker):
    """Fails at one call."""

    name = "broken"

    def __init__(self, when: str) -> None:
        self.when, self.calls = when, []

    def begin(self, first_epoch, first_step, params):
        self.calls.append("begin")
        if self.when == "begin":
            raise OSError("no route\nto host")

    def log_metrics(self, values, step, epoch):
        self.calls.append("log_metrics")
        if self.when == "log_metrics":
            raise OSError("connection lost")


def test_a_log_that_fails_is_warned_of_once_and_the_others_go_on(tmp_path, caplog):
    broken = Broken("log_metrics")
    recorder = Recorder([broken, *make_trackers("csv", tmp_path)], tmp_path, {})
    recorder.begin(0, 0)
    for epoch in range(3):
        recorder.epoch({"train_loss": 1.0}, epoch, epoch)
    assert broken.calls == ["begin", "log_metrics"]
    assert len(rows(tmp_path)) == 3
    warned = [record.getMessage() for record in caplog.records]
    assert warned == ["--logger broken failed and is switched off: OSError: connection lost"]


def test_a_log_that_cannot_begin_ends_the_run_with_one_line(tmp_path):
    with pytest.raises(RunError, match=r"--logger broken: cannot begin \(OSError: no route to host\)"):
        Recorder([Broken("begin")], tmp_path, {}).begin(0, 0)


def test_nothing_is_written_before_a_run_begins(tmp_path):
    make_trackers("csv", tmp_path / "run")
    recorder = make_recorder(TrainingConfig(output_dir=tmp_path / "run"), PyTorchExecutionConfig())
    recorder.epoch({"train_loss": 1.0}, 0, 0)
    recorder.end("done")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "given, stored",
    [
        ("csv", "csv"), ("none", "none"), ("csv,mlflow", "csv,mlflow"), ("mlflow, csv,mlflow", "mlflow,csv"),
        (["tensorboard", "csv"], "tensorboard,csv"),
    ],
)  # fmt: skip
def test_several_loggers_are_given_as_a_list_or_by_commas(given, stored):
    assert PyTorchExecutionConfig(logger_backend=given).logger_backend == stored


@pytest.mark.parametrize(
    "given, message",
    [
        ("cvs", "must be one of 'csv', 'tensorboard', 'mlflow', 'none', or several joined by commas"),
        ("csv,", "or several joined by commas"),
        (["csv", 3], "or several joined by commas"),
        ("csv,none", "logger_backend = 'csv,none': 'none' stands alone: drop it or the others"),
    ],
)
def test_a_wrong_logger_is_refused(given, message):
    with pytest.raises(ConfigError) as error:
        PyTorchExecutionConfig(logger_backend=given)
    assert message in str(error.value)


def test_no_logs_are_no_recorder(tmp_path):
    silent = PyTorchExecutionConfig(logger_backend="none")
    assert make_recorder(TrainingConfig(output_dir=tmp_path), silent) is None
    assert make_recorder(TrainingConfig(output_dir=Path()), PyTorchExecutionConfig()) is None
    with pytest.raises(ConfigError, match="--logger wandb: must be one of csv"):
        make_trackers(["wandb"], tmp_path)


@pytest.mark.parametrize("name", ["mlflow", "tensorboard"])
def test_a_package_that_is_missing_is_named_with_its_command(name, tmp_path, monkeypatch):
    for loaded in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)  # an import of it fails as where it is not installed
    with pytest.raises(MissingDependencyError) as error:
        make_trackers(["csv", name], tmp_path)
    assert str(error.value).endswith(f"pip install 'ptychopinn[{name}]'")
    assert [tracker.name for tracker in make_trackers("csv", tmp_path)] == ["csv"]
