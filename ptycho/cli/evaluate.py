"""Judge a reconstruction against the truth, after removing what ptychography cannot determine.

Removed before any number: global phase and scale, linear phase ramp, sub-pixel shift, conjugate twin.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ptycho.cli.console import Console
from ptycho.cli.judging import judge, judged_lines, read_reconstruction, read_truth
from ptycho.cli.parser import Parser
from ptycho.cli.runs import add_overwrite, json_target, write_json
from ptycho.errors import InputError

HELP = "judge a reconstruction against the truth"


def add_arguments(parser: Parser) -> None:
    """`RECON TRUTH`, `--pixel_size_m`, `--json`."""
    add = parser.add_argument
    add("reconstruction", type=Path, metavar="RECON", help="reconstruction.npz, or its folder")
    add("truth", type=Path, metavar="TRUTH", help=".npz with object_true, objectGuess or object")
    add("--pixel_size_m", type=float, metavar="NUMBER", help="of the object, for FRC in metres")
    add("--json", type=Path, metavar="FILE", help="write every number there as well")
    add_overwrite(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the numbers."""
    path = arguments.reconstruction
    path = path / "reconstruction.npz" if path.is_dir() else path
    size = getattr(arguments, "pixel_size_m", None)
    if size is not None and not 0 < size < float("inf"):
        raise InputError(f"--pixel_size_m {size}: must be a number > 0")
    target = json_target(arguments, (path, arguments.truth))
    metrics = judge(read_reconstruction(path), read_truth(arguments.truth), pixel_size_m=size)
    if (made_from := _scan_of_another_file(path, arguments.truth)) is not None:
        console.warn(
            f"{path} was made from {made_from}, as its record says, and {arguments.truth} is another scan: "
            "the numbers mean something only if both are of the same object"
        )
    if target is not None:
        write_json(target, metrics)
    for line in judged_lines(metrics):
        console.say(line)
    for key, name in (("frc50_m", "FRC50"), ("frc_half_bit_m", "FRC 1/2-bit")):
        if metrics.get(key) is not None:
            console.say(f"{name:<13}{metrics[key]:.3g} m")
    return 0


def _scan_of_another_file(product: Path, truth: Path) -> str | None:
    """The scan that a product was made from, if the truth lies in another one; None: the same, or unknown."""
    from ptycho.io.npz import open_npz, patterns_key
    from ptycho.run import provenance

    if truth.suffix.lower() != ".npz" or not truth.is_file():
        return None
    try:
        record = provenance.read(product.parent) or {}
    except (InputError, OSError):
        return None
    inputs = record.get("inputs")
    for one in inputs if isinstance(inputs, list) else []:
        if isinstance(one, dict) and one.get("role") in ("scan", "test") and one.get("sha256"):
            with open_npz(truth) as archive:
                is_scan = patterns_key(archive.files) in archive.files
            same = one.get("bytes") == truth.stat().st_size and one["sha256"] == provenance.sha256(truth)
            return str(one.get("path")) if is_scan and not same else None
    return None
