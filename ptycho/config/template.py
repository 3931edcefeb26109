"""A commented YAML template for a scan, and a JSON schema of every key for editors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ptycho.config.defaults import TRAINS_WELL
from ptycho.config.fields import FieldInfo, allowed, describe_fields
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.config.yaml_io import SECTIONS

#: the keys that a first run may want to change, by section ('' is the top level), in the order of the file
_OFFERED: dict[str, tuple[str, ...]] = {
    "": (
        "train_data_file", "output_dir", "backend", "nepochs", "scheduler", "gradient_clip_val",
        "batch_size", "n_groups", "n_subsample",
        "torch_loss_mode", "probe_trainable", "probe_from", "probe_refine_sweeps", "probe_modes",
        "val_fraction", "seed", "max_time_s",
    ),
    "model": ("N", "gridsize", "architecture", "model_type", "probe_scale"),
    "execution": ("accelerator", "learning_rate", "patterns", "logger_backend"),
}  # fmt: skip


@dataclass(frozen=True)
class ScanFacts:
    """What of a scan decides a template: its file, patterns of N x N px, M positions, unit, object pixel."""

    path: Path
    N: int
    n_positions: int
    unit: str
    object_pixel_size_m: float | None = None


def template(facts: ScanFacts | None = None) -> str:
    """About twenty keys, meaning, limits and the defaults of `ptycho train`; it loads as `--config`.

    With a scan its file and side are filled in, and a batch is not larger than the scan.
    """
    values = {**TRAINS_WELL, **({} if facts is None else _suited(facts))}
    lines = ["# Settings of `ptycho train --config THIS`. A typed flag wins over this file.", ""]
    if facts is not None:
        size = facts.object_pixel_size_m
        lines[1:1] = [
            f"# For {facts.path.name}: {facts.n_positions} patterns of {facts.N} x {facts.N} px, {facts.unit}"
            + ("" if size is None else f", object pixel {size * 1e9:.4g} nm")
            + "."
        ]
    for section, names in _OFFERED.items():
        known = {info.name: info for info in describe_fields(SECTIONS.get(section, TrainingConfig))}
        chosen = [known[name] for name in names if name in known]
        if section and chosen:
            lines += ["", f"{section}:"]
        for info in chosen:
            lines += _entry(info, values.get(info.name, info.default), "  " if section else "")
    return "\n".join(lines) + "\n"


def _suited(facts: ScanFacts) -> dict[str, Any]:
    """What follows from a scan; everything else keeps its default."""
    default = next(info.default for info in describe_fields(TrainingConfig) if info.name == "batch_size")
    return {
        "train_data_file": str(facts.path),
        "output_dir": f"{facts.path.stem}_run",
        "N": facts.N,
        "batch_size": min(default, facts.n_positions),
    }


def _entry(info: FieldInfo, value: Any, indent: str) -> list[str]:
    plain = str(value) if isinstance(value, Path) else value
    text = yaml.safe_dump({info.name: plain}, allow_unicode=True).strip()
    if isinstance(value, Path) and value == Path() or value is None:
        text = f"# {info.name}:"  # unused until somebody fills it in
    return [f"{indent}# {info.help} ({allowed(info)})", f"{indent}{text}"]


def json_schema() -> dict[str, Any]:
    """A JSON schema (2020-12) of a configuration file, made from the fields: types, limits, choices, help."""
    top = _properties(TrainingConfig)
    for cls in (ModelConfig, PyTorchExecutionConfig):
        top = {**_properties(cls), **top}
    sections: Mapping[str, Any] = {
        name: {"type": "object", "properties": _properties(cls), "additionalProperties": False}
        for name, cls in SECTIONS.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of ptycho train",
        "type": "object",
        "properties": {**top, **sections},
        "additionalProperties": False,
    }


_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string", list: "array"}


def _properties(cls: type) -> dict[str, Any]:
    return {info.name: _schema_of(info) for info in describe_fields(cls)}


def _schema_of(info: FieldInfo) -> dict[str, Any]:
    made: dict[str, Any] = {"description": info.help}
    kind = _TYPES.get(info.type_, "array" if info.type_ is tuple else "string")
    if info.several:
        made["type"] = [kind, "array"] + (["null"] if info.optional else [])
    elif info.choices is not None:
        words = [word for word in (info.synonyms or {}) if word is not None]
        made["enum"] = [*info.choices, *words, *([None] if info.optional else [])]
    else:
        made["type"] = [kind, "null"] if info.optional else kind
    limits = {"minimum": info.ge, "exclusiveMinimum": info.gt, "maximum": info.le}
    limits["exclusiveMaximum"] = info.lt
    made.update({name: limit for name, limit in limits.items() if limit is not None})
    if info.multiple_of is not None:
        made["multipleOf"] = info.multiple_of
    if isinstance(info.default, (bool, int, float, str)):
        made["default"] = info.default
    return made
