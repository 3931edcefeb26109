"""What one run minimises and watches: declared in the configuration, resolved and checked before the start.

`resolve` makes one `Manifest` from the lists `TrainingConfig.objectives` and `.diagnostics`, or, where there
are none, from the flat settings. Two runs with the same checksum minimise the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ptycho.config.fields import Unfit, all_fields, coerce, shown
from ptycho.config.settings import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.objectives.stages import Stage, moving, names_in, positive, resolve_stages
from ptycho.objectives.terms import DEFAULT_DIAGNOSTICS, DIAGNOSTICS, OBJECTIVES, TermInfo

_KEYS = ("name", "enabled", "weight", "stages", "config")

#: flat setting -> the term it stands for
FLAT_WEIGHTS = {
    "nll_weight": "poisson_nll",
    "mae_weight": "amplitude_mae",
    "realspace_weight": "total_variation",
    "realspace_mae_weight": "realspace_mae",
}


@dataclass(frozen=True)
class Module:
    """One enabled term: its weight, the stages in which it counts (None: all), and its complete settings."""

    name: str
    weight: float = 1.0
    stages: tuple[str, ...] | None = None
    config: tuple[tuple[str, Any], ...] = ()

    def settings(self, known: Mapping[str, TermInfo] = OBJECTIVES) -> Any:
        """The settings as the term's own dataclass."""
        return known[self.name].settings(**dict(self.config))

    def counts_in(self, stage: Stage | None) -> bool:
        """Whether the term belongs to the objective of a stage; None: the run has no stages."""
        if stage is None:
            return True
        named = stage.objectives is None or self.name in stage.objectives
        return named and (self.stages is None or stage.name in self.stages)


@dataclass(frozen=True)
class Manifest:
    """The resolved lists of a run, in order."""

    objectives: tuple[Module, ...]
    diagnostics: tuple[Module, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, complete: what is logged, stored and hashed."""

        def plain(module: Module) -> dict[str, Any]:
            stages = None if module.stages is None else list(module.stages)
            return {
                "name": module.name, "weight": module.weight, "stages": stages, "config": dict(module.config)
            }  # fmt: skip

        return {
            "objectives": [plain(module) for module in self.objectives],
            "diagnostics": [plain(module) for module in self.diagnostics],
        }

    @property
    def checksum(self) -> str:
        """SHA-256 over the objectives: equal for equal minimisation; diagnostics do not count."""
        text = json.dumps(self.as_dict()["objectives"], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def active(self, stage: Stage | None) -> tuple[Module, ...]:
        """The terms that count in a stage."""
        return tuple(module for module in self.objectives if module.counts_in(stage))

    @property
    def needs_labels(self) -> bool:
        """Whether any term compares with object patches."""
        return any(OBJECTIVES[module.name].needs_labels for module in self.objectives)


def resolve(config: TrainingConfig) -> Manifest:
    """The manifest of a run.

    Raises ConfigError: unknown or duplicate name, unknown key, bad weight, nothing to minimise, a flat weight
    beside declared objectives, a stage that does not exist.

    >>> [module.name for module in resolve(TrainingConfig(mae_weight=0.5)).objectives]
    ['poisson_nll', 'amplitude_mae']
    """
    declared = resolve_stages(config)
    stages = tuple(stage.name for stage in declared) if declared else None
    if config.objectives is None:
        objectives = _from_flat(config)
    else:
        objectives = _modules("objectives", config.objectives, OBJECTIVES, stages)
        _refuse_flat(config)
        if not objectives:
            raise ConfigError("objectives: nothing to minimise; enable a term such as {name: poisson_nll}")
    if config.diagnostics is None:
        names = DEFAULT_DIAGNOSTICS if config.model.model_type == "pinn" else ("collapse",)
        diagnostics = tuple(_module("diagnostics", {"name": name}, DIAGNOSTICS, stages) for name in names)
    else:
        diagnostics = _modules("diagnostics", config.diagnostics, DIAGNOSTICS, stages)
    _check_possible(objectives, config)
    made = Manifest(objectives, diagnostics)
    for stage in declared:
        known = [module.name for module in objectives]
        for name in stage.objectives or ():
            if name not in known:
                raise ConfigError(
                    f"stages.{stage.name}.objectives: {name!r} is not among the run's objectives; nearest "
                    f"known: {_nearest(name, known)!r}"
                )
        if not made.active(stage):
            raise ConfigError(f"stages.{stage.name}: no objective counts in it; nothing to minimise")
        _check_felt(f"stages.{stage.name}", made.active(stage), moving(stage, config))
    if not declared:
        _check_felt("objectives", objectives, moving(None, config))
    return made


def _check_possible(objectives: tuple[Module, ...], config: TrainingConfig) -> None:
    """Refuse terms that this model or backend cannot compute."""
    names = [module.name for module in objectives]
    predicted = [name for name in names if OBJECTIVES[name].needs_prediction]
    if config.model.model_type == "supervised" and predicted:
        raise ConfigError(
            f"objectives: {predicted[0]} needs the forward model, which model_type 'supervised' leaves "
            "out; drop it or use model_type 'pinn'"
        )
    for name in names:
        if OBJECTIVES[name].only not in ("", config.backend):
            raise ConfigError(
                f"objectives: {name} runs in {OBJECTIVES[name].only} only; drop it or use that backend"
            )
    for name in ("overlap_consistency", "decoded_positions"):
        if name in names and not config.model.object_big:
            raise ConfigError(f"objectives: {name} needs object_big, a patch for every pattern")
    if "decoded_positions" in names and config.model.reference != "flat":
        raise ConfigError(
            "objectives: decoded_positions needs reference 'flat': an image that was made at the given "
            "positions stays there"
        )


def _check_felt(where: str, modules: tuple[Module, ...], moving: frozenset[str]) -> None:
    """Refuse objectives if none of them depends on anything that trains."""

    def felt(module: Module) -> bool:
        if module.name.startswith("probe_"):
            return "probe" in moving
        # only the prediction depends on probe and scale; patches and their merge do not
        predicted = OBJECTIVES[module.name].needs_prediction and module.name != "overlap_consistency"
        return predicted or not moving <= {"probe", "scale"}

    if not any(map(felt, modules)):
        raise ConfigError(
            f"{where}: {', '.join(module.name for module in modules)} depends on nothing that trains; add a "
            "data term such as poisson_nll, or let more train"
        )


def _from_flat(config: TrainingConfig) -> tuple[Module, ...]:
    """The default manifest: the flat weights, in a fixed order."""
    if config.model.model_type == "supervised":
        return (Module("supervised"),)
    weights = {FLAT_WEIGHTS[name]: float(getattr(config, name)) for name in FLAT_WEIGHTS}
    if config.torch_loss_mode == "mae":
        weights["poisson_nll"] = 0.0
        weights["amplitude_mae"] = weights["amplitude_mae"] or 1.0
    made = tuple(Module(name, weight) for name, weight in weights.items() if weight > 0)
    if not made:
        raise ConfigError(
            f"TrainingConfig.nll_weight = {config.nll_weight}: nothing to minimise: one of "
            f"{', '.join(sorted(FLAT_WEIGHTS))} must be > 0"
        )
    return made


def _refuse_flat(config: TrainingConfig) -> None:
    defaults = TrainingConfig()
    for name, term in FLAT_WEIGHTS.items():
        value = getattr(config, name)
        if value != getattr(defaults, name):
            raise ConfigError(
                f"{name} = {value} beside declared objectives: "
                f"write '- {{name: {term}, weight: {value}}}' into objectives instead"
            )
    if config.torch_loss_mode != defaults.torch_loss_mode:
        raise ConfigError(
            f"torch_loss_mode = {config.torch_loss_mode!r} beside declared objectives: "
            "write '- {name: amplitude_mae}' into objectives instead"
        )


def _modules(
    where: str, entries: Sequence[Any], known: Mapping[str, TermInfo], stages: tuple[str, ...] | None
) -> tuple[Module, ...]:
    made: list[Module] = []
    seen: set[str] = set()
    for entry in entries:
        module = _module(where, entry, known, stages)
        if module.name in seen:
            raise ConfigError(f"{where}: {module.name!r} is there twice; keep one")
        seen.add(module.name)
        if entry.get("enabled", True):
            made.append(module)
    return tuple(made)


def _module(where: str, entry: Any, known: Mapping[str, TermInfo], stages: tuple[str, ...] | None) -> Module:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: {shown(entry)} must be a mapping such as {{name: {next(iter(known))}}}")
    if "name" not in entry:
        raise ConfigError(f"{where}: {shown(dict(entry))} has no name")
    name = entry["name"]
    if not isinstance(name, str) or name not in known:
        near = _nearest(str(name), known)
        raise ConfigError(f"{where}: unknown name {shown(name)}; nearest known: {near!r}")
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(
                f"{where}.{name}: unknown key {shown(key)}; nearest known: {_nearest(str(key), _KEYS)!r}"
            )
    enabled = entry.get("enabled", True)
    if not isinstance(enabled, bool):
        raise ConfigError(f"{where}.{name}.enabled = {shown(enabled)}: must be True or False")
    weight = positive(entry.get("weight", 1.0))
    if weight is None:
        raise ConfigError(
            f"{where}.{name}.weight = {shown(entry['weight'])}: must be a number > 0, or enabled: false"
        )
    if "weight" in entry and known is DIAGNOSTICS:
        raise ConfigError(f"{where}.{name}.weight: a diagnostic is watched, not minimised; drop the weight")
    return Module(
        name,
        weight,
        _stages(f"{where}.{name}.stages", entry.get("stages"), stages),
        _settings(f"{where}.{name}.config", known[name], entry.get("config")),
    )


def _stages(where: str, asked: Any, known: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if asked is None:
        return None
    names = names_in(where, asked)
    for name in names:
        if known is None or name not in known:
            hint = f"nearest known: {_nearest(name, known)!r}" if known else "the configuration has no stages"
            raise ConfigError(f"{where}: no stage {shown(name)}; {hint}")
    return names


def _settings(where: str, info: TermInfo, given: Any) -> tuple[tuple[str, Any], ...]:
    """Every setting of a term with its value, defaults filled in, in the schema's order."""
    values = given if given is not None else {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} = {shown(values)}: must be a mapping")
    fields = {field.name: field for field in all_fields(info.settings)}
    for key in values:
        if key not in fields:
            hint = f"; nearest known: {_nearest(str(key), fields)!r}" if fields else "; it has no settings"
            raise ConfigError(f"{where}: unknown key {shown(key)}{hint}")
    made = dataclasses.asdict(info.settings())
    for key, value in values.items():
        try:
            made[key] = coerce(fields[key], value, from_text=True)
        except Unfit as unfit:
            raise ConfigError(f"{where}.{key} = {shown(value)}: {unfit}") from unfit
    return tuple(made.items())


def _nearest(name: str, known: Any) -> str:
    return str(get_close_matches(name, list(known), n=1, cutoff=0.0)[0])
