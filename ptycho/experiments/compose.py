"""Composed runs: Hydra joins groups and overrides, the package's own dataclasses check the result.

The schema for Hydra is made from TrainingConfig, PyTorchExecutionConfig and Scenario, so that a new field
there can be set here. The result goes through `training_config_from`, as a YAML file does. Only Hydra's
compose API is used, see `ptycho.experiments.session`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ptycho.config.fields import allowed, describe_fields
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.config.yaml_io import training_config_from
from ptycho.errors import ConfigError, InputError
from ptycho.experiments.presets import CONF
from ptycho.experiments.session import (
    Point,
    composed,
    expand,
    groups_in,
    node_of,
    one_line,
    parsed_word,
    refusals,
    session,
)
from ptycho.simulation.scenario import Scenario

GROUPS = ("data", "model", "objectives", "training", "logger", "trainer", "preset")
_PRIMARY = "experiment"
_SECTIONS: dict[str, type] = {"model": ModelConfig, "execution": PyTorchExecutionConfig, "scenario": Scenario}
_ADDED: tuple[tuple[str, Any], ...] = (
    ("execution", PyTorchExecutionConfig),
    ("scenario", Scenario | None),
)


class Setting(NamedTuple):
    """A composed run: configurations as the plain command line has them, and the scan to simulate, if any.

    n_is_fixed: whether the user said what N must be; it is read from the scan otherwise.
    """

    config: TrainingConfig
    execution: PyTorchExecutionConfig
    scenario: Scenario | None
    n_is_fixed: bool


def points(words: Sequence[str], *, multirun: bool, own: Path | None = None) -> list[Point]:
    """The runs that overrides in Hydra's grammar ask for, the last key fastest.

    own: a folder of further groups. Raises ConfigError: bad grammar, unknown key or option, a sweep over an
    interval, or one without `multirun`; MissingFileError: no such folder.
    """
    with _session(own) as loader:
        groups = groups_in(_folders(own))
        parsed = [_parsed(word, loader, groups) for word in words]
        return expand(words, parsed, multirun=multirun)


def settings_of(overrides: Sequence[str], *, own: Path | None = None) -> Setting:
    """The run that groups and overrides (no sweeps) make; raises ConfigError with one line."""
    with _session(own):
        try:
            values = composed(_PRIMARY, overrides, own)
        except refusals() as error:
            raise _explained(error) from error
    return _checked(values, _fixes_n(overrides))


def _checked(values: dict[str, Any], n_is_fixed: bool) -> Setting:
    chosen = values.pop("scenario", None)
    config, execution = training_config_from(values, source="experiment")
    scenario = None
    if config.train_data_file is None:
        if chosen is None:
            raise InputError("no scan: give train_data_file=FILE, or data=simulated")
        pairs: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in chosen.items()}
        unknown = [name for name in pairs if name not in _names(Scenario)]
        if unknown:
            raise _unknown(f"scenario.{unknown[0]}", unknown[0], _names(Scenario))
        scenario = Scenario(**pairs)
        scenario.validate()
    return Setting(config, execution, scenario, n_is_fixed)


def _fixes_n(overrides: Sequence[str]) -> bool:
    return any(word.lstrip("+").startswith("model.N=") for word in overrides)


def _session(own: Path | None) -> AbstractContextManager[Any]:
    return session(CONF, {"schema": node_of(TrainingConfig, _ADDED)}, own)


def _folders(own: Path | None) -> list[Path]:
    return [CONF, *([own] if own is not None else [])]


def _parsed(word: str, loader: Any, groups: Mapping[str, tuple[str, ...]]) -> Any:
    """An override, its key or group option looked up."""
    override = parsed_word(word, loader, groups)
    if override.key_or_group not in groups:
        _check_key(str(override.key_or_group), groups)
    return override


def _check_key(key: str, groups: Mapping[str, Any]) -> None:
    section, dot, name = key.partition(".")
    if dot and section in _SECTIONS:
        known = _names(_SECTIONS[section])
        if name not in known:
            raise _unknown(key, name, known)
    elif key.split(".")[0].split("[")[0] not in {*_names(TrainingConfig), *_SECTIONS}:
        inside = {f"{part}.{name}" for part, cls in _SECTIONS.items() for name in _names(cls)}
        direct = [path for path in inside if path.endswith(f".{key}")]
        raise _unknown(key, key, direct or [*_names(TrainingConfig), *groups, *inside])


def _names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if field.name != "model"]


def _unknown(shown: str, name: str, known: Sequence[str]) -> ConfigError:
    near = get_close_matches(name, known, n=1, cutoff=0.0)
    return ConfigError(f"experiment: unknown key {shown!r}; nearest known: {near[0]!r}")


def _explained(error: Exception) -> ConfigError:
    """What Hydra or OmegaConf refused, in our words where the field is known, on one line."""
    cause: BaseException | None = error
    while cause is not None:
        key = getattr(cause, "full_key", None)
        if isinstance(key, str) and key:
            section, dot, name = key.rpartition(".")
            cls = _SECTIONS.get(section, TrainingConfig)
            info = (
                next((i for i in describe_fields(cls) if i.name == name), None)
                if cls is not Scenario
                else None
            )
            if info is not None:
                got = str(getattr(cause, "msg", None) or cause).splitlines()[0]
                return ConfigError(f"experiment: {key} must be {allowed(info)}: {got}")
            if name not in _names(cls) and "[" not in name:
                return _unknown(key, name, _names(cls))
        cause = cause.__cause__ or cause.__context__
    return ConfigError("experiment: " + one_line(error))
