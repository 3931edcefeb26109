"""The check of each field of a configuration on its own: type, choices, bounds; errors name the field."""

from __future__ import annotations

from typing import Any

from ptycho.config.fields import Unfit, all_fields, coerce, shown
from ptycho.errors import ConfigError, MissingFileError

Problem = ConfigError | MissingFileError


def field_problems(config: Any) -> list[Problem]:
    """What is wrong with single fields, in their order.

    A value of a related type (text for a path, a NumPy scalar for a number) or a synonym is converted in
    place.
    """
    problems: list[Problem] = []
    for info in all_fields(type(config)):
        value = getattr(config, info.name)
        try:
            fit = coerce(info, value)
        except Unfit as unfit:
            problems.append(problem(config, info.name, str(unfit)))
            continue
        if type(fit) is not type(value) or info.several or info.synonyms:
            setattr(config, info.name, fit)
    return problems


def problem(config: Any, name: str, must: str) -> ConfigError:
    """An error that names a field, its value and what it must be."""
    return ConfigError(f"{type(config).__name__}.{name} = {shown(getattr(config, name))}: {must}")


def raise_first(problems: list[Problem]) -> None:
    """Raise the first problem and say how many others there are; nothing where there is none."""
    if not problems:
        return
    first, others = problems[0], len(problems) - 1
    raise type(first)(f"{first}{f' (and {others} more)' if others else ''}")
