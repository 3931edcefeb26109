"""Second names for the fields of a configuration, so that programs written for either name work."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from ptycho.config.fields import shown
from ptycho.errors import ConfigError

C = TypeVar("C", bound=type)


def synonyms(**names: str) -> Callable[[C], C]:
    """A class decorator: `old="new"` lets a dataclass be built with `old`, and its `new` be read and set as
    `old`. ConfigError where both are given and differ. The fields of the class stay what they are."""

    def decorate(cls: C) -> C:
        renamed: Any = cls
        build = renamed.__init__

        @functools.wraps(build)
        def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
            for old, new in names.items():
                if old in keywords:
                    value = keywords.pop(old)
                    if keywords.setdefault(new, value) != value:
                        both = f"{old} = {shown(value)} and {new} = {shown(keywords[new])}"
                        raise ConfigError(f"{cls.__name__}: {both} are one setting: keep {new}")
            build(self, *arguments, **keywords)

        renamed.__init__ = __init__
        for old, new in names.items():
            setattr(cls, old, _alias(new))
        return cls

    return decorate


def _alias(name: str) -> property:
    return property(
        lambda self: getattr(self, name),
        lambda self, value: setattr(self, name, value),
        doc=f"A second name of `{name}`.",
    )
