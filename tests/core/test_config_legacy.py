"""The legacy dictionary mirrors the dataclasses, one way (CONFIG-001)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ptycho.clients import params
from ptycho.config.config import (
    KEY_MAPPINGS,
    InferenceConfig,
    ModelConfig,
    PyTorchExecutionConfig,
    TrainingConfig,
    dataclass_to_legacy_dict,
    update_legacy_dict,
)
from ptycho.errors import ConfigError


@pytest.fixture
def mirror():
    """The module's dictionary, put back as it was afterwards."""
    before = dict(params.cfg)
    yield params.cfg
    params.cfg.clear()
    params.cfg.update(before)


def test_every_field_has_one_legacy_key_and_the_model_is_flat():
    config = TrainingConfig(model=ModelConfig(N=128, object_big=False), train_data_file=Path("a/scan.npz"))
    flat = dataclass_to_legacy_dict(config)
    assert flat["N"] == 128 and flat["object.big"] is False
    assert flat["train_data_file_path"] == "a/scan.npz" and flat["test_data_file_path"] is None
    assert "model" not in flat and not set(flat) & set(KEY_MAPPINGS)
    assert len(flat) == len(dataclasses.fields(TrainingConfig)) - 1 + len(dataclasses.fields(ModelConfig))


def test_updating_writes_the_fields_and_leaves_other_keys():
    cfg = {"mine": 1, "N": 3, "nphotons": 5.0}
    update_legacy_dict(cfg, TrainingConfig(nphotons=None))
    assert cfg["mine"] == 1 and cfg["N"] == 64 and cfg["nphotons"] is None
    update_legacy_dict(cfg, InferenceConfig(model=ModelConfig(N=128)))
    assert cfg["N"] == 128 and cfg["batch_size"] == 16


def test_the_execution_configuration_never_gets_there():
    with pytest.raises(ConfigError, match="never goes to params.cfg"):
        update_legacy_dict({}, PyTorchExecutionConfig())
    with pytest.raises(ConfigError, match="dataclass is needed, got dict"):
        dataclass_to_legacy_dict({"N": 64})


def test_params_start_from_the_defaults_and_are_read_by_legacy_name(mirror):
    assert params.get("N") == 64 and params.get("probe.trainable") is False
    assert "intensity_scale" not in params.params()
    params.set("intensity_scale", 12.5)
    assert params.get("intensity_scale") == 12.5
    copy = params.params()
    copy["N"] = 1
    assert mirror["N"] == 64


def test_an_unknown_parameter_names_the_nearest():
    with pytest.raises(KeyError, match="nearest known: 'gridsize'"):
        params.get("grid_size")
    with pytest.raises(KeyError, match="intensity_scale"):
        params.get("intensity_scale")
