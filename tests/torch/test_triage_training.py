"""The training of triage: what it leaves and logs, its settings, batches that follow from the seed."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest
import torch

from ptycho.cli.main import main
from ptycho.config.learned import settings_from
from ptycho.errors import ConfigError
from ptycho.models.triage import triage_weights
from ptycho.triage.labels import LABELS
from ptycho.triage.settings import TriageSettings
from ptycho_torch.triage.task import TriageTask

pytestmark = pytest.mark.onnx
SMALL = {
    "sides": [32], "side_weights": [], "n_frames": [36, 40], "evaluated_scans": 1, "threshold_scans": 2,
    "photons": [1e3, 1e5],
}  # fmt: skip


def settings(folder: Path, **more: object) -> TriageSettings:
    given = {"output_dir": folder, "epochs": 1, "steps_per_epoch": 2, "batch_size": 48, "data": SMALL, **more}
    return settings_from(TriageSettings, given, "test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of two steps, by the command."""
    out = tmp_path_factory.mktemp("triage")
    words = [f"data.{k}={str(v).replace(' ', '')}" for k, v in SMALL.items()]
    more = ["epochs=1", "steps_per_epoch=2", "batch_size=48", "accelerator=cpu", f"output_dir={out}"]
    assert main(["sweep", "model=triage", *words, *more, "--quiet"]) == 0
    return out


def test_a_training_leaves_weights_that_can_be_used_onnx_and_its_description(trained: Path) -> None:
    assert {"triage.safetensors", "triage.onnx", "triage.json"} <= {path.name for path in trained.iterdir()}
    assert "thresholds" in triage_weights(trained / "triage.safetensors")


def test_every_label_is_judged_and_the_sampler_told_each_epoch(trained: Path) -> None:
    (row,) = csv.DictReader((trained / "logs" / "metrics.csv").open())
    for label in LABELS:
        assert 0 <= float(row[f"val/ap_{label}"]) <= 1
        assert {f"val/precision_{label}", f"val/recall_{label}", f"val/share_{label}"} <= set(row)
        assert 0 <= float(row[f"loss/share_{label}"]) <= 1
    mean = sum(float(row[f"val/ap_{label}"]) for label in LABELS) / len(LABELS)
    assert float(row["val/mAP"]) == pytest.approx(mean, abs=1e-6)


def test_the_confusion_matrix_is_a_figure_and_numbers(trained: Path) -> None:
    assert (trained / "figures" / "confusion_001.png").stat().st_size > 1000
    lines = (trained / "figures" / "confusion_001.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines[-len(LABELS) :]] == list(LABELS)


def test_a_batch_follows_from_seed_epoch_and_step(tmp_path: Path) -> None:
    one, two = TriageTask(settings(tmp_path)), TriageTask(settings(tmp_path))
    two.batch(0, 0)
    a, b = one.batch(3, 1), two.batch(3, 1)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert len(a["labels"]) == 48
    assert not torch.equal(a["frames"], one.batch(3, 2)["frames"])


def test_an_average_precision_that_cannot_be_had_is_zero_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = TriageTask(settings(tmp_path))
    with torch.no_grad():
        task.network.get_parameter("last.bias")[0] = float("nan")
    with caplog.at_level(logging.WARNING):
        found = task.evaluate(task.network)
    assert found["ap_empty"] == 0.0 and "0.0 is taken" in caplog.text


@pytest.mark.parametrize(
    "given, message",
    [
        ({"data": {"photon": [1, 2]}}, "unknown key 'data.photon'; nearest known: 'data.photons'"),
        ({"data": {"photons": [1e5, 1e3]}}, "the least stands first"),
        ({"data": {"sides": [33]}}, "each must be even"),
        ({"data": {"sides": [32, 64]}}, "one for each of data.sides"),
        ({"data": {"bad_shares": [0.9]}}, "numbers from 0 to 0.5"),
        ({"batch_size": 2}, "batch_size"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(given: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        settings_from(TriageSettings, given, "test")


def test_an_unknown_key_of_the_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "model=triage", "data.photon=[1e3,1e4]"]) == 2
    assert "nearest known: 'data.photons'" in capsys.readouterr().err
