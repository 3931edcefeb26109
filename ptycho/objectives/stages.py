"""A run in stages: what trains, on what, at which rate, one stage after another.

Which stage a step belongs to is a pure function of the number of optimiser steps, so a resume inside a stage
goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ptycho.config.fields import shown
from ptycho.config.settings import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.networks.parts import PARTS

#: what `trainable` may name, and the parts of a network that it means (see `ptycho.networks.parts`)
TRAINABLE: dict[str, tuple[str, ...]] = {
    "network": ("encoder_bottom", "encoder_top", "decoder", "amplitude_head", "phase_head"),
    "encoder": ("encoder_bottom", "encoder_top"),
    "encoder_bottom": ("encoder_bottom",),
    "encoder_top": ("encoder_top",),
    "decoder": ("decoder", "amplitude_head", "phase_head"),
    "amplitude_head": ("amplitude_head",),
    "phase_head": ("phase_head",),
    "probe": ("probe",),
    "scale": ("scale",),
}
_KEYS = ("name", "epochs", "steps", "trainable", "objectives", "learning_rate")


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    epochs or steps: its length. trainable: the parts that train; None: those that the run trains. objectives:
    the terms that count; None: all that do not name other stages. learning_rate: None: the run's. part_rates:
    for parts with a rate of their own.
    """

    name: str
    epochs: int | None
    steps: int | None
    trainable: frozenset[str] | None
    objectives: tuple[str, ...] | None
    learning_rate: float | None
    part_rates: tuple[tuple[str, float], ...] = ()

    def trains(self, part: str) -> bool:
        """Whether a part of the model moves in this stage."""
        return self.trainable is None or part in self.trainable

    def rate(self, part: str, otherwise: float) -> float:
        """The highest learning rate of a part in this stage."""
        base = otherwise if self.learning_rate is None else self.learning_rate
        return dict(self.part_rates).get(part, base)


@dataclass(frozen=True)
class Span:
    """A stage on the axis of optimiser steps: from `first` for `length` steps."""

    stage: Stage
    first: int
    length: int


def resolve_stages(config: TrainingConfig) -> tuple[Stage, ...]:
    """The declared stages, checked; none where the run has none.

    Raises ConfigError: no name or the same twice, neither or both of epochs and steps, an unknown key, part
    or term, a bad rate.
    """
    if config.stages is None:
        return ()
    made: list[Stage] = []
    for entry in config.stages:
        stage = _stage(entry)
        if any(other.name == stage.name for other in made):
            raise ConfigError(f"stages: {stage.name!r} is there twice; keep one")
        made.append(stage)
    if not made:
        raise ConfigError("stages: the list is empty; drop it or write one stage")
    if config.scheduler == "ReduceLROnPlateau":
        raise ConfigError(
            "scheduler = 'ReduceLROnPlateau' with stages: a plateau of one objective says nothing of the "
            "next; use Default, Exponential, WarmupCosine or OneCycle"
        )
    for stage in made:
        _check_movable(stage, config)
    return tuple(made)


def spans(stages: tuple[Stage, ...], steps_per_epoch: int) -> tuple[Span, ...]:
    """The stages one after another, in optimiser steps."""
    made: list[Span] = []
    first = 0
    for stage in stages:
        length = stage.steps if stage.steps is not None else (stage.epochs or 0) * steps_per_epoch
        made.append(Span(stage, first, length))
        first += length
    return tuple(made)


def total_epochs(stages: tuple[Stage, ...], steps_per_epoch: int) -> int:
    """Epochs that hold all stages; the last one may end early."""
    return math.ceil(sum(span.length for span in spans(stages, steps_per_epoch)) / max(1, steps_per_epoch))


def span_at(all_spans: tuple[Span, ...], step: int) -> Span:
    """The span of an optimiser step; the last one for steps beyond the end."""
    for span in all_spans:
        if step < span.first + span.length:
            return span
    return all_spans[-1]


def moving(stage: Stage | None, config: TrainingConfig) -> frozenset[str]:
    """The parts that move in a stage, or in a run without stages."""
    parts = frozenset(PARTS) if stage is None or stage.trainable is None else stage.trainable
    supervised = config.model.model_type == "supervised"
    still = {
        "probe": supervised or not config.probe_trainable,
        "scale": supervised or not config.intensity_scale_trainable,
    }
    return parts - {part for part, frozen in still.items() if frozen}


def _check_movable(stage: Stage, config: TrainingConfig) -> None:
    """Refuse a stage that trains nothing, or a part that the run does not train."""
    if stage.trainable is None:
        return
    supervised = config.model.model_type == "supervised"
    for part, setting in (("probe", "probe_trainable"), ("scale", "intensity_scale_trainable")):
        if part in stage.trainable and not getattr(config, setting):
            raise ConfigError(f"stages.{stage.name}.trainable: {part!r} needs {setting}: true")
        if part in stage.trainable and supervised:
            raise ConfigError(
                f"stages.{stage.name}.trainable: {part!r} does not train with model_type 'supervised'"
            )


def _stage(entry: Any) -> Stage:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"stages: {shown(entry)} must be a mapping such as {{name: warm_up, epochs: 5}}")
    for key in entry:
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1, cutoff=0.0)[0]
            raise ConfigError(f"stages: unknown key {shown(key)}; nearest known: {near!r}")
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"stages: {shown(dict(entry))} has no name")
    epochs, steps = (_count(name, key, entry.get(key)) for key in ("epochs", "steps"))
    if (epochs is None) == (steps is None):
        raise ConfigError(f"stages.{name}: give epochs or steps, one of them")
    objectives = entry.get("objectives")
    if objectives is not None:
        objectives = names_in(f"stages.{name}.objectives", objectives)
    rate, part_rates = _rates(name, entry.get("learning_rate"))
    return Stage(name, epochs, steps, _parts(name, entry.get("trainable")), objectives, rate, part_rates)


def names_in(where: str, asked: Any) -> tuple[str, ...]:
    """One name or a list of names as a tuple. Raises ConfigError."""
    names = (asked,) if isinstance(asked, str) else asked
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where} = {shown(asked)}: must be a name or a list of names")
    return tuple(names)


def _count(name: str, key: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"stages.{name}.{key} = {shown(value)}: must be an integer >= 1")
    return value


def _parts(name: str, asked: Any) -> frozenset[str] | None:
    if asked is None:
        return None
    names = names_in(f"stages.{name}.trainable", asked)
    if not names:
        raise ConfigError(f"stages.{name}.trainable: the list is empty; something must train")
    return frozenset(part for group in names for part in _group(f"stages.{name}.trainable", group))


def _group(where: str, group: Any) -> tuple[str, ...]:
    if group not in TRAINABLE:
        near = get_close_matches(str(group), list(TRAINABLE), n=1, cutoff=0.0)[0]
        raise ConfigError(f"{where}: unknown part {shown(group)}; nearest known: {near!r}")
    return TRAINABLE[group]


def _rates(name: str, value: Any) -> tuple[float | None, tuple[tuple[str, float], ...]]:
    """(rate of all parts or None, rates of single parts) from a number or a mapping part -> number."""
    where = f"stages.{name}.learning_rate"
    if value is None:
        return None, ()
    if not isinstance(value, Mapping):
        return _rate(where, value), ()
    rates: dict[str, float] = {}
    for group, rate in value.items():
        rates.update(dict.fromkeys(_group(where, group), _rate(f"{where}.{group}", rate)))
    return None, tuple(rates.items())


def _rate(where: str, value: Any) -> float:
    number = positive(value)
    if number is None:
        raise ConfigError(f"{where} = {shown(value)}: must be a number > 0")
    return number


def positive(value: Any) -> float | None:
    """A finite number above zero, or None; text is read, because YAML takes 1e-3 for text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None
