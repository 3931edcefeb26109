"""Presets: named starting points for a run, plain YAML in `ptycho/conf/preset`, usable without Hydra.

A preset holds the keys of a run's own YAML file, so it has no schema of its own.  Its `defaults` list, which
only chooses the data of an experiment, is for Hydra and left out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ptycho.errors import ConfigError

CONF = Path(__file__).resolve().parents[1] / "conf"


def options(group: str, folder: Path = CONF) -> tuple[str, ...]:
    """The names of the files of a configuration group, sorted."""
    return tuple(sorted(path.stem for path in (folder / group).glob("*.yaml")))


def preset_values(name: str) -> dict[str, Any]:
    """The settings of a preset, as `load_yaml_config` would read them from a file of the user's.

    Raises ConfigError for an unknown name, naming the nearest and all of them.
    """
    from ptycho.config.yaml_io import load_yaml_config

    known = options("preset")
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown preset {name!r}; nearest known: {near!r}; known: {', '.join(known)}")
    values = load_yaml_config(CONF / "preset" / f"{name}.yaml")
    values.pop("defaults", None)
    return values


def beneath(preset: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a YAML file, completed by a preset: a key in the file overrides the preset's.

    A key may stand at the top level in one and in a section of the other, so keys are compared by name.
    """
    merged = dict(values)
    for key, value in preset.items():
        if not isinstance(value, Mapping):
            merged.setdefault(key, value)
            continue
        section = merged.get(key, {})
        if isinstance(section, Mapping):
            kept = {name: inner for name, inner in value.items() if name not in values}
            merged[key] = {**kept, **section}
    return merged
