"""The Lightning side's configurations and models by the names that older programs use."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from ptycho.config.settings import InferenceConfig, PyTorchExecutionConfig
from ptycho.config.settings import ModelConfig as OurModelConfig
from ptycho.config.settings import TrainingConfig as OurTrainingConfig
from ptycho.errors import ConfigError
from ptycho.workflows.backend_selector import load_inference_bundle_with_backend, run_cdi_example_with_backend
from ptycho_torch.config_bridge import from_training_config, to_model_config, to_training_config
from ptycho_torch.config_params import DataConfig, ModelConfig, TrainingConfig
from ptycho_torch.workflows.components import load_inference_bundle_torch


def test_two_names_of_one_setting():
    """`config_params.TrainingConfig` by the names that older programs use."""
    made = TrainingConfig(lr_warmup_epochs=7, lr_min_ratio=0.2, torch_loss_mode="mae")
    assert (made.warmup_epochs, made.min_lr_ratio) == (7, 0.2) == (made.lr_warmup_epochs, made.lr_min_ratio)
    made.lr_warmup_epochs = 3
    assert made.warmup_epochs == 3 and replace(made, warmup_epochs=4).lr_warmup_epochs == 4
    assert "lr_warmup_epochs" not in {field.name for field in fields(TrainingConfig)}
    with pytest.raises(ConfigError, match="lr_min_ratio = 0.2 and min_lr_ratio = 0.1 are one setting"):
        TrainingConfig(lr_min_ratio=0.2, min_lr_ratio=0.1)
    with pytest.raises(TypeError, match="lr_warmup"):
        TrainingConfig(lr_warmup=3)

    data, model = DataConfig(), ModelConfig()
    ours = to_training_config(to_model_config(data, model), data, model, made)
    assert (ours.lr_warmup_epochs, ours.lr_min_ratio, ours.torch_loss_mode) == (3, 0.2, "mae")
    again = from_training_config(ours)
    assert to_training_config(ours.model, again[0], again[1], again[2]) == ours


def test_a_bundle_opened_as_a_dictionary_of_models(make_scan, tmp_path, caplog):
    """Older programs take the model out by its name; it is the model, and the pair stays a pair."""
    scan = make_scan()
    config = OurTrainingConfig(
        OurModelConfig(N=scan.N, n_filters_scale=1), nepochs=1, probe_from="guess", output_dir=tmp_path
    )
    quiet = PyTorchExecutionConfig(accelerator="cpu", logger_backend=None, enable_checkpointing=False)
    options = {"torch_execution_config": quiet}
    amplitude, _, _ = run_cdi_example_with_backend(
        scan, None, config, False, False, False, 20, True, **options
    )
    assert amplitude.ndim == 2
    inference = InferenceConfig(config.model, model_path=tmp_path)
    chosen = load_inference_bundle_with_backend(tmp_path, inference)
    assert chosen["diffraction_to_obj"] is chosen[0] and chosen[1]["backend"] == "pytorch"
    opened = load_inference_bundle_torch(tmp_path)
    model, settings = opened
    caplog.clear()
    caplog.set_level("INFO")
    assert opened["diffraction_to_obj"] is model and model["diffraction_to_obj"] is model
    assert "a bundle holds one model: ['diffraction_to_obj'] is not needed" in caplog.text
    assert "diffraction_to_obj" in model and "other" not in model
    with pytest.raises(KeyError, match="no model 'other'"):
        model["other"]
    scaled = np.ones((2, scan.N, scan.N, 1)) * settings["intensity_scale"]
    offsets = np.zeros((2, 1, 2, 1))
    patches = model["diffraction_to_obj"].predict([scaled, offsets])
    np.testing.assert_array_equal(patches, model.predict([scaled, offsets]))
