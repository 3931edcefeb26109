"""The settings common to all learned tools; making them from values, checking and writing them.

A tool (frames, codec, registration, positions) has a frozen dataclass of its own that extends
`LearnedSettings`; its fields are made by `option`, as those of every configuration.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml

from ptycho.config.fields import Unfit, all_fields, coerce, option, shown
from ptycho.config.yaml_io import load_yaml_config, write_sealed
from ptycho.errors import ConfigError

Settings = TypeVar("Settings", bound="LearnedSettings")

#: settings that may change when a training continues: where and how it runs, what is shown
FREE = frozenset(("output_dir", "resume", "accelerator", "logger", "max_time_s", "figures_every"))


@dataclass(frozen=True)
class LearnedSettings:
    """One training of a learned tool. Everything that is random follows from `seed`."""

    #: names of the files that the training writes at its end
    exports: ClassVar[tuple[str, ...]] = ()

    output_dir: Path = option(Path("learned_out"), help="folder for everything the training writes")
    seed: int = option(0, ge=0, help="seed of weights and of everything that is drawn")
    epochs: int = option(20, ge=1, help="epochs; an evaluation and a checkpoint follow each")
    steps_per_epoch: int = option(100, ge=1, help="optimiser steps in an epoch")
    batch_size: int = option(64, ge=1, help="examples in a step")
    learning_rate: float = option(1e-3, gt=0, help="largest learning rate; it falls as a cosine over the run")
    warmup_steps: int = option(50, ge=0, help="steps in which the learning rate rises from zero")
    weight_decay: float = option(1e-4, ge=0, help="weight decay of AdamW")
    gradient_clip_val: float | None = option(1.0, gt=0, help="largest norm of the gradient; None: any")
    ema_decay: float | None = option(
        0.99, gt=0, lt=1, help="evaluate and keep a moving average of the weights; None: no"
    )
    loss_weights: dict[str, float] = option(dict, help="weights of loss terms by name; empty: the tool's own")
    early_stop_patience: int = option(1000, ge=1, help="epochs without a better value before the end")
    figures_every: int = option(1, ge=0, help="epochs between the pictures of the training; 0: none")
    logger: str = option(
        "csv",
        choices=("csv", "tensorboard", "mlflow", "none"),
        several=True,
        help="where the numbers go",
    )
    accelerator: str = option("auto", choices=("auto", "cpu", "gpu", "cuda", "mps"), help="device")
    max_time_s: float | None = option(None, gt=0, help="stop after so many seconds; None: no limit")
    resume: bool = option(False, help="go on with the training in output_dir")

    def check(self) -> None:
        """Raise ConfigError for values that do not fit each other."""


def settings_from(cls: type[Settings], values: Mapping[str, Any], source: str) -> Settings:
    """Settings of this class from plain values; what is left out has its default.

    Raises ConfigError, which begins with `source`: unknown key (the nearest is named), wrong type, out of
    bounds, values that do not fit each other.

    >>> settings_from(LearnedSettings, {"epochs": 3}, "example").epochs
    3
    """
    made: Settings = _made(cls, values, source, "")
    made.check()
    return made


def _made(cls: type[Any], values: Mapping[str, Any], source: str, prefix: str) -> Any:
    known = {info.name: info for info in all_fields(cls)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        info = known.get(name)
        if info is None:
            near = get_close_matches(str(name), list(known), n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"{source}: unknown key {prefix + str(name)!r}; nearest known: {prefix + near!r}"
            )
        if info.nested:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {prefix}{name} must hold 'key: value' lines")
            found[name] = _made(info.type_, value, source, f"{prefix}{name}.")
            continue
        try:
            found[name] = coerce(info, value, from_text=True)
        except Unfit as error:
            raise ConfigError(f"{source}: {prefix}{name} = {shown(value)}: {error}") from None
    return cls(**found)


def loss_weights(settings: LearnedSettings, terms: Mapping[str, float]) -> dict[str, float]:
    """The weight of every loss term of a tool: its own, or what the settings say. Raises ConfigError.

    >>> loss_weights(LearnedSettings(loss_weights={"edges": 2.0}), {"edges": 1.0, "folds": 0.1})
    {'edges': 2.0, 'folds': 0.1}
    """
    for name, weight in settings.loss_weights.items():
        if name not in terms:
            near = get_close_matches(name, list(terms), n=1, cutoff=0.0)[0]
            raise ConfigError(f"loss_weights.{name}: no such term; nearest known: {near!r}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise ConfigError(f"loss_weights.{name} = {shown(weight)}: must be a number >= 0")
    made = {name: float(settings.loss_weights.get(name, weight)) for name, weight in terms.items()}
    if not any(made.values()):
        raise ConfigError("loss_weights: every term has weight 0, nothing to minimise")
    return made


def plain(settings: Any) -> dict[str, Any]:
    """Every setting as numbers, text, lists and mappings."""
    return {f.name: _plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def weight_settings(settings: LearnedSettings) -> dict[str, Any]:
    """The settings that the weights depend on."""
    return {name: value for name, value in plain(settings).items() if name not in FREE}


def write_settings(settings: LearnedSettings, tool: str, path: Path) -> None:
    """Write every setting as YAML with an end mark. Raises RunError."""
    text = yaml.safe_dump({"tool": tool, **plain(settings)}, sort_keys=False)
    write_sealed(path, text.rstrip("\n").split("\n"))


def check_same_run(settings: LearnedSettings, tool: str, path: Path) -> None:
    """Check that a training can continue: its settings must be those in this file.

    Raises ConfigError: another tool, another value of a setting that the weights depend on.
    """
    begun = load_yaml_config(path)
    if begun.pop("tool", None) != tool:
        raise ConfigError(f"{path}: is not of a training of {tool}; choose its own output_dir")
    former = weight_settings(settings_from(type(settings), begun, str(path)))
    for name, value in _flat(weight_settings(settings)):
        before = dict(_flat(former)).get(name)
        if before != value:
            raise ConfigError(
                f"{name}={shown(value)}: {path.parent} was begun with {shown(before)}; leave it out, or "
                "start another training in another output_dir"
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
