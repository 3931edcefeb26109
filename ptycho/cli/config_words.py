"""`--config FILE` of a command without a configuration class: the file's values become flags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ptycho.cli.parser import ALIKE, Parser
from ptycho.errors import ConfigError


def with_config(parser: Parser, words: Sequence[str]) -> list[str]:
    """The command line with the values of its `--config` file before it, so that a typed flag wins.

    Keys are the names of flags, and `scan`. Raises ConfigError for a key that no flag has.
    """
    path = _config_of(words)
    if path is None:
        return list(words)
    from ptycho.config.yaml_io import load_yaml_config

    known = {name[2:].replace("-", "_"): action for name, action in parser._option_string_actions.items()}
    first: list[str] = []
    scan: list[str] = []
    for key, value in load_yaml_config(path).items():
        name = str(key).replace("-", "_")
        if name == "scan":
            scan = [str(value)]
        elif name not in known or name in ("config", "help", "help_all"):
            near = get_close_matches(name, known, n=1, cutoff=ALIKE)
            hint = f"; nearest known: {near[0]!r}" if near else f"; see {parser.prog} --help-all"
            raise ConfigError(f"{path}: unknown key {key!r}{hint}")
        else:
            first += _typed(path, name, known[name], value)
    return [*first, *words, *_scan_unless_typed(parser, [*first, *words], scan)]


def _config_of(words: Sequence[str]) -> Path | None:
    for at, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == "--config":
            given = value if equals else "".join(words[at + 1 : at + 2])
            return Path(given) if given else None
    return None


def _typed(path: Path, name: str, action: argparse.Action, value: Any) -> list[str]:
    """One value of the file as it would be typed; None is left out."""
    if value is None:
        return []
    if action.nargs != 0:
        return [f"--{name}={value}"]
    if not isinstance(value, bool):
        raise ConfigError(f"{path}: {name} = {value!r} must be true or false")
    off = f"--no-{name}"
    if value:
        return [f"--{name}"]
    return [off] if off in action.option_strings else []


def _scan_unless_typed(parser: Parser, words: list[str], scan: list[str]) -> list[str]:
    if not scan:
        return []
    arguments, _ = parser.parse_known_args([word for word in words])
    return [] if getattr(arguments, "scan", None) is not None else scan
