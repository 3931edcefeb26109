"""Hydra's compose API as this package uses it: groups of settings in folders, overrides, sweeps.

It writes no folder and changes neither the working directory nor logging. Its own global state is restored.
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

from ptycho.errors import ConfigError, MissingDependencyError, MissingFileError
from ptycho.experiments.presets import options


class Point(NamedTuple):
    """One run of a sweep: its Hydra overrides, and the swept values by key."""

    overrides: tuple[str, ...]
    swept: dict[str, str]


def require_hydra() -> None:
    """Raise MissingDependencyError with the command that installs Hydra, where it is absent."""
    try:
        import hydra  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "ptycho_experiment needs Hydra: pip install 'ptychopinn[experiment]'"
        ) from None


@contextmanager
def session(folder: Path, nodes: Mapping[str, type], own: Path | None = None) -> Iterator[Any]:
    """Hydra over a folder of groups, for the time of a `with`; yields its loader of groups.

    nodes: schemas by name, for the lists `defaults`. own: a folder of further groups.
    Raises MissingFileError.
    """
    require_hydra()
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    if own is not None and not own.is_dir():
        raise MissingFileError(
            f"--config_dir {own}: no such folder; give a folder of groups, as in {folder.name}/"
        )
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), job_name="ptycho_experiment", version_base="1.3"):
            for name, node in nodes.items():
                ConfigStore.instance().store(name=name, node=node)
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = before


def _search_path(own: Path | None) -> list[str]:
    return [] if own is None else [f"hydra.searchpath=[{_quoted('file://' + str(own.resolve()))}]"]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def refusals() -> tuple[type[Exception], ...]:
    """What Hydra and OmegaConf raise for settings that they refuse."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return HydraException, OmegaConfBaseException


def composed(primary: str, overrides: Sequence[str], own: Path | None = None) -> dict[str, Any]:
    """The plain values that a primary file and overrides make, inside a `session`. Raises `refusals()`."""
    from hydra import compose
    from omegaconf import OmegaConf

    made = compose(primary, [*overrides, *_search_path(own)])
    values = OmegaConf.to_container(made, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def one_line(error: Exception) -> str:
    """What Hydra or OmegaConf says, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    if error.__cause__ is not None:
        lines += [line.strip() for line in str(error.__cause__).splitlines()[:1]]
    end = next((i for i, line in enumerate(lines) if line.startswith("Config search path")), len(lines))
    return " ".join(line for line in lines[:end] if line)


@functools.cache
def node_of(cls: type, added: tuple[tuple[str, Any], ...] = ()) -> type:
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
        node = node_of(typing.cast(type, inner))
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


def groups_in(folders: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """The options of every group in these folders, by the group's name."""
    names = {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}
    found = {name: tuple(o for folder in folders for o in options(name, folder)) for name in sorted(names)}
    return {name: known for name, known in found.items() if known}


def parsed_word(word: str, loader: Any, groups: Mapping[str, tuple[str, ...]]) -> Any:
    """An override in Hydra's grammar; an option of a group must be known. Raises ConfigError."""
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


def expand(words: Sequence[str], parsed: Sequence[Any], *, multirun: bool) -> list[Point]:
    """The runs that parsed overrides ask for, the last key fastest.

    Raises ConfigError: a sweep over an interval, over nothing, or one without `multirun`.
    """
    axes: list[list[str]] = []
    names: dict[int, str] = {}
    for word, override in zip(words, parsed, strict=True):
        if not override.is_sweep_override():
            axes.append([word])
            continue
        if not multirun:
            raise ConfigError(f"{word}: several values are a sweep: add --multirun, or quote or bracket them")
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


def _option_names(override: Any) -> list[str]:
    if override.is_sweep_override():
        return list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
    value = override.value()
    return (
        [str(name) for name in value]
        if isinstance(value, list)
        else ["null" if value is None else str(value)]
    )
