"""Field metadata: the one source from which flags, YAML, validation and documentation are made.

A dataclass field made by `option` carries its help text, choices and bounds; everything that has to know
about the field asks `describe_fields`, so nothing is written twice.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def option(
    default: Any,
    *,
    help: str,
    choices: tuple[Any, ...] | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    multiple_of: int | None = None,
    several: bool = False,
    synonyms: Mapping[str | None, Any] | None = None,
) -> Any:
    """A dataclass field with its meaning and limits as metadata.

    `default` may be a dataclass type, which is then built anew for each instance.  The limits are inclusive
    (`ge`, `le`) or exclusive (`gt`, `lt`); None where the annotation allows it is always within them.
    `several`: a text field takes one or more of its choices, a list or joined by commas, and stores the text.
    `synonyms`: what older programs write, and the value that it means.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "ge": ge,
        "gt": gt,
        "le": le,
        "lt": lt,
        "multiple_of": multiple_of,
        "several": several,
        "synonyms": synonyms,
    }
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def same(cls: Any, name: str) -> Any:
    """A dataclass field with the default, meaning and limits of another dataclass' field."""
    field = cls.__dataclass_fields__[name]
    return dataclasses.field(default=field.default, metadata=field.metadata)


@dataclasses.dataclass(frozen=True)
class FieldInfo:
    """One configuration field as the command line, YAML, validation and documentation see it.

    `type_` is the base Python type (`float` for `float | None`); `optional` says whether None is allowed.
    """

    name: str
    type_: type
    optional: bool
    default: Any
    help: str
    choices: tuple[Any, ...] | None = None
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    multiple_of: int | None = None
    several: bool = False
    synonyms: Mapping[str | None, Any] | None = None

    @property
    def nested(self) -> bool:
        """Whether the field holds another configuration dataclass."""
        return dataclasses.is_dataclass(self.type_)


def describe_fields(cls: type) -> list[FieldInfo]:
    """The plain fields of a configuration dataclass, in order; fields holding another dataclass are left out.

    Flags for a training run come from `describe_fields` of ModelConfig, TrainingConfig and
    PyTorchExecutionConfig together.
    """
    return [info for info in all_fields(cls) if not info.nested]


def all_fields(cls: type) -> tuple[FieldInfo, ...]:
    """Every field of a configuration dataclass, nested ones included, in order."""
    hints = typing.get_type_hints(cls)
    infos = []
    for field in dataclasses.fields(cls):
        base, optional = _base_type(hints[field.name])
        default = field.default if field.default is not dataclasses.MISSING else None
        infos.append(FieldInfo(field.name, base, optional, default, **(field.metadata or {"help": ""})))
    return tuple(infos)


def _base_type(hint: Any) -> tuple[type, bool]:
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        arguments = typing.get_args(hint)
        optional = type(None) in arguments
        hint = next(a for a in arguments if a is not type(None))
    return typing.get_origin(hint) or hint, optional


_NOUNS = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "text",
    Path: "a path",
    tuple: "a sequence",
    list: "a list",
}


def allowed(info: FieldInfo) -> str:
    """The permitted values of a field in words: "an even integer >= 32", "a number > 0 or None"."""
    if info.choices is not None:
        text = "one of " + ", ".join(repr(choice) for choice in info.choices)
        text += ", or several joined by commas" if info.several else ""
    else:
        text = _NOUNS.get(info.type_, info.type_.__name__)
        if info.multiple_of == 2:
            text = "an even integer"
        bounds = ((">=", info.ge), (">", info.gt), ("<=", info.le), ("<", info.lt))
        limits = [f"{sign} {bound:g}" for sign, bound in bounds if bound is not None]
        text = " ".join(filter(None, [text, " and ".join(limits)]))
    return f"{text} or None" if info.optional else text


class Unfit(Exception):
    """A value that a field cannot take; the caller adds where it came from."""


def coerce(info: FieldInfo, value: Any, *, from_text: bool = False) -> Any:
    """The value as the field stores it, or `Unfit` with "must be ..." as its message.

    NumPy scalars become Python ones, strings become paths, integers become floats where a float is wanted;
    nothing else is converted.  `from_text` also takes strings such as '1e-3' for numbers (YAML 1.1 reads
    `1e-3` as a string).  A synonym becomes what it means.

    >>> from ptycho.config.settings import ModelConfig
    >>> N = describe_fields(ModelConfig)[0]
    >>> import numpy as np
    >>> N.name, allowed(N), type(coerce(N, np.int64(128))).__name__
    ('N', 'an even integer >= 32', 'int')
    """
    if info.synonyms and isinstance(value, str | None) and value in info.synonyms:
        return info.synonyms[value]
    if value is None and info.optional:
        return None
    converted = _convert(info, value, from_text)
    if converted is None or not _within(info, converted):
        raise Unfit(f"must be {allowed(info)}")
    return converted


def _convert(info: FieldInfo, value: Any, from_text: bool) -> Any:
    """The value in the field's type, None where it has another type."""
    is_bool = isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if info.type_ is bool:
        return bool(value) if is_bool else None
    if info.type_ is int:
        return int(value) if isinstance(value, numbers.Integral) and not is_bool else None
    if info.type_ is float:
        if from_text and isinstance(value, str):
            value = _number(value)
        return _finite(value) if isinstance(value, numbers.Real) and not is_bool else None
    if info.type_ is Path:
        return Path(value) if isinstance(value, (str, Path)) else None
    if info.type_ is tuple:
        return tuple(value) if isinstance(value, (list, tuple)) else None
    if info.type_ is list:
        return list(value) if isinstance(value, (list, tuple)) else None
    if info.several:
        return _joined(value)
    return value if isinstance(value, info.type_) else None


def _joined(value: Any) -> str | None:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return None
    return ",".join(dict.fromkeys(name.strip() for name in names))


def shown(value: Any) -> str:
    """A value on one short line for a message, however large or deeply nested it is.

    >>> shown({"a": 1}), shown(list(range(1000)))
    ("{'a': 1}", '[0, 1, 2, 3, 4, 5, ...]')
    """
    text = _SHORT.repr(str(value) if isinstance(value, Path) else value)
    return " ".join(text.split())


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 240, 80, 40


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _finite(value: numbers.Real) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _within(info: FieldInfo, value: Any) -> bool:
    chosen = value.split(",") if info.several else [value]
    return (
        (info.choices is None or all(one in info.choices for one in chosen))
        and (info.ge is None or value >= info.ge)
        and (info.gt is None or value > info.gt)
        and (info.le is None or value <= info.le)
        and (info.lt is None or value < info.lt)
        and (info.multiple_of is None or value % info.multiple_of == 0)
    )


def field_table(cls: type) -> str:
    """A Markdown table of a configuration dataclass: name, type, default, allowed, meaning."""
    rows = ["| field | type | default | allowed | meaning |", "|---|---|---|---|---|"]
    for info in all_fields(cls):
        kind = info.type_.__name__ + (" or None" if info.optional else "")
        default = f"{info.type_.__name__}()" if info.nested else _shown(info.default)
        limits = f"{info.type_.__name__} (below)" if info.nested else allowed(info).replace("|", "\\|")
        rows.append(f"| `{info.name}` | {kind} | `{default}` | {limits} | {info.help} |")
    return "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    return repr(value.as_posix()) if isinstance(value, Path) else repr(value)
