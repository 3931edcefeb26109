"""The settings of a run as one flat table, objectives resolved: what two runs are compared by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptycho.config.fields import describe_fields
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.objectives.manifest import resolve

#: an address may hold a password
_LEFT_OUT = ("mlflow_uri",)
_PARTS: tuple[tuple[str, type], ...] = (
    ("", TrainingConfig), ("model.", ModelConfig), ("execution.", PyTorchExecutionConfig)
)  # fmt: skip


def run_parameters(config: TrainingConfig, execution: PyTorchExecutionConfig) -> dict[str, Any]:
    """Every field, `model.` and `execution.` before those of the parts; None, numbers, booleans and text.

    `objectives` and `diagnostics` are the resolved lists as JSON, whatever way they were given;
    `objectives_checksum` is equal for runs that minimise the same. Raises ConfigError as `resolve`.
    """
    manifest = resolve(config)
    resolved = {
        **{name: json.dumps(modules) for name, modules in manifest.as_dict().items()},
        "objectives_checksum": manifest.checksum,
    }
    made = {
        prefix + info.name: _plain(getattr(part, info.name))
        for (prefix, cls), part in zip(_PARTS, (config, config.model, execution), strict=True)
        for info in describe_fields(cls)
        if info.name not in _LEFT_OUT
    }
    return {**made, **resolved}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return json.dumps(value, default=str)
    return str(value) if isinstance(value, Path) else value
