"""Logs: nothing of an earlier run is overwritten, a resume has each epoch once, private names stay inside."""

from __future__ import annotations

import csv
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.tracking import Recorder, Tracker, make_trackers
from ptycho.tracking.csv_file import CsvTracker, read_rows
from ptycho.tracking.histograms import histogram_of
from ptycho.tracking.names import in_contract, public
from ptycho.tracking.parameters import run_parameters

needs_tensorboard = pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_five_runs_in_one_folder_leave_five_files(tmp_path):
    for run in range(5):
        tracker = CsvTracker(tmp_path)
        tracker.begin(0, 0, {})
        tracker.log_metrics({"train_loss": float(run)}, 0, 0)
    found = {path.name: rows(path)[0]["train_loss"] for path in (tmp_path / "logs").glob("metrics*.csv")}
    assert found == {**{f"metrics.{n}.csv": f"{n - 1}.0" for n in range(1, 5)}, "metrics.csv": "4.0"}


def test_a_resume_drops_its_epoch_and_later_and_keeps_the_others(tmp_path):
    tracker = CsvTracker(tmp_path)
    tracker.begin(0, 0, {})
    for epoch in range(4):
        tracker.log_metrics({"train_loss": float(epoch)}, epoch, epoch)
    again = CsvTracker(tmp_path)
    again.begin(2, 2, {})
    again.log_metrics({"train_loss": 20.0, "val_loss": 7.0}, 2, 2)
    made = rows(again.path)
    assert [(row["epoch"], row["train_loss"]) for row in made] == [("0", "0.0"), ("1", "1.0"), ("2", "20.0")]
    assert made[-1]["val_loss"] == "7.0" and made[0]["val_loss"] == ""


def test_a_line_without_an_end_is_no_row(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(b"epoch,a\n0,1.5\n1,2.5")
    assert read_rows(path) == [{"epoch": "0", "a": "1.5"}]


def test_private_names_stay_inside():
    assert public({"a": 1, "loss/_b": 2, "_c/d": 3, "val/_x/y": 4, "epoch": 5, "loss/e_f": 6}) == {
        "a": 1.0,
        "loss/e_f": 6.0,
    }
    assert in_contract("val/loss/poisson_nll") and not in_contract("loss/_b") and not in_contract("epoch")
    assert "mlflow_uri" not in " ".join(run_parameters(TrainingConfig(), PyTorchExecutionConfig()))


def test_histogram_counts_finite_values_only():
    made = histogram_of([1.0, 2.0, np.nan, 3.0, np.inf])
    assert (made.counts.sum(), made.total, made.squares) == (3, 6.0, 14.0)
    assert (made.edges[0], made.edges[-1]) == (1.0, 3.0)


class Noting(Tracker):
    """Keeps what it is told; fails at what it is told to fail at."""

    def __init__(self, name: str, fails: str = "") -> None:
        self.name, self._fails, self.told = name, fails, []

    def log_metrics(self, values, step, epoch):
        self.told.append(("metrics", epoch))
        if self._fails == "metrics":
            raise OSError("gone")

    def log_figure(self, path, step):
        self.told.append(("figure", path.name))

    def close(self, state):
        self.told.append(("close", state))


def test_a_failed_log_is_told_no_more_and_figures_once(tmp_path):
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "old.png").write_bytes(b"1")
    good, bad = Noting("good"), Noting("bad", fails="metrics")
    recorder = Recorder([good, bad], tmp_path, {})
    recorder.begin(0, 0)
    recorder.epoch({"a": 1.0}, 0, 0)
    (figures / "new.png").write_bytes(b"1")
    recorder.epoch({"a": 1.0}, 1, 1)
    recorder.epoch({"a": 1.0}, 2, 2)
    import os

    os.utime(figures / "new.png", ns=(1, 1))  # drawn again
    recorder.end("done")
    recorder.end("failed")
    assert good.told == [
        ("metrics", 0), ("metrics", 1), ("figure", "new.png"), ("metrics", 2), ("figure", "new.png"),
        ("close", "done"),
    ]  # fmt: skip
    assert bad.told == [("metrics", 0)]


def test_the_same_log_is_made_once(tmp_path):
    assert [made.name for made in make_trackers("csv, csv,none", tmp_path)] == ["csv"]


@needs_tensorboard
def test_events_of_a_resume_and_the_shape_of_a_picture(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    from ptycho.tracking.tensorboard import TensorBoardTracker, read_records

    def events() -> list:
        (path,) = (tmp_path / "logs").glob("events*")
        return list(LegacyEventFileLoader(str(path)).Load())

    tracker = TensorBoardTracker(tmp_path)
    tracker.begin(0, 0, {"seed": 1})
    for epoch in range(3):
        tracker.log_metrics({"loss": float(epoch)}, 10 * epoch + 9, epoch)
    picture = tmp_path / "image_0003.png"
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 13, b"IHDR") + struct.pack(">II", 7, 5)
    picture.write_bytes(header + bytes(20))
    again = TensorBoardTracker(tmp_path)
    again.begin(1, 10, {})
    again.log_metrics({"loss": 5.0}, 19, 1)
    again.log_figure(picture, 19)
    assert [event.step for event in events() if event.summary.value and event.step] == [9, 19, 19]
    value = events()[-1].summary.value[0]
    assert (value.tag, value.image.width, value.image.height) == ("figures/image", 7, 5)
    (path,) = (tmp_path / "logs").glob("events*")
    whole = list(read_records(path))
    for cut in (1, 3, 4, 5):
        (tmp_path / "cut").write_bytes(path.read_bytes()[:-cut])
        assert list(read_records(tmp_path / "cut")) == whole[:-1]
    exact = TensorBoardTracker(tmp_path)
    exact.begin(2, 19, {})
    assert [event.step for event in events() if event.summary.value and event.step] == [9]
