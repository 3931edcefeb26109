"""Looking a recipe up by name, with an error that names the nearest one."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

from ptycho.errors import ConfigError

T = TypeVar("T")


def lookup(registry: Mapping[str, T], name: str, what: str) -> T:
    """The entry `name` of a registry; raises ConfigError naming the field, the nearest name and all names."""
    try:
        return registry[name]
    except (KeyError, TypeError):
        known = ", ".join(sorted(registry))
        inside = [key for key in sorted(registry) if str(name) and str(name) in key]
        nearest = get_close_matches(str(name), registry, n=1, cutoff=0.4) or inside
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise ConfigError(f"{what} {name!r} is not known: {hint}Known: {known}") from None
