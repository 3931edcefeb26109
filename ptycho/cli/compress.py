"""Write a scan compressed; every command that takes a scan opens the file.

It prints the bits per frame, the compression ratio to the original frames, and the error in units of the
Poisson noise of each count. Positions, probe, object, mask, marks of bad frames, geometry and
the truth of a simulation are stored exactly. What is not kept is named.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser, UsageError, add_switch
from ptycho.cli.runs import add_overwrite, file_target
from ptycho.cli.scan_checks import add_mask_flag, mask_of, read_checked_scan
from ptycho.io.compressed.header import DEFAULT_METHOD, METHODS, PREDICTING

if TYPE_CHECKING:
    from ptycho.io.compressed.header import Header
    from ptycho.scan.raw_data import RawData

USAGE = "%(prog)s SCAN -o FILE.h5 [--method NAME] [flags]"
HELP = "write a scan compressed, for all other commands to open"


def add_arguments(parser: Parser) -> None:
    """The scan, the file, the method and its numbers."""
    add = parser.add_argument
    add("scan", type=Path, metavar="SCAN", help="scan to compress")
    add("-o", "--output", required=True, type=Path, metavar="FILE.h5", help="file to write")
    add(
        "--method", choices=METHODS, default=DEFAULT_METHOD,
        help="lossless; poisson: counts rounded to a step of their noise; others predict frames and keep "
        f"the difference (default {DEFAULT_METHOD})",
    )  # fmt: skip
    add("--step", type=float, metavar="SIGMAS", help="step, Poisson standard deviations (default 1)")
    add_switch(
        parser, "--residual", dest="residual",
        help="keep the difference between counts and prediction (default yes)",
    )  # fmt: skip
    add("--rank", type=int, metavar="INT", help="shapes of --method lowrank (default 32)")
    add("--weights", type=Path, metavar="FILE", help="a network of --method learned that you trained")
    add("--seed", type=int, default=0, metavar="INT", help="of the reconstruction of --method object")
    add_mask_flag(parser)
    add_overwrite(parser)


def check(arguments: argparse.Namespace) -> None:
    """UsageError for flags that do not go with the method."""
    given, method = vars(arguments), arguments.method
    predicts = ", ".join(PREDICTING)
    for flag, methods in (
        ("residual", PREDICTING), ("rank", ("lowrank",)), ("weights", ("learned",)),
        ("step", tuple(name for name in METHODS if name != "lossless")),
    ):  # fmt: skip
        if flag in given and method not in methods:
            raise UsageError(
                f"--{flag} does not go with --method {method}; it belongs to {', '.join(methods)}"
            )
    if "step" in given and given.get("residual") is False:
        raise UsageError(
            f"--step rounds the difference that --no-residual drops ({predicts}); leave one of them out"
        )
    if arguments.seed < 0:
        raise UsageError(f"--seed {arguments.seed}: must not be negative")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Read, check, compress, and print the result. Raises InputError."""
    check(arguments)
    given = vars(arguments)
    read = (arguments.scan, mask_of(arguments), given.get("weights"))
    target = file_target(arguments.output, (".h5", ".hdf5"), arguments, read)
    raw, _ = read_checked_scan(
        arguments.scan, None, console, output_dir=target.parent, bad_pixels=mask_of(arguments)
    )
    from ptycho.io.companions import read_companions
    from ptycho.workflows.compress import compress_scan

    chosen = {name: given[name] for name in ("step", "residual", "rank", "weights") if name in given}
    with console.progress("compressing") as progress:
        header = compress_scan(
            raw, target, arguments.method, seed=arguments.seed, beside=read_companions(arguments.scan),
            progress=progress, **chosen,
        )  # fmt: skip
    for line in in_words(header, target):
        console.say(line)
    left_out = left_out_of(arguments.scan, raw)
    if left_out:
        console.warn(f"{target}: not kept: {', '.join(left_out)}")
    return 0


def left_out_of(source: Path, raw: RawData) -> list[str]:
    """What the scan's file holds and a compressed one does not: the labels, and keys that nothing reads."""
    from ptycho.io.npz import unread_keys

    others = unread_keys(source) if source.suffix.lower() == ".npz" else []
    return [*(["Y (the labels)"] if raw.Y is not None else []), *others]


def in_words(header: Header, target: Path) -> Iterator[str]:
    """The properties of a compressed scan, one line each."""
    M, N, _ = header.shape
    yield f"{target}: {M} patterns of {N} x {N}, method {header.method}"
    yield (
        f"frames       {header.bits_per_frame:.0f} bits each, 1/{header.ratio:.1f} of {header.original_dtype}"
        f"; the whole file {target.stat().st_size / 1e6:.3g} MB"
    )
    if header.method == "lossless":
        yield "lost         nothing: every value is the same, bit for bit"
        return
    bound = "" if header.error_bound is None else f", below {header.error_bound:g} everywhere"
    rms, largest = header.error_rms, header.error_max
    yield f"lost         rms {rms:.3f} of the Poisson noise, largest {largest:.2f}{bound}"
    if not header.keeps_frames:
        yield "kept         only the predicted frames, not the counts: details beyond the prediction are lost"
    if header.original_unit != header.unit:
        yield "unit         the amplitudes are written as counts (their squares)"
    if header.masked:
        yield f"mask         {header.masked} bad pixels are kept as 0"
