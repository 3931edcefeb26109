"""A run that goes on: every setting that is not free must be the same, and so must its data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho.config.fields import FieldInfo, describe_fields
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.config.yaml_io import dump_yaml, training_config_from
from ptycho.errors import ConfigError, DataError, MissingFileError
from ptycho.run import provenance
from ptycho.run.starting_probe import StartingProbe
from ptycho.run.state import (
    FREE,
    LAST,
    begin_anew,
    continued,
    keep_starts,
    kept_settings,
    kept_starts,
    prepare,
    settings_checksum,
    sweep,
)

#: what a run goes on with, written out: a name added to FREE must be added here by hand, with its reason
MAY_CHANGE = {
    # where and how long it runs
    "nepochs", "max_time_s", "debug", "output_dir", "accelerator", "num_workers", "pin_memory",
    "persistent_workers", "prefetch_factor", "patterns", "inference_batch_size", "checkpoint_every_s",
    # by how many processes, as long as a step takes as many batches: compared by itself
    "devices",
    # its data files, which are compared by their hashes
    "train_data_file", "more_train_data_files", "test_data_file",
    # what is shown and logged of it
    "enable_progress_bar", "logger_backend", "mlflow_uri", "run_name", "log_throughput",
    "recon_log_every_n_epochs", "recon_log_num_patches", "recon_log_stitch",
}  # fmt: skip
INFOS = {
    info.name: info
    for cls in (TrainingConfig, ModelConfig, PyTorchExecutionConfig)
    for info in describe_fields(cls)
}


def another(info: FieldInfo) -> Any:
    """An allowed value of a setting that is not its default."""
    if info.name in ("objectives", "diagnostics"):
        return [{"name": "amplitude_mae" if info.name == "objectives" else "photons"}]
    if info.name == "stages":
        return [{"name": "one", "epochs": 1}]
    if info.name in ("architecture", "scheduler"):
        return {"architecture": "cnn", "scheduler": "Exponential"}[info.name]
    if info.choices is not None:
        return next(choice for choice in info.choices if choice != info.default)
    if info.type_ is bool:
        return not info.default
    if info.type_ is str:
        return "train_loss"
    if info.type_ is float:
        inside = [v for v in (0.25, 0.3) if v != info.default]
        return inside[0]
    start = info.default if info.default is not None else 4
    return start + (info.multiple_of or 1)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a run of five epochs with a scan file, its record and a checkpoint."""
    folder, scan = tmp_path / "run", tmp_path / "scan.npz"
    scan.write_bytes(b"patterns")
    folder.mkdir()
    config = TrainingConfig(train_data_file=scan, nepochs=5, output_dir=folder)
    dump_yaml(config, PyTorchExecutionConfig(), folder / "config.yaml")
    provenance.begin(folder, command=["ptycho"], inputs={"train": scan}, seeds={})
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / LAST["pytorch"]).write_bytes(b"state")
    return folder


def test_the_list_of_what_may_change_is_the_one_written_here():
    assert set(FREE) == MAY_CHANGE


@pytest.mark.parametrize("name", sorted(set(INFOS) - MAY_CHANGE))
def test_every_other_setting_is_refused(begun, name):
    value = another(INFOS[name])
    with pytest.raises(ConfigError, match=f"{name}|backend"):
        continued(begun, {name: value})


def test_an_edited_configuration_does_not_go_on_from_the_weights_of_another(begun):
    source = begun / "config.yaml"
    begun_with = kept_settings(TrainingConfig(), PyTorchExecutionConfig())
    provenance.begin(begun, command=["ptycho"], inputs={}, seeds={}, settings=begun_with)
    text = source.read_text()
    source.write_text(text.replace("seed: 0 ", "seed: 1 "))
    with pytest.raises(ConfigError, match="was changed since it was written.*delete its first and last line"):
        continued(begun, {})
    own = source.read_text().partition("\n")[2].rpartition("# end")[0]
    source.write_text(own)
    with pytest.raises(ConfigError, match="seed is 1, but the run began with 0"):
        continued(begun, {})
    source.write_text(own.replace("seed: 1 ", "seed: 0 ").replace("nepochs: 5", "nepochs: 9"))
    assert continued(begun, {}).config.nepochs == 9


def test_what_may_change_does(begun):
    made = continued(begun, {"nepochs": 7, "num_workers": 2, "run_name": "again", "accelerator": "cpu"})
    assert made.config.nepochs == 7 and made.execution.num_workers == 2 and not made.notes
    assert made.checkpoint == begun / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError, match="begun with 5, which may only grow"):
        continued(begun, {"nepochs": 4})
    with pytest.raises(ConfigError, match="goes on in its own folder"):
        continued(begun, {"output_dir": begun.parent})
    with pytest.raises(MissingFileError, match="no config.yaml"):
        continued(begun.parent, {})


def test_devices_may_change_while_a_step_takes_as_many_batches(begun):
    with pytest.raises(ConfigError, match="--devices 2: .* was begun with 1"):
        continued(begun, {"devices": 2})
    config = TrainingConfig(train_data_file=begun.parent / "scan.npz", nepochs=5, output_dir=begun)
    dump_yaml(config, PyTorchExecutionConfig(accum_steps=4, devices=4), begun / "config.yaml")
    for devices in (1, 2, 4):
        assert continued(begun, {"devices": devices}).execution.devices == devices


@pytest.mark.parametrize("scheduler", ["WarmupCosine", "OneCycle", "Exponential"])
def test_courses_that_span_all_epochs_say_that_they_jump(begun, scheduler):
    values, execution = training_config_from(
        {"train_data_file": str(begun.parent / "scan.npz"), "nepochs": 5, "scheduler": scheduler,
         "output_dir": str(begun)}
    )  # fmt: skip
    dump_yaml(values, execution, begun / "config.yaml")
    notes = continued(begun, {"nepochs": 6}).notes
    assert bool(notes) == (scheduler != "Exponential")
    assert not continued(begun, {}).notes


def test_the_scan_is_the_same_bytes_wherever_it_is(begun):
    scan = begun.parent / "scan.npz"
    moved = begun.parent / "elsewhere.npz"
    record = json.loads((begun / "provenance.json").read_text())
    scan.rename(moved)
    record["inputs"][0]["path"] = str(moved)
    (begun / "provenance.json").write_text(json.dumps(record))
    assert continued(begun, {}).config.train_data_file == moved
    assert continued(begun, {"train_data_file": moved}).config.train_data_file == moved
    other = begun.parent / "other.npz"
    other.write_bytes(b"other patterns")
    with pytest.raises(DataError, match="is not the scan"):
        continued(begun, {"train_data_file": other})
    with pytest.raises(ConfigError, match="more_train_data_files"):
        continued(begun, {"more_train_data_files": [str(other)]})
    with pytest.raises(ConfigError, match="test_data_file"):
        continued(begun, {"test_data_file": other})


def test_a_run_without_a_checkpoint_starts_over(begun):
    (begun / "checkpoints" / "last.ckpt").unlink()
    made = continued(begun, {})
    assert made.checkpoint is None and "starts over" in made.notes[0]


def test_checkpoints_of_an_earlier_run_are_moved_not_lost(begun):
    checkpoints = begun / "checkpoints"
    begin_anew(begun)
    assert not checkpoints.exists()
    assert (begun / "checkpoints.earlier" / "last.ckpt").read_bytes() == b"state"
    checkpoints.mkdir()
    (checkpoints / "last.ckpt").write_bytes(b"newer")
    prepare(begun, (start(1.0),), resumes=False)
    assert (begun / "checkpoints.earlier" / "last.ckpt").read_bytes() == b"newer"
    (checkpoints / ".last.0011.ckpt").write_bytes(b"cut")
    (checkpoints / "best.ckpt").write_bytes(b"best")
    before = (checkpoints / "start.npz").read_bytes()
    prepare(begun, (start(9.0),), resumes=True)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.ckpt", "start.npz"]
    assert (checkpoints / "start.npz").read_bytes() == before
    sweep(checkpoints)
    assert (checkpoints / "best.ckpt").exists()


def start(factor: float) -> StartingProbe:
    return StartingProbe((np.ones((1, 4, 4)) * factor).astype(np.complex64), factor)


def test_every_scan_keeps_its_own_starting_probe(tmp_path):
    keep_starts(tmp_path, (start(1.0), start(2.0), start(5.0)))
    found = kept_starts(tmp_path / "last.ckpt")
    assert [one.factor for one in found] == [1.0, 2.0, 5.0]
    assert [one.modes[0, 0, 0] for one in found] == [1.0, 2.0, 5.0]
    (tmp_path / "start.npz").write_bytes(b"PK damaged")
    with pytest.raises(DataError, match="delete it to refine the probe again"):
        kept_starts(tmp_path / "last.ckpt")
    assert kept_starts(tmp_path / "nowhere" / "last.ckpt") is None


def test_checksum_of_settings_knows_what_changes_the_weights():
    config, execution = TrainingConfig(), PyTorchExecutionConfig()
    first = settings_checksum(config, execution)
    assert settings_checksum(dataclasses.replace(config, nepochs=9), execution) == first
    assert settings_checksum(dataclasses.replace(config, output_dir=Path("elsewhere")), execution) == first
    for changed in ({"seed": 1}, {"batch_size": 8}, {"model": ModelConfig(gridsize=2)}):
        assert settings_checksum(dataclasses.replace(config, **changed), execution) != first
    assert settings_checksum(config, PyTorchExecutionConfig(learning_rate=2e-3)) != first
    by_execution = settings_checksum(config, PyTorchExecutionConfig(scheduler="OneCycle"))
    assert (
        by_execution
        == settings_checksum(dataclasses.replace(config, scheduler="OneCycle"), execution)
        != first
    )
