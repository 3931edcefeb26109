"""What a shell needs to complete commands, flags, choices and file names, made by shtab from the parsers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from ptycho.cli.parser import FieldAction, Parser, UsageError

SHELLS = ("bash", "zsh")


def script(words: Sequence[str], commands: Mapping[str, ModuleType]) -> str:
    """The completion script of the shell that `words` name, one of SHELLS. UsageError for any other."""
    if len(words) != 1 or words[0] not in SHELLS:
        raise UsageError(f"--print-completion {' '.join(words)}".rstrip() + f": give {' or '.join(SHELLS)}")
    import shtab

    whole = Parser(prog="ptycho")
    whole.add_argument("--version", action="store_true", help="print the version")
    below = whole.add_subparsers(dest="command", parser_class=Parser)
    for name, command in commands.items():
        parser = below.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_arguments(parser)
        parser.add_everywhere()
        for action in parser._actions:
            _describe(action)
    made: str = shtab.complete(whole, shell=words[0])
    return made


def _describe(action: argparse.Action) -> None:
    """Tell shtab which values a flag takes: its choices, or files."""
    if isinstance(action, FieldAction):
        action.choices = action.info.choices
    is_path = action.type is Path or (isinstance(action, FieldAction) and action.info.type_ is Path)
    if is_path and action.choices is None:
        action.complete = {"bash": "_shtab_compgen_files", "zsh": "_files"}  # type: ignore[attr-defined]
