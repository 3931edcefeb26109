"""The one-way mirror from the dataclasses to the legacy dictionary (CONFIG-001).

Readers outside the package look settings up under their old names; the package itself never reads them back
from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from ptycho.errors import ConfigError

KEY_MAPPINGS: dict[str, str] = {
    "object_big": "object.big",
    "probe_big": "probe.big",
    "probe_mask": "probe.mask",
    "probe_trainable": "probe.trainable",
    "intensity_scale_trainable": "intensity_scale.trainable",
    "positions_provided": "positions.provided",
    "output_dir": "output_prefix",
    "train_data_file": "train_data_file_path",
    "test_data_file": "test_data_file_path",
}
"""Field name -> legacy key; every other field keeps its name."""


def dataclass_to_legacy_dict(config: Any) -> dict[str, Any]:
    """A model, training or inference configuration under legacy keys, flat; paths become strings.

    Raises ConfigError for the execution configuration, which describes a machine and not a model.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ConfigError(f"a configuration dataclass is needed, got {type(config).__name__}")
    if type(config).__name__ == "PyTorchExecutionConfig":
        raise ConfigError("PyTorchExecutionConfig never goes to params.cfg: pass it as execution_config")
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat.update(dataclass_to_legacy_dict(value))
        else:
            flat[KEY_MAPPINGS.get(field.name, field.name)] = str(value) if isinstance(value, Path) else value
    return flat


def update_legacy_dict(cfg: MutableMapping[str, Any], config: Any) -> None:
    """Write every field of `config` into `cfg` under its legacy key; other keys of `cfg` stay.

    None is written too: a mirror that kept an older value would show what is no longer configured.

    >>> from ptycho.config.settings import ModelConfig
    >>> mirror = {}
    >>> update_legacy_dict(mirror, ModelConfig(N=128))
    >>> mirror["N"], mirror["object.big"]
    (128, True)
    """
    cfg.update(dataclass_to_legacy_dict(config))
