"""The name under which clients import the configuration (ptychodus 1.2 to 1.7, scripts, notebooks).

Nothing is defined here. The package imports each name from the place where it is defined.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptycho.clients.legacy import KEY_MAPPINGS, dataclass_to_legacy_dict, update_legacy_dict
from ptycho.config.settings import (
    DEFAULT_ARCHITECTURE,
    InferenceConfig,
    ModelConfig,
    PyTorchExecutionConfig,
    TrainingConfig,
    resolve_n_groups,
)
from ptycho.run.validation import (
    validate_inference_config,
    validate_model_config,
    validate_training_config,
)

__all__ = [
    "DEFAULT_ARCHITECTURE",
    "KEY_MAPPINGS",
    "InferenceConfig",
    "ModelConfig",
    "PyTorchExecutionConfig",
    "TrainingConfig",
    "dataclass_to_legacy_dict",
    "load_yaml_config",
    "resolve_n_groups",
    "update_legacy_dict",
    "validate_inference_config",
    "validate_model_config",
    "validate_training_config",
]


def load_yaml_config(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file, as written; see `ptycho.config.yaml_io.load_yaml_config`."""
    from ptycho.config.yaml_io import load_yaml_config as load  # YAML is loaded only where it is read

    return load(path)
