"""Trainings of learned tools, composed as other runs are: `model=TOOL`, then KEY=VALUE and groups.

The groups of a tool stand in `ptycho/conf/learned/TOOL/`: `config.yaml` with its list `defaults`, and a
folder for each group. The schema is the tool's own dataclass, so an unknown key is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ptycho.codec.settings import CodecSettings
from ptycho.config.learned import LearnedSettings, settings_from
from ptycho.errors import ConfigError
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
from ptycho.positions.settings import PositionsSettings
from ptycho.triage.settings import TriageSettings
from ptycho.warp.training import WarpSettings

#: name, as in `ptycho sweep model=NAME` -> the settings of its training
TOOLS: dict[str, type[LearnedSettings]] = {
    "codec": CodecSettings,
    "positions": PositionsSettings,
    "triage": TriageSettings,
    "warp": WarpSettings,
}


def tool_of(words: Sequence[str]) -> str | None:
    """The learned tool that overrides ask for by `model=TOOL`; None: the network of a reconstruction."""
    named = [word.partition("=")[2] for word in words if word.startswith("model=")]
    found = [name for name in named if name in TOOLS]
    return found[-1] if found else None


def folder_of(tool: str) -> Path:
    """Where the groups of a tool stand."""
    return CONF / "learned" / tool


def points(
    tool: str, words: Sequence[str], *, multirun: bool, own: Path | None = None
) -> list[tuple[Point, LearnedSettings]]:
    """Every training that overrides ask for, checked. Raises ConfigError with one line.

    own: a folder of further groups of this tool.
    """
    cls = TOOLS[tool]
    folder, source = folder_of(tool), f"model={tool}"
    rest = [word for word in words if word != source]
    schema: type = cls
    with session(folder, {"schema": node_of(schema)}, own) as loader:
        groups = groups_in([folder, *([own] if own is not None else [])])
        parsed = [_parsed(cls, tool, word, loader, groups) for word in rest]
        found = expand(rest, parsed, multirun=multirun)
        made = []
        for point in found:
            try:
                values = composed("config", [_added(word) for word in point.overrides], own)
            except refusals() as error:
                raise ConfigError(f"{source}: {one_line(error)}") from error
            made.append((point, settings_from(cls, values, source)))
        return made


def _added(word: str) -> str:
    """The override in Hydra's form: loss weights have no names in the schema, so they are added with ++."""
    return f"++{word}" if word.startswith("loss_weights.") else word


def _parsed(
    cls: type[LearnedSettings], tool: str, word: str, loader: Any, groups: Mapping[str, tuple[str, ...]]
) -> Any:
    override = parsed_word(word, loader, groups)
    key = str(override.key_or_group)
    if key not in groups:
        _check_key(cls, tool, key)
    return override


def _check_key(cls: type[Any], tool: str, key: str, group: str = "") -> None:
    """Refuse a key that the settings of a tool do not have; group: those it stands in, each with its dot."""
    first, dot, rest = key.partition(".")
    inner = {field.name: field for field in dataclasses.fields(cls)}
    if first not in inner:
        near = get_close_matches(first, list(inner), n=1, cutoff=0.0)[0]
        raise ConfigError(f"model={tool}: unknown key {group + key!r}; nearest known: {group + near!r}")
    nested = inner[first].default_factory
    if dot and isinstance(nested, type) and dataclasses.is_dataclass(nested):
        _check_key(nested, tool, rest, f"{group}{first}.")
