"""The Lightning side's configurations and models by the names that older programs use."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from ptycho.errors import ConfigError
from ptycho_torch.config_bridge import from_training_config, to_model_config, to_training_config
from ptycho_torch.config_params import DataConfig, ModelConfig, TrainingConfig


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
