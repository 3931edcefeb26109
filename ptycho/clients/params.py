"""The legacy dictionary: a mirror of the configuration for readers outside the package.

`update_legacy_dict` fills it; inside the package it is read only where a caller of the old surface passed
nothing.  `intensity_scale` is absent until a training run or a bundle has set it.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from ptycho.clients.legacy import dataclass_to_legacy_dict
from ptycho.config.settings import InferenceConfig, TrainingConfig

cfg: dict[str, Any] = {
    **dataclass_to_legacy_dict(InferenceConfig()),
    **dataclass_to_legacy_dict(TrainingConfig()),
}


_MISSING = object()


def get(key: str, default: Any = _MISSING) -> Any:
    """The value under a legacy key; without it the default, or a KeyError naming the nearest key."""
    if key not in cfg:
        if default is not _MISSING:
            return default
        near = get_close_matches(key, cfg, n=1, cutoff=0.0)
        hint = f"; nearest known: {near[0]!r}" if near else ""
        raise KeyError(f"no parameter {key!r}{hint}")
    return cfg[key]


def set(key: str, value: Any) -> None:
    """Write one value into the mirror; nothing inside the package follows it."""
    cfg[key] = value


def params() -> dict[str, Any]:
    """A copy of the whole mirror."""
    return dict(cfg)
