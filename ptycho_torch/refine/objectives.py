"""Objectives for Adam: those of training, evaluated on the counts of a scan and its object.

The names, settings and weights are those of `ptycho.objectives`, the formulas those of `ptycho.forward`,
amplitudes in the gauge of x ((N/2)^2 a pattern): a list of a training configuration means the same here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from ptycho.config.fields import Unfit, all_fields, coerce, shown
from ptycho.errors import ConfigError
from ptycho.forward import losses, penalties
from ptycho.objectives.terms import OBJECTIVES as DECLARED
from ptycho_torch.refine.scan import RefineScan

PerPixel = Callable[[Tensor, Tensor, float], Tensor]
#: (model counts, measured counts, floor) -> one number per pixel, to be minimised
PER_PIXEL: dict[str, PerPixel] = {
    "poisson": lambda model, counts, floor: model - (counts + floor) * torch.log(model + floor),
    "amplitude": lambda model, counts, floor: 2 * ((model + floor).sqrt() - (counts + floor).sqrt()).square(),
    "mae": lambda model, counts, floor: ((model + floor).sqrt() - (counts + floor).sqrt()).abs(),
}
_KEYS = ("name", "weight", "config")


@dataclass
class ObjectiveInput:
    """The input of a term: model counts (B, N, N) of the patterns `index` (B,), the object (H, W)."""

    scan: RefineScan
    model: Tensor
    index: Tensor
    object: Tensor

    @property
    def counted(self) -> Tensor:
        """1 for a pixel that counts, (N, N)."""
        return torch.ones_like(self.model[0]) if self.scan.good is None else self.scan.good

    @property
    def measured_counts(self) -> Tensor:
        """Measured counts (B, N, N)."""
        return self.scan.counts[self.index]

    def amplitudes(self) -> tuple[Tensor, Tensor]:
        """Amplitude of model and measurement, both in the gauge of x."""
        gauge, floor = self.scan.n / 2 / self.scan.mean_counts**0.5, self.scan.floor
        return gauge * (self.model + floor).sqrt(), gauge * (self.measured_counts + floor).sqrt()


Objective = Callable[[ObjectiveInput], Tensor]
_TERMS: dict[str, Callable[[ObjectiveInput, Any], Tensor]] = {
    # the floor keeps the logarithm finite for zero counts; the deviance has the gradient of the likelihood
    "poisson_nll": lambda s, o: losses.shifted_poisson(s.model, s.measured_counts, s.counted, s.scan.floor),
    "gaussian_poisson": lambda s, o: losses.shifted_poisson(
        s.model, s.measured_counts, s.counted, o.read_noise_counts**2 + s.scan.floor
    ),
    "amplitude_mae": lambda s, o: losses.amplitude_mae(*s.amplitudes(), s.counted),
    "amplitude_charbonnier": lambda s, o: losses.amplitude_charbonnier(*s.amplitudes(), s.counted, o.epsilon),
    "total_variation": lambda s, o: losses.total_variation(s.object),
    "smoothness": lambda s, o: penalties.smoothness(s.object),
}
_OF_THE_OBJECT = ("total_variation", "smoothness")


def named_objective(objective: str | PerPixel | Sequence[str | Mapping[str, Any]]) -> Objective:
    """The objective of a batch, made from its name or a list of terms.

    A name; a function of (model counts, measured counts, floor), one number a pixel; or a list as in
    `TrainingConfig.objectives`: names or mappings {name, weight, config}. Raises ConfigError naming the
    nearest known.
    """
    if callable(objective):
        return _summed(objective)
    if isinstance(objective, str) and objective in PER_PIXEL:
        return _summed(PER_PIXEL[objective])
    entries = [objective] if isinstance(objective, str) else list(objective)
    terms = [_term({"name": entry} if isinstance(entry, str) else entry) for entry in entries]
    names = [name for name, _, _ in terms]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"objective: {twice[0]!r} is there twice; keep one")
    if all(name in _OF_THE_OBJECT for name in names):
        raise ConfigError("objective: no data term; add one such as 'poisson_nll'")

    def total(seen: ObjectiveInput) -> Tensor:
        return torch.stack([weight * _TERMS[name](seen, settings) for name, weight, settings in terms]).sum()

    return total


def _summed(per_pixel: PerPixel) -> Objective:
    """The sum over a pattern's pixels that count, mean over the batch."""

    def total(seen: ObjectiveInput) -> Tensor:
        values = per_pixel(seen.model, seen.measured_counts, seen.scan.floor)
        return (values * seen.counted).sum() / len(seen.index)

    return total


def _term(entry: Mapping[str, Any]) -> tuple[str, float, Any]:
    """Name, weight and settings of one entry, checked."""
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise ConfigError(
            f"objective: {shown(entry)} must be a name or a mapping such as {{name: poisson_nll}}"
        )
    name = str(entry["name"])
    if name not in _TERMS:
        if name in DECLARED:
            raise ConfigError(
                f"objective: {name!r} is not minimised here; use {', '.join(_TERMS)}, or an option of the "
                "reconstruction such as probe_support"
            )
        raise ConfigError(
            f"objective: unknown name {name!r}; nearest known: {_nearest(name, (*_TERMS, *PER_PIXEL))!r}"
        )
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(
                f"objective.{name}: unknown key {shown(key)}; nearest known: {_nearest(str(key), _KEYS)!r}"
            )
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
        raise ConfigError(f"objective.{name}.weight = {shown(weight)}: must be a number > 0")
    return name, float(weight), _settings(name, entry.get("config") or {})


def _settings(name: str, given: Mapping[str, Any]) -> Any:
    """The settings of a term as its own dataclass."""
    kind = DECLARED[name].settings
    known, values = {field.name: field for field in all_fields(kind)}, {}
    for key, value in given.items():
        if key not in known:
            hint = f"; nearest known: {_nearest(str(key), known)!r}" if known else "; it has no settings"
            raise ConfigError(f"objective.{name}.config: unknown key {shown(key)}{hint}")
        try:
            values[key] = coerce(known[key], value)
        except Unfit as unfit:
            raise ConfigError(f"objective.{name}.config.{key} = {shown(value)}: {unfit}") from unfit
    return kind(**values)


def _nearest(name: str, known: Any) -> str:
    return str(get_close_matches(name, list(known), n=1, cutoff=0.0)[0])
