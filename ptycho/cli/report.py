"""Make one HTML page of one run, or of several side by side.

RUN is the output folder of ptycho train, infer, reconstruct or demo. The page shows whether the
reconstruction worked, the measured and reconstructed data, curves, numbers, configuration and provenance. It
is one file that loads nothing from the network. Pictures can be zoomed, and sliders compare them. The page
names what a folder lacks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.cli.runs import add_overwrite, file_target
from ptycho.cli.scan_checks import add_mask_flag, mask_of
from ptycho.errors import InputError

USAGE = "%(prog)s RUN [RUN ...] [-o FILE.html] [--data SCAN] [--pixel_size_m NUMBER]"
HELP = "make one page of a run, or of several"


def add_arguments(parser: Parser) -> None:
    """`RUN [RUN ...]`, `-o`, `--data`, `--bad_pixels`, `--pixel_size_m`."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="output folder of a run")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE.html",
        help="page to write (default RUN/report.html; of several runs report.html)",
    )
    add("--data", type=Path, metavar="SCAN", help="scan of the runs, where it moved or no run names it")
    add_mask_flag(parser)
    add("--pixel_size_m", type=float, metavar="NUMBER", help="of the object, for lengths")
    add_overwrite(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Write the page and print its path and its verdicts."""
    given = vars(arguments)
    size = given.get("pixel_size_m")
    if size is not None and not 0 < size < float("inf"):
        raise InputError(f"--pixel_size_m {size}: must be a number > 0")
    single: bool = len(arguments.runs) == 1
    target: Path = given.get("output") or (
        arguments.runs[0] / "report.html" if single else Path("report.html")
    )
    if "output" in given or arguments.runs[0].is_dir():
        file_target(target, (".html", ".htm"), arguments, (given.get("data"), mask_of(arguments)))
    from ptycho.io.masks import read_mask
    from ptycho.report.html import build_views, write_page

    mask = mask_of(arguments)
    bad_pixels = None if mask is None else read_mask(mask)
    views = build_views(arguments.runs, data=given.get("data"), pixel_size_m=size, bad_pixels=bad_pixels)
    for view in views:
        console.say(f"{view.name}: {view.verdict.word}. {view.verdict.reason}")
    console.say(f"page       {write_page(target, views)}")
    return 0
