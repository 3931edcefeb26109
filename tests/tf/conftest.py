"""Small runs that several TensorFlow tests share; without TensorFlow they skip, in CI they fail."""

from __future__ import annotations

import dataclasses
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.raw_data import RawData

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.tf)


@pytest.fixture(autouse=True, scope="session")
def tensorflow() -> None:
    """TensorFlow, or a skip with the reason; a failure in CI."""
    if find_spec("tensorflow") is not None:
        return
    message = "TensorFlow is not installed: pip install 'ptychopinn[tf]'"
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def small_config():
    """Builds a TrainingConfig for a scan: two epochs, no files, the file's probe; keywords replace fields,
    model fields included.
    """

    def build(raw: RawData, **changes: Any) -> TrainingConfig:
        model_fields = {f.name for f in dataclasses.fields(ModelConfig)}
        model = {key: changes.pop(key) for key in list(changes) if key in model_fields}
        settings = {
            "nepochs": 2, "output_dir": Path(), "batch_size": 8, "probe_from": "guess",
            "backend": "tensorflow", **changes,
        }  # fmt: skip
        return TrainingConfig(model=ModelConfig(**{"N": raw.N, "n_filters_scale": 1, **model}), **settings)

    return build


@pytest.fixture
def silent() -> PyTorchExecutionConfig:
    """Nothing written, nothing shown."""
    return PyTorchExecutionConfig(logger_backend="none", enable_checkpointing=False, accelerator="cpu")


@pytest.fixture
def execute():
    """Builds an execution configuration: silent, but keywords replace fields."""

    def build(**changes: Any) -> PyTorchExecutionConfig:
        quiet = {"logger_backend": "none", "enable_checkpointing": False, "accelerator": "cpu"}
        return PyTorchExecutionConfig(**{**quiet, **changes})

    return build
