"""Every bound of every setting at its edge, defaults written out, and who wins over whom."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from ptycho.clients.legacy import dataclass_to_legacy_dict
from ptycho.config.fields import FieldInfo, Unfit, coerce, describe_fields
from ptycho.config.settings import (
    InferenceConfig,
    ModelConfig,
    PyTorchExecutionConfig,
    TrainingConfig,
    resolve_n_groups,
)
from ptycho.config.yaml_io import dump_yaml, load_yaml_config, training_config_from
from ptycho.errors import ConfigError, MissingFileError
from ptycho.run.validation import validate_training_config

CLASSES = (ModelConfig, TrainingConfig, InferenceConfig, PyTorchExecutionConfig)
NUMBERS = [
    pytest.param(info, id=f"{cls.__name__}.{info.name}")
    for cls in CLASSES
    for info in describe_fields(cls)
    if info.type_ in (int, float)
]


def fits(info: FieldInfo, value: Any) -> bool:
    try:
        coerce(info, value)
    except Unfit:
        return False
    return True


@pytest.mark.parametrize("info", NUMBERS)
def test_each_bound_counts_or_not_as_its_sign_says(info):
    step = info.multiple_of or (1 if info.type_ is int else 1e-9)
    as_type = info.type_
    for bound, inside, counts in (
        (info.ge, +step, True),
        (info.gt, +step, False),
        (info.le, -step, True),
        (info.lt, -step, False),
    ):
        if bound is not None:
            assert fits(info, as_type(bound)) == counts
            assert fits(info, as_type(bound + inside)) and not fits(info, as_type(bound - inside))
    assert not fits(info, True) and not fits(info, float("inf")) and not fits(info, float("nan"))
    assert fits(info, None) == info.optional


def test_defaults_are_these():
    """Written out, so that a changed default is a decision and not an accident."""
    training, execution = TrainingConfig(), PyTorchExecutionConfig()
    assert vars(ModelConfig()) == {
        "N": 64,
        "gridsize": 1,
        "n_filters_scale": 2,
        "model_type": "pinn",
        "architecture": "swift",
        "amp_activation": "sigmoid",
        "object_big": True,
        "probe_big": True,
        "probe_mask": False,
        "probe_mask_sigma": 1.0,
        "probe_mask_diameter": None,
        "pad_object": True,
        "merge_window": "central",
        "probe_scale": 4.0,
        "gaussian_smoothing_sigma": 0.0,
        "reference": "flat",
        "rounds": 1,
    }
    wanted = {
        "batch_size": 16,
        "nepochs": 50,
        "mae_weight": 0.0,
        "nll_weight": 1.0,
        "realspace_mae_weight": 0.0,
        "realspace_weight": 0.0,
        "nphotons": None,
        "n_groups": None,
        "subsample_seed": None,
        "neighbor_count": 4,
        "enable_oversampling": False,
        "neighbor_pool_size": None,
        "probe_trainable": False,
        "intensity_scale_trainable": True,
        "sequential_sampling": False,
        "optimizer": "adam",
        "momentum": 0.9,
        "weight_decay": 0.0,
        "gradient_clip_val": None,
        "gradient_clip_algorithm": "norm",
        "scheduler": "Default",
        "lr_gamma": 0.95,
        "lr_warmup_epochs": 2,
        "lr_min_ratio": 0.05,
        "plateau_factor": 0.5,
        "plateau_patience": 5,
        "plateau_min_lr": 1e-6,
        "ema_decay": None,
        "seed": 0,
        "val_fraction": 0.1,
        "probe_from": "refine",
        "probe_refine_sweeps": 20,
        "probe_modes": None,
        "region_ratio": 1.0,
    }
    assert {name: getattr(training, name) for name in wanted} == wanted
    wanted = {
        "accelerator": "auto",
        "devices": 1,
        "deterministic": True,
        "precision": "32-true",
        "accum_steps": 1,
        "patterns": "auto",
        "num_workers": 0,
        "learning_rate": 1e-3,
        "scheduler": None,
        "gradient_clip_val": None,
        "checkpoint_save_top_k": 1,
        "checkpoint_monitor_metric": "val_loss",
        "checkpoint_mode": "min",
        "early_stop_patience": 100,
        "logger_backend": "csv",
        "recon_log_num_patches": 4,
    }
    assert {name: getattr(execution, name) for name in wanted} == wanted
    inference = InferenceConfig()
    assert (inference.neighbor_count, inference.subsample_seed, inference.trained_scan) == (4, None, None)


def test_several_loggers_are_each_checked():
    for wrong in ("csv,papyrus", "papyrus,csv", "none,csv", "csv,none"):
        with pytest.raises(ConfigError, match="logger_backend"):
            PyTorchExecutionConfig(logger_backend=wrong)
    assert PyTorchExecutionConfig(logger_backend="csv,tensorboard,csv").logger_backend == "csv,tensorboard"


@pytest.mark.parametrize("name, value", [("prefetch_factor", 2), ("persistent_workers", True)])
def test_what_needs_workers_says_so(name, value):
    with pytest.raises(ConfigError, match=f"{name}.*needs num_workers >= 1"):
        PyTorchExecutionConfig(**{name: value})
    PyTorchExecutionConfig(num_workers=1, **{name: value})


def test_flag_over_file_over_default_also_with_nothing():
    values = {
        "scheduler": "OneCycle",
        "nepochs": 7,
        "gradient_clip_val": 2.0,
        "execution": {"scheduler": "Exponential"},
    }
    config, execution = training_config_from(values, {"nepochs": 9})
    assert (config.nepochs, config.scheduler, execution.scheduler) == (9, "OneCycle", "Exponential")
    config, execution = training_config_from(values, {"scheduler": "WarmupCosine"})
    assert (config.scheduler, execution.scheduler) == ("WarmupCosine", None)
    values = {"gradient_clip_val": 2.0, "execution": {"gradient_clip_val": 0.5}}
    config, execution = training_config_from(values, {"gradient_clip_val": None})
    assert (config.gradient_clip_val, execution.gradient_clip_val) == (None, 0.5)


def test_a_key_stands_once(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("nepochs: 1\nbatch_size: 2\nnepochs: 3\n")
    with pytest.raises(ConfigError, match="'nepochs' is given twice"):
        load_yaml_config(path)
    with pytest.raises(ConfigError, match="'N' is given twice: at the top and in 'model'"):
        training_config_from({"N": 32, "model": {"N": 32}})


def test_yaml_is_replaced_by_a_rename(tmp_path):
    path, other = tmp_path / "config.yaml", tmp_path / "link.yaml"
    path.write_text("old")
    os.link(path, other)
    dump_yaml(TrainingConfig(), PyTorchExecutionConfig(), path)
    assert other.read_text() == "old" and "nepochs: 50" in path.read_text()


def test_legacy_keys_are_these():
    made = dataclass_to_legacy_dict(TrainingConfig())
    renamed = {
        "object.big",
        "probe.big",
        "probe.mask",
        "probe.trainable",
        "intensity_scale.trainable",
        "positions.provided",
        "output_prefix",
        "train_data_file_path",
        "test_data_file_path",
    }
    assert (
        renamed <= set(made)
        and {key for key in made if "." in key or key.endswith(("prefix", "_path"))} == renamed
    )


@pytest.mark.parametrize("gridsize", [2, 3])
@pytest.mark.parametrize("name", ["neighbor_count", "neighbor_pool_size"])
def test_neighbours_from_gridsize_squared_less_one(gridsize, name):
    enough = gridsize**2 - 1
    more = {"neighbor_count": enough} if name == "neighbor_pool_size" else {}
    model = ModelConfig(gridsize=gridsize)
    validate_training_config(TrainingConfig(model=model, **{**more, name: enough}), require_files=False)
    with pytest.raises(ConfigError, match=f"{name}.*must be >= {enough}"):
        validate_training_config(
            TrainingConfig(model=model, **{**more, name: enough - 1}), require_files=False
        )


def test_positions_and_scans_of_a_training(tmp_path):
    with pytest.raises(ConfigError, match="positions are required"):
        validate_training_config(TrainingConfig(positions_provided=False), require_files=False)
    one, two = tmp_path / "1.npz", tmp_path / "2.npz"
    one.write_bytes(b""), two.write_bytes(b"")

    def check(*more):
        validate_training_config(TrainingConfig(train_data_file=one, more_train_data_files=list(more)))

    check(str(two))
    for more in ((str(one),), (str(two), str(two))):
        with pytest.raises(ConfigError, match="is given twice: a scan counts once"):
            check(*more)
    with pytest.raises(MissingFileError):
        check(str(tmp_path / "3.npz"))


def test_two_names_of_the_number_of_groups_must_agree():
    with pytest.warns(DeprecationWarning, match="old name of n_groups"):
        assert resolve_n_groups(TrainingConfig(n_images=5)) == 5
    with pytest.warns(DeprecationWarning, match="old name of n_groups"):
        assert resolve_n_groups(TrainingConfig(n_images=5, n_groups=5)) == 5
    with (
        pytest.warns(DeprecationWarning, match="old name of n_groups"),
        pytest.raises(ConfigError, match="says otherwise"),
    ):
        resolve_n_groups(TrainingConfig(n_images=5, n_groups=6))
    assert resolve_n_groups(TrainingConfig(n_groups=np.int64(6))) == 6
