"""Validation names the field, what it got and what is allowed, before a run starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.config.config import (
    InferenceConfig,
    ModelConfig,
    PyTorchExecutionConfig,
    TrainingConfig,
    resolve_n_groups,
    validate_inference_config,
    validate_model_config,
    validate_training_config,
)
from ptycho.errors import ConfigError, MissingFileError

KNOWN = ("swift", "cnn")

BAD_MODEL = [
    ({"N": 63}, "ModelConfig.N = 63: must be an even integer >= 32"),
    ({"N": 0}, "ModelConfig.N = 0: must be an even integer >= 32"),
    ({"N": 64.0}, "ModelConfig.N = 64.0: must be an even integer >= 32"),
    ({"N": True}, "ModelConfig.N = True: must be an even integer >= 32"),
    ({"N": "64"}, "ModelConfig.N = '64': must be an even integer >= 32"),
    ({"N": None}, "ModelConfig.N = None: must be an even integer >= 32"),
    ({"gridsize": 0}, "ModelConfig.gridsize = 0: must be an integer >= 1 and <= 8"),
    ({"gridsize": 9}, "ModelConfig.gridsize = 9: must be an integer >= 1 and <= 8"),
    ({"n_filters_scale": 0}, "ModelConfig.n_filters_scale = 0: must be an integer >= 1"),
    ({"model_type": "PINN"}, "ModelConfig.model_type = 'PINN': must be one of 'pinn', 'supervised'"),
    (
        {"architecture": "vit"},
        "ModelConfig.architecture = 'vit': must be a registered network: one of 'swift', 'cnn'",
    ),
    ({"architecture": 3}, "ModelConfig.architecture = 3: must be text"),
    ({"amp_activation": "selu"}, "ModelConfig.amp_activation = 'selu': must be one of 'sigmoid', 'swish'"),
    ({"object_big": 1}, "ModelConfig.object_big = 1: must be True or False"),
    ({"probe_mask": None}, "ModelConfig.probe_mask = None: must be True or False"),
    ({"probe_mask_diameter": 0}, "ModelConfig.probe_mask_diameter = 0: must be a number > 0 or None"),
    ({"probe_scale": float("nan")}, "ModelConfig.probe_scale = nan: must be a number > 0"),
    ({"probe_scale": float("inf")}, "ModelConfig.probe_scale = inf: must be a number > 0"),
    (
        {"gaussian_smoothing_sigma": -1.0},
        "ModelConfig.gaussian_smoothing_sigma = -1.0: must be a number >= 0",
    ),
]

BAD_TRAINING = [
    ({"batch_size": 0}, "TrainingConfig.batch_size = 0: must be an integer >= 1"),
    ({"nepochs": 2.5}, "TrainingConfig.nepochs = 2.5: must be an integer >= 1"),
    ({"mae_weight": -1}, "TrainingConfig.mae_weight = -1: must be a number >= 0"),
    (
        {"nll_weight": 0.0},
        "TrainingConfig.nll_weight = 0.0: nothing to minimise: one of mae_weight, nll_weight",
    ),
    ({"nphotons": 0}, "TrainingConfig.nphotons = 0: must be a number > 0 or None"),
    ({"neighbor_count": -1}, "TrainingConfig.neighbor_count = -1: must be an integer >= 0"),
    ({"positions_provided": False}, "positions_provided = False: not supported: positions are required"),
    ({"backend": "jax"}, "TrainingConfig.backend = 'jax': must be one of 'pytorch', 'tensorflow'"),
    ({"optimizer": "lbfgs"}, "TrainingConfig.optimizer = 'lbfgs': must be one of 'adam', 'adamw', 'sgd'"),
    ({"scheduler": "Cosine"}, "TrainingConfig.scheduler = 'Cosine': must be one of 'Default', 'Exponential'"),
    ({"val_fraction": 0.5}, "TrainingConfig.val_fraction = 0.5: must be a number > 0 and < 0.5"),
    ({"output_dir": None}, "TrainingConfig.output_dir = None: must be a path"),
    ({"n_groups": 3, "n_images": 4}, "TrainingConfig.n_images = 4: n_groups = 3 differs: drop n_images"),
    ({"max_time_s": 0}, "TrainingConfig.max_time_s = 0: must be a number > 0 or None"),
    ({"probe_from": "file"}, "TrainingConfig.probe_from = 'file': must be one of 'guess', 'refine'"),
]


@pytest.mark.parametrize("fields, message", BAD_MODEL)
def test_a_bad_model_is_refused_by_name(fields, message):
    with pytest.raises(ConfigError) as error:
        validate_model_config(ModelConfig(**fields), architectures=KNOWN)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fields, message", BAD_TRAINING)
def test_a_bad_training_is_refused_by_name(fields, message):
    with pytest.raises(ConfigError) as error:
        validate_training_config(TrainingConfig(**fields), require_files=False, architectures=KNOWN)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_good_configurations_pass(tmp_path):
    scan = tmp_path / "scan.npz"
    scan.touch()
    assert validate_model_config(ModelConfig(), architectures=KNOWN) is None
    training = TrainingConfig(train_data_file=scan, output_dir=tmp_path / "new" / "deep")
    assert validate_training_config(training, architectures=KNOWN) is None
    inference = InferenceConfig(model_path=tmp_path, test_data_file=scan, output_dir=tmp_path)
    assert validate_inference_config(inference, architectures=KNOWN) is None
    assert not (tmp_path / "new").exists()


def test_wrong_clothes_are_put_right_in_place():
    config = TrainingConfig(
        model=ModelConfig(N=np.int64(128), object_big=np.bool_(False), probe_scale=3),
        output_dir="out",  # type: ignore[arg-type]
        nphotons=np.float32(10.0),
    )
    validate_training_config(config, require_files=False, architectures=KNOWN)
    assert type(config.model.N) is int and type(config.nphotons) is float
    assert config.model.object_big is False and type(config.model.probe_scale) is float
    assert config.output_dir == Path("out")


def test_several_problems_are_counted():
    config = TrainingConfig(model=ModelConfig(N=63), batch_size=0, nepochs=0)
    with pytest.raises(ConfigError, match=r"^ModelConfig.N = 63: .* \(and 2 more\)$"):
        validate_training_config(config, require_files=False, architectures=KNOWN)


@pytest.mark.parametrize("gridsize", [1, 2, 3])
@pytest.mark.parametrize("config_type", [TrainingConfig, InferenceConfig])
def test_a_group_needs_enough_neighbours(gridsize, config_type):
    validate = validate_training_config if config_type is TrainingConfig else validate_inference_config
    config = config_type(model=ModelConfig(gridsize=gridsize), neighbor_count=gridsize**2 - 1)
    validate(config, require_files=False, architectures=KNOWN)
    config.neighbor_count -= 1
    with pytest.raises(ConfigError, match="neighbor_count"):
        validate(config, require_files=False, architectures=KNOWN)
    config.neighbor_count, config.neighbor_pool_size = 20, gridsize**2 - 2
    with pytest.raises(ConfigError, match="neighbor_pool_size"):
        validate(config, require_files=False, architectures=KNOWN)


@pytest.mark.parametrize("unused", [None, Path()])
def test_an_unused_training_file_passes_only_without_files(unused):
    config = TrainingConfig(train_data_file=unused)
    validate_training_config(config, require_files=False, architectures=KNOWN)
    with pytest.raises(
        ConfigError, match="TrainingConfig.train_data_file = .*must be a file; give train_data_file"
    ):
        validate_training_config(config, architectures=KNOWN)


def test_files_must_be_there_and_be_files(tmp_path):
    with pytest.raises(MissingFileError, match="train_data_file = '.*nowhere.npz': no such file"):
        validate_training_config(
            TrainingConfig(train_data_file=tmp_path / "nowhere.npz"), architectures=KNOWN
        )
    with pytest.raises(ConfigError, match="train_data_file = .*: must be a file"):
        validate_training_config(TrainingConfig(train_data_file=tmp_path), architectures=KNOWN)
    scan = tmp_path / "scan.npz"
    scan.touch()
    with pytest.raises(ConfigError, match="output_dir = .*is a file, must be a folder"):
        validate_training_config(
            TrainingConfig(train_data_file=scan, output_dir=scan / "run"), architectures=KNOWN
        )
    validate_inference_config(InferenceConfig(test_data_file=scan), architectures=KNOWN)  # the shipped one


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"precision": "64"}, "PyTorchExecutionConfig.precision = '64': must be one of '32-true'"),
        ({"devices": 0}, "PyTorchExecutionConfig.devices = 0: must be an integer >= 1"),
        ({"learning_rate": 0.0}, "PyTorchExecutionConfig.learning_rate = 0.0: must be a number > 0"),
        ({"accelerator": "tpu"}, "PyTorchExecutionConfig.accelerator = 'tpu': must be one of 'auto'"),
        ({"persistent_workers": True}, "persistent_workers = True: needs num_workers >= 1"),
        ({"prefetch_factor": 2}, "prefetch_factor = 2: needs num_workers >= 1"),
        ({"logger_backend": "wandb"}, "PyTorchExecutionConfig.logger_backend = 'wandb': must be one of"),
        ({"checkpoint_mode": "median"}, "checkpoint_mode = 'median': must be one of 'min', 'max'"),
        ({"accum_steps": 1.5}, "PyTorchExecutionConfig.accum_steps = 1.5: must be an integer >= 1"),
    ],
)
def test_an_execution_configuration_is_checked_when_built(fields, message):
    with pytest.raises(ConfigError) as error:
        PyTorchExecutionConfig(**fields)
    assert message in str(error.value)


def test_something_else_in_place_of_the_model_is_refused():
    with pytest.raises(ConfigError, match="model = 3: must be a ptycho.config.config.ModelConfig"):
        validate_training_config(TrainingConfig(model=3), require_files=False)  # type: ignore[arg-type]


def test_the_old_name_of_n_groups_warns_and_counts():
    assert resolve_n_groups(TrainingConfig()) is None
    assert resolve_n_groups(InferenceConfig(n_groups=5)) == 5
    with pytest.warns(DeprecationWarning, match="n_groups"):
        assert resolve_n_groups(TrainingConfig(n_images=7)) == 7
    with pytest.warns(DeprecationWarning, match="old"), pytest.raises(ConfigError, match="drop n_images"):
        resolve_n_groups(TrainingConfig(n_images=7, n_groups=8))


def test_the_registry_of_networks_is_asked_when_no_names_are_given():
    validate_model_config(ModelConfig())
    validate_model_config(ModelConfig(architecture="cnn"))
    with pytest.raises(
        ConfigError, match="architecture = 'vit': must be a registered network: one of .*'cnn'"
    ):
        validate_model_config(ModelConfig(architecture="vit"))
