"""Small runs that several torch tests share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.raw_data import RawData


@pytest.fixture
def small_config():
    """Builds a TrainingConfig for a scan: two epochs, no files; keywords replace fields, model fields
    included.
    """

    def build(raw: RawData, **changes: Any) -> TrainingConfig:
        model_fields = {f.name for f in dataclasses.fields(ModelConfig)}
        model = {key: changes.pop(key) for key in list(changes) if key in model_fields}
        settings = {"nepochs": 2, "output_dir": Path(), "batch_size": 8, **changes}
        return TrainingConfig(model=ModelConfig(**{"N": raw.N, "n_filters_scale": 1, **model}), **settings)

    return build


@pytest.fixture
def silent() -> PyTorchExecutionConfig:
    """Nothing written, nothing shown."""
    return PyTorchExecutionConfig(logger_backend="none", enable_checkpointing=False, accelerator="cpu")
