"""Small runs that several torch tests share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from delta_network import Deltas

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.networks import graphs as architectures
from ptycho.raw_data import RawData
from ptycho.scan.normalization import normalize_probe


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


@pytest.fixture
def deltas(monkeypatch) -> str:
    """The name of a registered architecture that answers deltas."""
    monkeypatch.setattr(architectures, "_REGISTRY", dict(architectures._REGISTRY))
    architectures.register("deltas")(lambda spec: Deltas(spec.out_channels))
    return "deltas"


@pytest.fixture
def delta_module(deltas, small_config):
    """Builds (module, container, config) for a scan; keywords are fields of the configuration."""

    from ptycho_torch.config_bridge import from_training_config
    from ptycho_torch.model import PtychoPINN_Lightning
    from ptycho_torch.workflows import components

    def build(raw, **changes):
        config = small_config(raw, architecture=deltas, **changes)
        container = components._ensure_container(raw, config)
        scan, model, run, inference = from_training_config(config, PyTorchExecutionConfig())
        module = PtychoPINN_Lightning(model, scan, run, inference)
        modes, factor = normalize_probe(container.probe, config.model.probe_scale)
        module.attach_scan(modes, x_scale=container.x_scale, nphotons=container.nphotons, probe_factor=factor)
        return module, container, config

    return build
