"""Flags generated from the field metadata of the configuration, and errors of one line.

A flag that was not typed is absent from the namespace, so a default of the command line never overwrites a
YAML value.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NoReturn

from ptycho.cli.help import EVERYDAY, Formatter, Groups, HelpAction, everyday_page
from ptycho.config.fields import FieldInfo, Unfit, allowed, coerce, describe_fields
from ptycho.errors import InputError


class UsageError(InputError):
    """A command line that cannot be understood."""


#: similarity, 0 to 1, above which an error suggests a known flag for an unknown one
ALIKE = 0.6

#: values that older scripts write after a boolean flag
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def _canonical(flag: str) -> str:
    """One spelling for `--n-groups` and `--n_groups`."""
    return "--" + flag[2:].replace("-", "_") if flag.startswith("--") else flag


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError, accepts both spellings of a flag and suggests the nearest
    one.
    """

    def __init__(self, *, everyday: Groups | None = None, **keywords: Any) -> None:
        keywords.setdefault("formatter_class", Formatter)
        super().__init__(allow_abbrev=False, argument_default=argparse.SUPPRESS, add_help=False, **keywords)
        self.everyday = everyday
        #: adds the values of configuration files to a command line before it is parsed
        self.expand: Callable[[Parser, list[str]], list[str]] | None = None
        #: flags of another command: flag -> name of that command
        self.elsewhere: dict[str, str] = {}

    def add_everywhere(self) -> None:
        """The flags that every command has."""
        group = self.add_argument_group("everywhere")
        group.add_argument("--quiet", action="store_true", help="print nothing but errors")
        add_switch(group, "--debug", dest="debug", help="show the debug log, and the traceback of an error")
        group.add_argument(
            "-h",
            "--help",
            action=HelpAction,
            everything=False,
            dest="help",
            help="show what is used every day",
        )
        group.add_argument(
            "--help-all", action=HelpAction, everything=True, dest="help_all", help="show every flag"
        )

    def page(self, *, everything: bool) -> str:
        """A page of help; a command with few flags has only one page."""
        if everything or self.everyday is None:
            return self.format_help()
        return everyday_page(self, self._actions, self.everyday)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of leaving the process, as argparse would."""
        raise UsageError(message)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """The namespace of a command line; UsageError names the first word that is not understood."""
        if "" in argv:  # an empty path would mean the current folder
            self.error("an argument is empty; is a variable of the shell not set?")
        known = {_canonical(flag): flag for flag in self._option_string_actions}
        words = self._switched([_respell(word, known) for word in argv])
        if self.expand is not None:
            words = self.expand(self, words)
        arguments, extras = self.parse_known_args(words)
        if extras:
            self._refuse(extras)
        return arguments

    def _switched(self, words: list[str]) -> list[str]:
        """The words, with `--x True` of older scripts replaced by `--x`, and `--x False` by `--no-x`."""
        switched: list[str] = []
        left = iter(enumerate(words))
        for at, word in left:
            flag, equals, value = word.partition("=")
            action = self._option_string_actions.get(flag)
            following = value if equals else "".join(words[at + 1 : at + 2])
            if action is None or action.nargs != 0 or not (equals or following.lower() in _TRUTH):
                switched.append(word)
                continue
            on = _TRUTH.get(following.lower())
            if on is None or not (isinstance(action, SwitchAction) and flag in action.on or _is_old(action)):
                self.error(f"{flag} takes no value: {_ways(flag, action)}")
            if not _is_old(action):
                switched.append(flag if on else f"--no-{flag[2:]}")
            elif on:
                switched.append(flag)
            if not equals:
                next(left)
        return switched

    def _refuse(self, extras: list[str]) -> NoReturn:
        flag = next((word for word in extras if word.startswith("-") and len(word) > 1), None)
        if flag is None:
            raise UsageError(f"unexpected argument {extras[0]!r}; see {self.prog} --help")
        flag = flag.partition("=")[0]
        actions = self._option_string_actions
        shown = [name for name in actions if name.startswith("--") and not _is_old(actions[name])]
        if owner := self.elsewhere.get(_canonical(flag)):
            raise UsageError(f"unknown flag {flag}: it is a setting of {owner}; leave it out")
        near = get_close_matches(_canonical(flag), shown, n=1, cutoff=ALIKE)
        if near:
            raise UsageError(f"unknown flag {flag}; nearest known: {near[0]}")
        raise UsageError(f"unknown flag {flag}; see {self.prog} --help{'-all' * bool(self.everyday)}")


def _is_old(action: argparse.Action) -> bool:
    """Whether a flag is accepted only for older scripts, see `ptycho.cli.retired`."""
    return action.help == argparse.SUPPRESS


def _ways(flag: str, action: argparse.Action | None) -> str:
    """The spellings of a flag without a value."""
    if not isinstance(action, SwitchAction):
        return f"write {flag}"
    name = flag if flag in action.on else f"--{flag.removeprefix('--no-')}"
    return f"write {name} or --no-{name[2:]}"


def _respell(word: str, known: dict[str, str]) -> str:
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return known.get(_canonical(flag), flag) + equals + value


class FieldAction(argparse.Action):
    """Stores one configuration value, checked against its field at once."""

    def __init__(self, *, info: FieldInfo, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.info = info

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, field_value(parser, self.info, values, option_string))


def field_value(parser: argparse.ArgumentParser, info: FieldInfo, text: Any, flag: str | None) -> Any:
    """The value of a field from the text after its flag; the parser's error names both."""
    try:
        return coerce(info, _from_text(info, text), from_text=True)
    except Unfit as unfit:
        parser.error(f"{flag} {text}: {unfit}")


class SwitchAction(argparse.Action):
    """Stores True for `--x`, one of its flags `on`, and False for `--no-x`."""

    def __init__(self, *, flags: Sequence[str], dest: str, help: str | None = None, **keywords: Any) -> None:
        self.on = tuple(flag for flag in flags if flag.startswith("--"))
        options = [*flags, *(f"--no-{flag[2:]}" for flag in self.on)]
        super().__init__(options, dest, nargs=0, help=help, default=argparse.SUPPRESS)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, not (option_string or "").startswith("--no-"))


def _from_text(info: FieldInfo, text: str) -> Any:
    if info.optional and text.lower() in ("none", "null"):
        return None
    if info.type_ is int:
        try:
            return int(text)
        except ValueError:
            return text
    if info.type_ is list:
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text


def add_switch(target: Any, *flags: str, dest: str, help: str) -> None:
    """A boolean as `--x/--no-x`, absent from the namespace unless typed."""
    target._add_action(SwitchAction(flags=flags, dest=dest, help=help))


#: heading of the flags of a configuration class on the page of `--help-all`
_HEADINGS = {
    "TrainingConfig": "training",
    "InferenceConfig": "inference",
    "ModelConfig": "network",
    "PyTorchExecutionConfig": "machine and records",
}


def add_fields(
    parser: Parser,
    *classes: type,
    aliases: dict[str, tuple[str, ...]],
    skip: frozenset[str] = frozenset(),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """One flag for each plain field of the configuration classes; a shared name is added once.

    `aliases` maps a field to further flags of the same meaning, `skip` names fields that are not offered,
    `defaults` those whose default is the command's own.
    """
    seen = set(skip)
    for cls in classes:
        group = parser.add_argument_group(_HEADINGS.get(cls.__name__, cls.__name__))
        for info in describe_fields(cls):
            if info.name not in seen:
                seen.add(info.name)
                default = defaults.get(info.name, info.default)
                _add_field(group, info, aliases.get(info.name, ()), default)


def _add_field(group: Any, info: FieldInfo, aliases: Sequence[str], default: Any) -> None:
    flags = (f"--{info.name}", *aliases)
    if info.type_ is bool:
        text = f"{info.help} (default {'yes' if default else 'no'})"
        add_switch(group, *flags, dest=info.name, help=text)
        return
    limits = "" if info.choices is not None or info.type_ in (Path, str) else f"; {allowed(info)}"
    shown = f" (default {default})"
    action = group.add_argument(
        *flags,
        dest=info.name,
        action=FieldAction,
        info=info,
        metavar=_metavar(info),
        help=f"{info.help}{limits}{shown}".replace("%", "%%"),
    )
    long = [flag for flag in aliases if flag.startswith("--")]
    action.everyday = long[0] if long else flags[0]
    action.named = info.choices
    action.short_help = info.help + ("" if default in (None, Path()) else shown)


def _metavar(info: FieldInfo) -> str:
    if info.choices is not None:
        return "{" + ",".join(str(choice) for choice in info.choices) + "}"
    return {int: "INT", float: "NUMBER", Path: "PATH"}.get(info.type_, "TEXT")


def fields_given(arguments: argparse.Namespace, *classes: type) -> dict[str, Any]:
    """The configuration values that were typed, by field name."""
    names = {info.name for cls in classes for info in describe_fields(cls)}
    return {name: value for name, value in vars(arguments).items() if name in names}


def build_parser(command: ModuleType, prog: str) -> Parser:
    """The parser of a command, with its own flags and the common ones."""
    name = command.__name__.rpartition(".")[2]
    parser = Parser(
        prog=prog,
        usage=getattr(command, "USAGE", None),
        description=command.__doc__,
        everyday=EVERYDAY.get(name),
    )
    command.add_arguments(parser)
    parser.add_everywhere()
    return parser
