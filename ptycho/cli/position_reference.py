"""`reconstruct --position_reference`: an image of the same area corrects the positions before the
reconstruction.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ptycho.cli.console import Console
from ptycho.errors import InputError, MissingFileError


def check_reference(arguments: argparse.Namespace) -> None:
    """Raise InputError if the reference is missing or excluded by another flag."""
    path: Path | None = getattr(arguments, "position_reference", None)
    if path is None:
        return
    if not path.exists():
        raise MissingFileError(f"--position_reference {path} does not exist; check the path")
    if path.resolve() == arguments.output_dir.resolve():
        raise InputError(f"--position_reference {path} is the folder of -o; write to another one")
    if arguments.devices > 1:
        raise InputError("--position_reference works in one process; leave --devices out")


def move_by_reference(
    arguments: argparse.Namespace, raw: Any, console: Console
) -> tuple[Any, dict[str, Any]]:
    """The scan at the corrected positions, and numbers for metrics.json. Prints the displacement."""
    import numpy as np

    from ptycho.report.products import open_reference
    from ptycho.workflows.position_reference import positions_by_reference

    reference = open_reference(arguments.position_reference)
    with console.progress("positions by the reference") as progress:
        found = positions_by_reference(
            raw,
            reference.object,
            coverage=reference.coverage,
            origin_xy=reference.origin_xy if reference.centre_m is None else None,
            pixel_size_m=reference.pixel_size_m,
            seed=arguments.seed,
            progress=progress,
        )
    moves = np.hypot(*(found.positions_px - raw.positions_px).T)
    rms, largest = float(np.sqrt((moves**2).mean())), float(moves.max())
    looks = len(found.rows)
    console.say(
        f"positions    moved {rms:.2f} px rms, {largest:.2f} px at most, by {arguments.position_reference}"
        f" in {looks} look{'s' * (looks != 1)}"
        + (" and a fit to the patterns" if found.fit and found.fit["kept"] else "")
    )
    numbers: dict[str, Any] = {
        "reference_moves_rms_px": rms,
        "reference_moves_largest_px": largest,
        "reference_looks": looks,
    }
    if found.fit:
        numbers["reference_fit_kept"] = found.fit["kept"]
        numbers["reference_fit_gain"] = found.fit["better"]
    return raw.moved_to(found.positions_px), numbers
