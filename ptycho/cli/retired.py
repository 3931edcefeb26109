"""Flags of older scripts: accepted, and the warning names today's flag or says that there is none."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from ptycho.cli.parser import Parser, field_value
from ptycho.config.fields import FieldInfo, describe_fields
from ptycho.config.settings import PyTorchExecutionConfig

#: old flag -> (configuration field, today's flag); all take a value
_RENAMED = {
    "--device": ("accelerator", "--accelerator"),
    "--max_epochs": ("nepochs", "--nepochs"),
    "--test_data": ("test_data_file", "--test_data_file"),
    "--torch_logger": ("logger_backend", "--logger"),
}
#: old flag without a value -> (configuration field, its value, today's flags)
_SETTING = {"--disable_mlflow": ("logger_backend", "none", "--logger none")}
#: old flag -> why it does nothing; those of _WITH_VALUE take one
_WITHOUT_EFFECT = {
    "--do_stitching": "the test scan is always stitched",
    "--comparison_plot": "a scan that holds the truth is always compared with it",
    "--phase_vmin": "the colour range of a figure follows its image",
    "--phase_vmax": "the colour range of a figure follows its image",
}
_WITH_VALUE = ("--phase_vmin", "--phase_vmax")


class Retired(NamedTuple):
    """One old flag that was typed: its warning, and the field and value that it sets, if any."""

    said: str
    field: str | None = None
    value: Any = None


class _RetiredAction(argparse.Action):
    """Store an old flag in `namespace.retired`; its value is checked against its field at once."""

    def __init__(self, *, note: Retired, info: FieldInfo | None = None, **keywords: Any) -> None:
        super().__init__(help=argparse.SUPPRESS, **{**keywords, "dest": "retired"})
        self.note, self.info = note, info

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        note = self.note
        if self.info is not None:
            note = note._replace(value=field_value(parser, self.info, values, option_string))
        namespace.retired = [*getattr(namespace, "retired", ()), note]


def add_retired_flags(parser: Parser, *classes: type, without: frozenset[str] = frozenset()) -> None:
    """The old flags of a command whose settings are these classes; none of them is shown in --help.

    without: fields for which the command has no flag; their old flags are accepted and have no effect.
    """
    fields = {info.name: info for cls in classes for info in describe_fields(cls)}
    for flag, (name, today) in _RENAMED.items():
        if name in fields:
            _add_renamed(parser, flag, fields[name], today, idle=name in without)
    if PyTorchExecutionConfig in classes:
        for info in describe_fields(PyTorchExecutionConfig):
            if info.type_ is not bool:
                today = f"--{info.name}"
                _add_renamed(parser, f"--torch_{info.name}", info, today, idle=info.name in without)
    for flag, (name, value, today) in _SETTING.items():
        if name in fields:
            note = Retired(f"{flag} is an old flag: use {today}", name, value)
            note = _idle(flag) if name in without else note
            parser.add_argument(flag, action=_RetiredAction, nargs=0, note=note)
    for flag, why in _WITHOUT_EFFECT.items():
        note = Retired(f"{flag} is an old flag without effect: {why}")
        parser.add_argument(flag, action=_RetiredAction, nargs=None if flag in _WITH_VALUE else 0, note=note)


def _idle(flag: str) -> Retired:
    return Retired(f"{flag} is an old flag without effect: it is a setting of ptycho train")


def _add_renamed(parser: Parser, flag: str, info: FieldInfo, today: str, *, idle: bool) -> None:
    note = _idle(flag) if idle else Retired(f"{flag} is an old flag: use {today}", info.name)
    parser.add_argument(flag, action=_RetiredAction, info=info, note=note)


def retired_flags(arguments: argparse.Namespace) -> list[Retired]:
    """The old flags that were typed, in order."""
    return getattr(arguments, "retired", [])
