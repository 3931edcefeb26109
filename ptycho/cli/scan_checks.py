"""The checks of `ptycho validate`, which every command runs on its scan before it starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.processes import rank
from ptycho.cli.runs import read_scan
from ptycho.errors import DataError

if TYPE_CHECKING:
    from ptycho.cli.skipping import Skipping
    from ptycho.scan.findings import Finding
    from ptycho.scan.raw_data import RawData


def add_mask_flag(parser: Any) -> None:
    """`--bad_pixels FILE`."""
    parser.add_argument(
        "--bad_pixels", type=Path, metavar="FILE", help="mask of further pixels to ignore, .npy or .npz"
    )


def add_orientation_flag(parser: Any) -> None:
    """`--orientation NAME`."""
    from ptycho.scan.orientation import ORIENTATIONS

    parser.add_argument(
        "--orientation",
        choices=tuple(ORIENTATIONS),
        help="turn the positions first (ptycho validate finds it)",
    )


def mask_of(arguments: argparse.Namespace) -> Path | None:
    """The mask file that was given."""
    path: Path | None = vars(arguments).get("bad_pixels")
    return path


def read_checked_scan(
    path: Path,
    N: int | None,
    console: Console,
    *,
    orientation: str | None = None,
    skipping: Skipping | None = None,
    **options: Any,
) -> tuple[RawData, list[Finding]]:
    """A scan that can be used, and the findings about it; `options` as for `read_scan`.

    orientation: applied to the positions (`ptycho.scan.orientation`); then objectGuess is dropped.
    skipping: leaves bad frames out first, if requested.

    Problems and notes are printed. Raises DataError for a scan that cannot give an image. Of several
    processes only the first one checks; if it raises, all end.
    """
    from ptycho.scan.findings import errors
    from ptycho.scan.inspection import inspect_scan
    from ptycho.scan.report import describe_scan

    raw = read_scan(path, N, **options)
    turned = orientation is not None and orientation != "as_given"
    if orientation is not None and turned:
        from ptycho.scan.orientation import reorient

        raw = raw.moved_to(reorient(raw.positions_px, orientation))
    left_out: list[Finding] = []
    if skipping is not None:
        raw, left_out = skipping(raw, path, console)
    if rank():
        return raw, []
    seen = inspect_scan(raw)
    found = [*seen.findings, *left_out]
    refused = errors(found)
    if refused:
        more = f" (and {len(refused) - 1} more; see ptycho validate {path})" if len(refused) > 1 else ""
        raise DataError(f"{path}: {refused[0]}{more}")
    if not turned:  # the page of the run shows the scan as the file holds it
        console.described[path.resolve()] = describe_scan(raw, path.resolve(), seen)
    for one in found:
        if one.severity == "problem":
            console.warn(f"{path}: {one}")
    return raw, found
