"""What a run of either backend leaves beside its model: text log, coverage, speed, pictures, logs."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
from both_backends import settings

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.errors import RunError
from ptycho.io.resources import MEMORY, RATE
from ptycho.run.image_quality import PSNR, SSIM
from ptycho.tracking.names import in_contract
from ptycho.tracking.tracker import Tracker


def execution(**changes) -> PyTorchExecutionConfig:
    return PyTorchExecutionConfig(**{"accelerator": "cpu", "enable_checkpointing": False, **changes})


def text(folder: Path) -> list[str]:
    return [line.split(" ", 1)[1] for line in (folder / "training.log").read_text().splitlines()]


def test_a_run_leaves_text_log_coverage_speed_and_pictures(side, make_scan, tmp_path):
    raw, told = make_scan(n_positions=49), []
    before = {name: list(logging.getLogger(name).handlers) for name in ("", "ptycho", "ptycho_torch")}
    asked = execution(log_throughput=True, recon_log_every_n_epochs=2, recon_log_stitch=True)
    config = settings(raw, nepochs=3, output_dir=tmp_path)
    results = side.train(
        raw, config, asked, progress=lambda done, total, shown: told.append((done, total, shown))
    )
    history = results["history"]
    assert before == {name: list(logging.getLogger(name).handlers) for name in before}

    lines = text(tmp_path)
    assert lines[0].startswith(f"start: backend {side.name}, settings ") and "seed 0, epochs 3" in lines[0]
    shown = f"epoch 1: train_loss {history['train_loss'][1]:.6g} val_loss {history['val_loss'][1]:.6g} "
    assert lines[2].startswith(f"{shown}learning_rate 0.001 ") and lines[4:] == ["end: done after 3 epochs"]

    with np.load(tmp_path / "coverage.npz") as stored:
        counts, places = stored["counts"], stored["positions_px"]
    assert places.shape == (49, 2) and sorted(set(counts)) == [0, 3]
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {"patterns_0002.png", "image_0002.png", "sampler_coverage.png"}

    with (tmp_path / "logs" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row[RATE]) > 0 and 0.01 < float(row[MEMORY]) < 1000 for row in rows)
    assert [bool(row[PSNR]) for row in rows] == [bool(row[SSIM]) for row in rows] == [False, True, False]
    assert in_contract(RATE) and in_contract(MEMORY) and not {RATE, PSNR} & set(history)

    assert [(done, total) for done, total, _ in told] == [(1, 3), (2, 3), (3, 3)]
    assert [set(shown) - {"train_loss", "val_loss"} for *_, shown in told] == [set(), {"psnr", "ssim"}, set()]
    assert told[1][2]["psnr"] == float(rows[1][PSNR]) and -1 <= float(rows[1][SSIM]) <= 1


def test_pictures_change_nothing_and_need_the_truth_for_numbers(side, make_scan, once, tmp_path):
    raw, told = make_scan(n_positions=25, objectGuess=None), []
    histories = []
    for name, asked in (
        ("plain", {}),
        ("watched", {"recon_log_every_n_epochs": 1, "recon_log_stitch": True}),
    ):
        config = settings(raw, nepochs=2, output_dir=tmp_path / name)
        quiet = execution(logger_backend="none", **asked)
        made = side.train(raw, config, quiet, progress=lambda done, total, shown: told.append(set(shown)))
        histories.append(made["history"])
    assert histories[0] == histories[1]
    assert told == [{"train_loss", "val_loss"}] * 4


def test_no_logger_still_leaves_text_log_and_coverage_and_no_folder_leaves_nothing(
    side, make_scan, tmp_path, monkeypatch
):
    raw, quiet = make_scan(n_positions=16), execution(logger_backend="none")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in (tmp_path / "run", Path()):
        side.train(raw, settings(raw, output_dir=folder), quiet)
    assert not list(Path().iterdir())
    found = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert found == {"training.log", "coverage.npz", "figures/sampler_coverage.png"}
    assert (tmp_path / "run" / "training.log").read_text().endswith("end: done after 1 epochs\n")


class Notes(Tracker):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def begin(self, first_epoch, first_step, params):
        self.told.append(("begin", first_epoch, first_step))

    def log_metrics(self, values, step, epoch):
        self.told.append(("metrics", epoch, step))

    def log_figure(self, path, step):
        self.told.append(("figure", path.name, step))

    def close(self, state):
        self.told.append(("close", state))


def test_trackers_are_told_of_epochs_pictures_the_end_and_a_failure(side, make_scan, tmp_path, monkeypatch):
    notes = Notes()
    monkeypatch.setattr("ptycho.tracking.kinds.KINDS", {"csv": lambda *_: notes})
    raw = make_scan()
    asked = execution(logger_backend="csv", recon_log_every_n_epochs=2)
    side.train(raw, settings(raw, nepochs=2, output_dir=tmp_path), asked)
    assert notes.told == [
        ("begin", 0, 0), ("metrics", 0, 3), ("metrics", 1, 7), ("figure", "patterns_0002.png", 7),
        ("figure", "sampler_coverage.png", 7), ("close", "done"),
    ]  # fmt: skip
    notes.told.clear()
    lost = settings(raw, nepochs=3, output_dir=tmp_path, optimizer="sgd", momentum=0.0)
    with pytest.raises(RunError, match="training diverged"):
        side.train(raw, lost, execution(logger_backend="csv", learning_rate=1e30))
    assert notes.told[0] == ("begin", 0, 0) and notes.told[-1] == ("close", "failed")
    for name, outcome in (("training.log", "failed"), ("training.1.log", "done")):  # an earlier one is kept
        assert f" end: {outcome} after " in (tmp_path / name).read_text().splitlines()[-1]
