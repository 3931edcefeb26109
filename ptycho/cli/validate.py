"""Check a scan file and describe it, before any long computation.

One screen: contents, unit, scan path, overlap, photons, and findings: errors (the scan cannot give an image;
exit code 2), problems (check them before you trust an image) and notes, each with its remedy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.cli.runs import add_overwrite
from ptycho.cli.scan_checks import add_mask_flag, mask_of
from ptycho.cli.skipping import add_triage_model, triage_model_of

if TYPE_CHECKING:
    from ptycho.scan.raw_data import RawData
    from ptycho.scan.report import ScanReport
    from ptycho.triage.decision import Triage

HELP = "say what a scan file is and what is wrong with it"
_REFUSED = 2


def add_arguments(parser: Parser) -> None:
    """`FILE`, `--json`, `--bad_pixels`, `--write_mask`, `--orientation`, `--triage`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="scan, .npz")
    parser.add_argument("--json", action="store_true", default=False, help="print JSON for programs")
    add_mask_flag(parser)
    parser.add_argument(
        "--write_mask", dest="write_mask", type=Path, metavar="OUT", help="write the mask proposed"
    )
    add_overwrite(parser)
    parser.add_argument(
        "--orientation", action="store_true", default=False, help="try the eight orientations of the axes"
    )
    parser.add_argument(
        "--triage", action="store_true", default=False, help="call each frame good, or what is wrong with it"
    )
    add_triage_model(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the report; returns 2 if the scan cannot give an image. Raises DataError, MissingFileError."""
    from ptycho.io.masks import check_mask_target, read_mask, write_mask
    from ptycho.scan.findings import errors
    from ptycho.scan.report import describe_scan, open_scan

    target: Path | None = vars(arguments).get("write_mask")
    given = mask_of(arguments)
    model = triage_model_of(arguments, used=arguments.triage)
    if target is not None:
        check_mask_target(target, (arguments.file, given), overwrite=arguments.overwrite)
    raw, inspection = open_scan(arguments.file, None if given is None else read_mask(given))
    report = describe_scan(raw, arguments.file, inspection)
    refused = errors(report.findings)
    triage = _triage(raw, report, model) if arguments.triage and not refused else None
    orientation = None
    if arguments.orientation and not refused:
        from ptycho.workflows.orientation import find_orientation

        with console.progress("orientations") as progress:
            orientation = find_orientation(raw, with_rotation=True, with_pairing=True, progress=progress)
    if target is not None:
        write_mask(target, inspection.mask)
    if arguments.json:
        values = asdict(report) | {"problems": report.problems, "notes": report.notes}
        if triage is not None:
            values["triage"] = triage.as_dict()
        if orientation is not None:
            values["orientation"] = orientation.as_dict()
        console.say(json.dumps(values, indent=1))
        return _REFUSED if refused else 0
    _show(report, console)
    if triage is not None:
        console.say(f"triage: {triage.line()}")
    if orientation is not None:
        for line in orientation.lines():
            console.say(line)
    if target is not None:
        console.say(f"mask: {int(inspection.mask.sum())} pixels, written to {target}")
    if refused:
        console.error(f"{arguments.file}: {refused[0]}")
        return _REFUSED
    n = len(report.problems)
    console.say(f"usable{f', with {n} to look at' if n else ''}")
    return 0


def _triage(raw: RawData, report: ScanReport, model: Path | None) -> Triage:
    """Classify each frame; problems that the report does not name yet are added to it."""
    from ptycho.workflows.triage import triage

    made = triage(raw, model)
    report.findings += made.findings({one.kind for one in report.findings})
    return made


def _show(report: ScanReport, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    values = asdict(report)
    table = Table(title=escape(str(report.path)), show_header=False, title_justify="left")
    for name, value in _rows(values):
        table.add_row(name, escape(value))
    for name, value in report.geometry:
        table.add_row(name, escape(value))
    console.show(table)
    for found in report.findings:
        console.say(f"{found.severity}: {found}")


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines of the screen; missing parts of the scan are left out."""
    known = {name: value for name, value in report.items() if value is not None}

    def row(title: str, form: str, *needed: str) -> Iterator[tuple[str, str]]:
        if all(name in known for name in needed):
            yield title, form.format(**known)

    yield from row("patterns", "{n_positions} of {N} x {N} px", "n_positions", "N")
    yield from row("unit", "{unit} ({unit_reason})", "unit", "unit_reason")
    yield from row("extent", "{extent_px[0]:.1f} x {extent_px[1]:.1f} px (x, y)", "extent_px")
    yield from row("step", "{step_px:.2f} px; {area_step_px:.2f} px by area", "step_px", "area_step_px")
    yield from row("probe", "{n_modes} mode(s), {probe_diameter_px:.1f} px wide", "probe_diameter_px")
    yield from row("overlap", "{overlap:.0%}", "overlap")
    photons = "{counts_mean:.4g} a pattern ({counts_min:.4g} to {counts_max:.4g})"
    yield from row("photons", photons, "counts_mean", "counts_min", "counts_max")
    yield from row("brightest", "{max_count:.4g} counts in one pixel", "max_count")
    yield from row("bad pixels", "{n_bad_pixels}", "n_bad_pixels")
    yield from row("canvas", "{canvas_shape[0]} x {canvas_shape[1]} px (rows, columns)", "canvas_shape")
    yield from row("object", "{object_shape[0]} x {object_shape[1]} px in the file", "object_shape")
