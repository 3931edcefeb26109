"""The two pages of help: `--help` shows the everyday flags, `--help-all` shows all.

A command outside EVERYDAY has few flags and shows all of them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: widest line of a page of help
WIDTH = 100
Groups = Mapping[str, Sequence[str]]

#: command -> heading -> the flags below it, by where their value is kept
EVERYDAY: dict[str, Groups] = {
    "simulate": {
        "file": ("output", "overwrite"),
        "what is imaged, and how": ("object", "probe", "scan", "N", "n_positions", "step_px"),
        "what the detector sees": ("photons", "n_modes", "dead_fraction", "probe_error"),
        "repeatability": ("seed",),
    },
    "compress": {
        "scan and file": ("scan", "output", "overwrite"),
        "how": ("method", "step", "residual"),
        "what the scan needs": ("bad_pixels",),
    },
    "train": {
        "scans and output": ("scan", "output_dir", "test_data_file", "resume", "config", "preset"),
        "how long": ("nepochs", "learning_rate", "batch_size", "max_time_s"),
        "network and probe": ("architecture", "probe_from", "probe_modes"),
        "machine": ("accelerator", "backend", "seed"),
    },
    "infer": {
        "scan, model and output": ("scan", "model_path", "output_dir", "config", "write", "overwrite"),
        "what the scan needs": ("bad_pixels", "orientation", "skip_bad", "neighbor_count"),
        "machine": ("accelerator", "backend", "inference_batch_size"),
    },
    "reconstruct": {
        "scan and output": ("scan", "output_dir", "config", "write", "preview", "resume"),
        "how long": ("sweeps", "max_time_s"),
        "what is solved for": (
            "probe_modes", "positions", "position_error", "position_reference", "intensity",
        ),
        "what the scan needs": ("model", "bad_pixels", "orientation"),
        "machine": ("accelerator",),
    },
    "parity": {
        "scan and output": ("scan", "output_dir", "config"),
        "what is compared": ("precisions", "steps", "N", "gridsize", "architecture"),
        "repeatability": ("seed",),
    },
}  # fmt: skip
_EVERYWHERE = ("quiet", "debug", "help", "help_all")


def width() -> int:
    """Columns of a page: those of the terminal, never more than WIDTH."""
    return max(60, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Two columns; all spellings of a flag come first, its value is shown once."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=width())

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap paragraphs to the page width; paragraphs with indented lines (tables) stay as they are."""
        parts = text.strip().split("\n\n")
        return "\n\n".join(part if "\n " in part else textwrap.fill(part, width) for part in parts)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class Short(Formatter):
    """The everyday page: one spelling for each flag, no limits of values, no long lists of choices."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        short = [flag for flag in action.option_strings if not flag.startswith("--")]
        named = getattr(action, "everyday", None) or _longest_known(action)
        flags = ", ".join([*short, named])
        if action.nargs == 0:
            return flags
        return f"{flags} {self._format_args(action, self._get_default_metavar_for_optional(action))}"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        text = super()._format_args(action, default_metavar)
        return text if len(text) <= _LONGEST_VALUE else "NAME"

    def _expand_help(self, action: argparse.Action) -> str:
        text: str = getattr(action, "short_help", None) or super()._expand_help(action)
        choices = getattr(action, "named", None) or action.choices
        names = ", ".join(map(str, choices or ()))
        hidden = self._format_args(action, "") == "NAME" and len(names) <= _LONGEST_LIST
        return f"{text}: {names}" if names and hidden else text


#: characters of a list of choices in place of a value, and after the help; longer ones are left out
_LONGEST_VALUE, _LONGEST_LIST = 16, 60


def _longest_known(action: argparse.Action) -> str:
    """The flag that is shown: the first long one."""
    return next((flag for flag in action.option_strings if flag.startswith("--")), action.option_strings[0])


class HelpAction(argparse.Action):
    """Print a page of help and exit: the everyday page, or all flags with `everything`."""

    def __init__(self, *, everything: bool, **keywords: Any) -> None:
        super().__init__(nargs=0, **{**keywords, "default": argparse.SUPPRESS})
        self.everything = everything

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Print the page and exit."""
        parser._print_message(parser.page(everything=self.everything), sys.stdout)
        parser.exit()


def everyday_page(parser: argparse.ArgumentParser, actions: Iterable[argparse.Action], groups: Groups) -> str:
    """The short page: usage, first paragraph of the description, the flags of the groups."""
    known = {action.dest: action for action in actions if action.help != argparse.SUPPRESS}
    page = Short(parser.prog)
    page.add_usage(parser.usage, list(known.values()), parser._mutually_exclusive_groups)
    page.add_text((parser.description or "").strip().split("\n\n")[0])
    for title, names in {**groups, "everywhere": _EVERYWHERE}.items():
        page.start_section(title)
        page.add_arguments([known[name] for name in names])
        page.end_section()
    more = len([action for action in known.values()]) - sum(map(len, groups.values())) - len(_EVERYWHERE)
    page.add_text(f"{more} more flags: {parser.prog} --help-all")
    return page.format_help()
