"""Composed runs: Hydra joins groups and overrides, the package's own dataclasses check the result.

The schema for Hydra is made from TrainingConfig, PyTorchExecutionConfig and Scenario, so that a new field
there can be set here. The result goes through `training_config_from`, as a YAML file does. Only Hydra's
compose API is used: it writes no folder and changes neither the working directory nor logging. Its own global
state is restored.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ptycho.config.fields import allowed, describe_fields
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.config.yaml_io import training_config_from
from ptycho.errors import ConfigError, InputError, MissingDependencyError, MissingFileError
from ptycho.experiments.presets import CONF, options
from ptycho.simulation.scenario import Scenario

GROUPS = ("data", "model", "objectives", "training", "logger", "trainer", "preset")
_PRIMARY = "experiment"
_SECTIONS: dict[str, type] = {"model": ModelConfig, "execution": PyTorchExecutionConfig, "scenario": Scenario}
_ADDED: tuple[tuple[str, Any], ...] = (
    ("execution", PyTorchExecutionConfig),
    ("scenario", Scenario | None),
)


class Point(NamedTuple):
    """One run of a sweep: its Hydra overrides, and the swept values by key."""

    overrides: tuple[str, ...]
    swept: dict[str, str]


class Setting(NamedTuple):
    """A composed run: configurations as the plain command line has them, and the scan to simulate, if any.

    n_is_fixed: whether the user said what N must be; it is read from the scan otherwise.
    """

    config: TrainingConfig
    execution: PyTorchExecutionConfig
    scenario: Scenario | None
    n_is_fixed: bool


def require_hydra() -> None:
    """Raise MissingDependencyError with the command that installs Hydra, where it is absent."""
    try:
        import hydra  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "ptycho_experiment needs Hydra: pip install 'ptychopinn[experiment]'"
        ) from None


def points(words: Sequence[str], *, multirun: bool, own: Path | None = None) -> list[Point]:
    """The runs that overrides in Hydra's grammar ask for, the last key fastest.

    own: a folder of further groups. Raises ConfigError: bad grammar, unknown key or option, a sweep over an
    interval, or one without `multirun`; MissingFileError: no such folder.
    """
    with _hydra(own) as loader:
        parsed = [_parsed(word, loader, own) for word in words]
        axes: list[list[str]] = []
        names: dict[int, str] = {}
        for word, override in zip(words, parsed, strict=True):
            if not override.is_sweep_override():
                axes.append([word])
                continue
            if not multirun:
                raise ConfigError(
                    f"{word}: several values are a sweep: add --multirun, or quote or bracket them"
                )
            if not override.is_discrete_sweep():
                raise ConfigError(f"{word}: an interval has no first value: use range(START,STOP,STEP)")
            values = list(override.sweep_string_iterator())
            if not values:
                raise ConfigError(f"{word}: no value to sweep over")
            names[len(axes)] = str(override.key_or_group)
            axes.append([f"{override.get_key_element()}={value}" for value in values])
    found = []
    for chosen in itertools.product(*axes):
        swept = {name: chosen[index].partition("=")[2] for index, name in names.items()}
        found.append(Point(tuple(chosen), swept))
    return found


def settings_of(overrides: Sequence[str], *, own: Path | None = None) -> Setting:
    """The run that groups and overrides (no sweeps) make; raises ConfigError with one line."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with _hydra(own):
        from hydra import compose

        try:
            composed = compose(_PRIMARY, [*overrides, *_search_path(own)])
            values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise _explained(error) from error
    assert isinstance(values, dict)
    return _checked({str(key): value for key, value in values.items()}, _fixes_n(overrides))


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


@contextmanager
def _hydra(own: Path | None) -> Iterator[Any]:
    """Hydra over our folder, for the time of a `with`; yields its loader of groups."""
    require_hydra()
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    if own is not None and not own.is_dir():
        raise MissingFileError(
            f"--config_dir {own}: no such folder; give a folder of groups, as in {CONF.name}/"
        )
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), job_name="ptycho_experiment", version_base="1.3"):
            ConfigStore.instance().store(name="schema", node=_node(TrainingConfig, _ADDED))
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = before


def _search_path(own: Path | None) -> list[str]:
    return [] if own is None else [f"hydra.searchpath=[{_quoted('file://' + str(own.resolve()))}]"]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@functools.cache
def _node(cls: type, added: tuple[tuple[str, Any], ...] = ()) -> type:
    """A mutable copy of a configuration dataclass for OmegaConf; types that it does not support become
    Any.
    """
    hints = typing.get_type_hints(cls)
    entries: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(cls):
        entries.append((field.name, *_entry(hints[field.name], field)))
    for name, hint in added:
        entries.append((name, *_entry(hint, None)))
    return dataclasses.make_dataclass(cls.__name__, entries)


def _entry(hint: Any, field: Any) -> tuple[Any, Any]:
    inner = next((a for a in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(a)), None)
    if inner is not None:
        node = _node(typing.cast(type, inner))
        return (node if inner is hint else node | None), dataclasses.field(default_factory=node)
    if field.default is dataclasses.MISSING:
        return _expressible(hint), dataclasses.field(default_factory=field.default_factory)
    return _expressible(hint), dataclasses.field(default=field.default)


@functools.cache
def _expressible(hint: Any) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.structured(dataclasses.make_dataclass("Probe", [("value", hint)]))
    except (OmegaConfBaseException, TypeError):
        return Any
    return hint


def _parsed(word: str, loader: Any, own: Path | None) -> Any:
    """An override, its key or group option looked up."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        (override,) = OverridesParser.create(config_loader=loader).parse_overrides([word])
    except HydraException as error:
        problem = str(error).splitlines()[1:2] or [str(error)]
        raise ConfigError(f"{word!r}: {problem[0]}; an override is KEY=VALUE, as in nepochs=20") from None
    key = str(override.key_or_group)
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        raise ConfigError(
            f"{word}: Hydra's own settings are fixed here; the folder of a run is output_dir=OUT"
        )
    groups = _groups(own)
    if key in groups:
        known = [*groups[key], "null"]
        wanted = [] if override.is_delete() else _option_names(override)
        for name in wanted:
            if name not in known:
                near = get_close_matches(name, known, n=1, cutoff=0.0)[0]
                raise ConfigError(
                    f"unknown option {key}={name}; nearest known: {near!r}; known: {', '.join(known)}"
                )
        return override
    _check_key(key, groups)
    return override


def _option_names(override: Any) -> list[str]:
    if override.is_sweep_override():
        return list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
    value = override.value()
    return (
        [str(name) for name in value]
        if isinstance(value, list)
        else ["null" if value is None else str(value)]
    )


def _groups(own: Path | None) -> dict[str, tuple[str, ...]]:
    """Options by group, the user's own folder included."""
    folders = [CONF, *([own] if own is not None else [])]
    names = {path.name for folder in folders for path in folder.iterdir() if path.is_dir()} - {"__pycache__"}
    return {name: tuple(o for folder in folders for o in options(name, folder)) for name in sorted(names)}


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
    lines = [line.strip() for line in str(error).splitlines()]
    if error.__cause__ is not None:
        lines += [line.strip() for line in str(error.__cause__).splitlines()[:1]]
    end = next((i for i, line in enumerate(lines) if line.startswith("Config search path")), len(lines))
    return ConfigError("experiment: " + " ".join(line for line in lines[:end] if line))
