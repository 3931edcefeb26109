"""The first part of `compare --warp`: fit a warp, print it, draw it and write it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.runs import file_target
from ptycho.errors import InputError

if TYPE_CHECKING:
    from ptycho.report.products import Product
    from ptycho_torch.warp import Registered


def check_flags(arguments: argparse.Namespace, inputs: Sequence[Path], figure: Path | None) -> None:
    """Raise InputError for targets that cannot be written, or that need --warp or a truth."""
    given = vars(arguments)
    picture, flow = given.get("warp_figure"), given.get("flow")
    if (picture is not None or flow is not None) and arguments.warp == "none":
        raise InputError("--warp_figure and --flow need a warp: add --warp affine, lens or flow")
    if picture is not None:
        file_target(picture, (".png",), arguments, inputs)
    if flow is not None:
        file_target(flow, (".npz",), arguments, inputs)
    from ptycho.io.micrograph import is_micrograph

    if figure is not None and not arguments.second.is_dir() and is_micrograph(arguments.second):
        raise InputError(f"{arguments.second} is a micrograph; use --warp_figure {figure} in place of -o")


def warp_first(
    arguments: argparse.Namespace, first: Product, second: Product, console: Console
) -> tuple[Product, Product, dict[str, Any]]:
    """The first product on the pixels of the second, the second, and numbers for JSON. Prints the fitted
    warp.
    """
    from ptycho.warp.settings import PairSettings
    from ptycho.workflows.registering import register_products

    size = vars(arguments).get("pixel_size_m")
    with console.progress("registering") as progress:
        made = register_products(
            first, second, PairSettings(arguments.warp), pixel_size_m=size, progress=progress
        )
    tell(made.fit, console)
    given = vars(arguments)
    if given.get("warp_figure") is not None:
        from ptycho.report import style
        from ptycho.report.warp import draw_registration

        names = (first.name, second.name)
        figure = draw_registration(made.pair, made.fit.warp, made.fit.start, made.fit.score, names)
        console.say(f"registration {style.save(figure, given['warp_figure'])}")
    if given.get("flow") is not None:
        from ptycho.io.npz import write_npz

        write_npz(
            given["flow"],
            {
                "object": made.first.object,
                "coverage": made.first.coverage,
                "origin_xy": made.first.origin_xy,
                "displacement_xy_px": made.fit.warp.field(),
                "moving_corner_xy": made.pair.corner_xy,
            },
        )
        console.say(f"warped       {given['flow']}")
    return made.first, made.second, made.fit.as_dict()


def tell(fit: Registered, console: Console) -> None:
    """Print which stages were accepted, the displacement, the improvement, and what failed."""
    from ptycho.warp.score import FAILURES

    kept = [row["stage"] for row in fit.stages if row["kept"] and row["stage"] not in ("tuning", "given")]
    numbers = fit.warp.as_dict()
    for name in fit.score.failures:
        console.warn(f"not warped: {FAILURES[name]}")
    if not fit.score.failures:
        words = kept[-1] if kept else "none: no warp makes held-out pixels fit better"
        console.say(f"warp         {words}")
        console.say(f"displaced    {numbers['rms_px']:.2f} px rms, {numbers['largest_px']:.2f} px at most")
    console.say(f"score        {fit.start.total:.3f} before, {fit.score.total:.3f} after (1 is best)")
