"""Say what a scan file is, before anything long is tried on it.

One screen: what it is, its unit, its scan, overlap, photons, and what looks wrong with it.  Exit code 2 where
it cannot be used at all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.cli.runs import read_scan

HELP = "say what a scan file is and what is wrong with it"


def add_arguments(parser: Parser) -> None:
    """`FILE`, `--json`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="scan, .npz")
    parser.add_argument("--json", action="store_true", default=False, help="print JSON for programs")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the report; a file that is no usable scan raises DataError or MissingFileError."""
    raw = read_scan(arguments.file, None)

    from ptycho.scan.report import describe_scan

    report = asdict(describe_scan(raw, arguments.file))
    if arguments.json:
        console.say(json.dumps(report, indent=1))
        return 0
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(str(arguments.file)), show_header=False, title_justify="left")
    for name, value in _rows(report):
        table.add_row(name, escape(value))
    console.show(table)
    problems = report["problems"]
    for problem in problems:
        console.say(f"problem: {problem}")
    console.say(f"usable{', with ' + str(len(problems)) + ' to look at' if problems else ''}")
    return 0


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines of the screen; what the scan does not have is left out."""
    known = {name: value for name, value in report.items() if value is not None}

    def row(title: str, form: str, *needed: str) -> Iterator[tuple[str, str]]:
        if all(name in known for name in needed):
            yield title, form.format(**known)

    yield from row("patterns", "{n_positions} of {N} x {N} px", "n_positions", "N")
    yield from row("unit", "{unit} ({unit_reason})", "unit", "unit_reason")
    yield from row("extent", "{extent_px[0]:.1f} x {extent_px[1]:.1f} px (x, y)", "extent_px")
    yield from row("step", "{step_px:.2f} px", "step_px")
    yield from row("probe", "{n_modes} mode(s), {probe_diameter_px:.1f} px wide", "probe_diameter_px")
    yield from row("overlap", "{overlap:.0%}", "overlap")
    photons = "{counts_mean:.4g} a pattern ({counts_min:.4g} to {counts_max:.4g})"
    yield from row("photons", photons, "counts_mean", "counts_min", "counts_max")
    yield from row("brightest", "{max_count:.4g} counts in one pixel", "max_count")
    yield from row("bad pixels", "{n_bad_pixels}", "n_bad_pixels")
    yield from row("canvas", "{canvas_shape[0]} x {canvas_shape[1]} px (rows, columns)", "canvas_shape")
    yield from row("object", "{object_shape[0]} x {object_shape[1]} px in the file", "object_shape")
