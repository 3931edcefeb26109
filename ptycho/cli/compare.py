"""Compare two reconstructions: remove what ptychography cannot determine, then compute numbers and a figure.

A and B are products (.npz, or ptychodus .h5), scans that hold their truth, or run folders. B serves as the
truth: it sets the box, the ranges and the gauge. Images of different size or origin are placed where their
files say, else centre on centre, and then registered to a fraction of a pixel. With --warp a fitted warp maps
the first image onto the second; then B may be a micrograph (.png, .tif, .npy).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.judging import judged_lines
from ptycho.cli.parser import Parser
from ptycho.cli.runs import add_overwrite, file_target, json_target, write_json
from ptycho.cli.warping import check_flags, warp_first
from ptycho.errors import InputError
from ptycho.warp.settings import KINDS

if TYPE_CHECKING:
    from ptycho.report.compare import Comparison

HELP = "compare two reconstructions"

_MORE = {"amplitude_ms_ssim": "amp MS-SSIM", "phase_ms_ssim": "ph. MS-SSIM"}


def add_arguments(parser: Parser) -> None:
    """`A B`, `-o`, `--warp`, `--pixel_size_m`, `--json`."""
    add = parser.add_argument
    what = "product (.npz, .h5), scan with its truth, or run folder"
    add("first", type=Path, metavar="A", help=what)
    add("second", type=Path, metavar="B", help="the same; stands for the truth")
    add("-o", "--output", type=Path, metavar="FILE.png", help="draw both and their difference there")
    add(
        "--warp",
        choices=KINDS,
        default="none",
        help="fit a warp of this kind at most, then compare (default none)",
    )
    add("--warp_figure", type=Path, metavar="FILE.png", help="draw the registration there")
    add("--flow", type=Path, metavar="FILE.npz", help="write the warp and the warped image there")
    add("--pixel_size_m", type=float, metavar="NUMBER", help="of the object, for FRC in metres")
    add("--json", type=Path, metavar="FILE", help="write every number there as well")
    add_overwrite(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the numbers, draw the figure."""
    given = vars(arguments)
    target: Path | None = given.get("output")
    size = given.get("pixel_size_m")
    if size is not None and not 0 < size < float("inf"):
        raise InputError(f"--pixel_size_m {size}: must be a number > 0")
    from ptycho.report.compare import compare, comparison_figure
    from ptycho.report.products import PICTURE, PRODUCT, open_product, open_reference

    both = (arguments.first, arguments.second)
    read = [path / PRODUCT if path.is_dir() else path for path in both]
    if target is not None:
        file_target(target, (".png",), arguments, read)
    numbers_to = json_target(arguments, read)

    check_flags(arguments, read, target)
    first, second = open_product(arguments.first), open_reference(arguments.second)
    warped: dict[str, Any] = {}
    if arguments.warp != "none":
        first, second, warped = warp_first(arguments, first, second, console)
    elif second.key == PICTURE:
        raise InputError(f"{arguments.second} is a micrograph; add --warp affine, lens or flow")
    made = None if second.key == PICTURE else compare(first, second, pixel_size_m=size)
    numbers = warped if made is None else made.evaluation.as_dict() | warped
    if numbers_to is not None:
        write_json(numbers_to, numbers)
    if made is not None:
        _say(made, numbers, console)
        if target is not None:
            console.say(f"figure       {comparison_figure(target, made)}")
    return 0


def _say(made: Comparison, numbers: Mapping[str, Any], console: Console) -> None:
    """Print every number, the removed gauge and the judged box."""
    if not made.origin_known:
        console.warn("the files do not say where the images lie: they were laid centre on centre")
    for line in judged_lines(numbers):
        console.say(line)
    for key, name in _MORE.items():
        console.say(f"{name:<13}{numbers[key]:.3f}")
    for key, name in (("frc50_m", "FRC50"), ("frc_half_bit_m", "FRC 1/2-bit")):
        if numbers.get(key) is not None:
            console.say(f"{name:<13}{numbers[key]:.3g} m")
    dy, dx = made.evaluation.shift_px
    twin = ", conjugate twin" if made.evaluation.twin else ""
    console.say(f"removed      shift x {dx:+.2f} y {dy:+.2f} px, scale {made.evaluation.scale:.4g}{twin}")
    y0, y1, x0, x1 = made.evaluation.roi
    console.say(f"judged       x {x0} to {x1}, y {y0} to {y1} px of {made.second.name}")
