"""Convert data of a beamline or another program to one scan file: frames, positions, geometry, mask.

SOURCE is a file or a folder of any format of `ptycho info --formats`. Values that the source contains need no
flag. Give the other values with --set; an error names each missing one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser, UsageError
from ptycho.cli.scan_checks import add_mask_flag, mask_of
from ptycho.cli.skipping import add_triage_model, triage_model_of
from ptycho.errors import InputError
from ptycho.io.inputs import short

if TYPE_CHECKING:
    from ptycho.io.formats.found import Found
    from ptycho.io.importing import Imported, ImportOptions

USAGE = "%(prog)s SOURCE [--positions FILE] [--set KEY=VALUE ...] -o SCAN.h5 [flags]"
HELP = "make a scan file of a beamline's or another program's files"


def add_arguments(parser: Parser) -> None:
    """Source, positions, settings, output."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="file or folder to import")
    parser.add_argument(
        "--positions", type=Path, default=None, metavar="FILE", help="file that holds the positions"
    )
    parser.add_argument(
        "--set", dest="settings", action="append", nargs="+", default=[], metavar="KEY=VALUE",
        help="what the file does not say, such as energy_eV=8800 or path.frames=/entry/data",
    )  # fmt: skip
    parser.add_argument(
        "--format", default=None, metavar="NAME", help="read SOURCE as this format, whatever it looks like"
    )
    add_mask_flag(parser)
    parser.add_argument(
        "--triage",
        action="store_true",
        default=False,
        help="say which frames look bad, and mark them in the file",
    )
    add_triage_model(parser)
    parser.add_argument(
        "-o", "--output", type=Path, default=None, metavar="SCAN.h5", help="file to write, .h5 or .cxi"
    )
    parser.add_argument(
        "--dry_run",
        dest="dry_run",
        action="store_true",
        default=False,
        help="show what was found, write nothing",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Find the data, show them, prepare the scan, write it."""
    from ptycho.io.cxi import write_scan_cxi
    from ptycho.io.hdf5_read import links_anywhere
    from ptycho.io.import_settings import found_in
    from ptycho.io.importing import prepare_from
    from ptycho.scan.opening import checked

    paths, options = parse_settings([word for words in arguments.settings for word in words])
    target = arguments.output
    model = triage_model_of(arguments, used=arguments.triage)
    if target is None and not arguments.dry_run:
        raise UsageError("give the file to write: -o SCAN.h5, or --dry_run to look only")
    if target is not None:
        check_target(target, (arguments.source, arguments.positions, mask_of(arguments)))
    with links_anywhere(paths.get("links") == "anywhere"):
        found = found_in(arguments.source, arguments.positions, paths, arguments.format)
        add_mask(found, mask_of(arguments))
        try:
            made = checked(prepare_from(arguments.source, found, options))
        except InputError:  # the values that were found help to see which are missing
            for line in table_of(found, None, options):
                console.say(line)
            raise
    if arguments.triage:
        made = triaged(made, model)
    for line in table_of(found, made, options):
        console.say(line)
    if target is None or arguments.dry_run:
        console.say("nothing written: --dry_run")
        return 0
    with console.progress("importing") as progress:
        write_scan_cxi(target, made, progress)
    console.say(f"{target}: {len(made.frames)} patterns of {made.frames.shape[1]} x {made.frames.shape[2]}")
    console.say(f"next: ptycho validate {target}")
    return 0


def triaged(made: Imported, model: Path | None) -> Imported:
    """The scan with the bad frames of triage marked, beside those of the source, and a note that names them.
    No frame is removed.

    Raises DataError as `ptycho.workflows.triage.triage`.
    """
    from dataclasses import replace

    from ptycho.scan.findings import name_numbers
    from ptycho.scan.units import explain_unit
    from ptycho.workflows.triage import triage_frames

    unit, _ = explain_unit(made.frames, made.unit, made.bad_pixels is not None)
    called = triage_frames(made.frames, unit, made.positions_px, made.bad_pixels, model)
    where = f" ({name_numbers('frame', called.numbers[called.bad])})" if called.bad.any() else ""
    bad = called.bad if made.bad_frames is None else called.bad | made.bad_frames
    return replace(made, bad_frames=bad, notes=(*made.notes, f"triage: {called.line()}{where}"))


def add_mask(found: Found, path: Path | None) -> None:
    """Add the pixels of a mask file to the ignored ones. The mask has the size of the frames before cropping.
    DataError.
    """
    from ptycho.errors import DataError
    from ptycho.io.masks import read_mask

    if path is None:
        return
    more = read_mask(path)
    own = found.bad_pixels
    if own is not None and own.shape != more.shape:
        raise DataError(f"{short(path)} has shape {more.shape}; the mask in the file has {own.shape}")
    found.bad_pixels = more if own is None else own | more


def check_target(target: Path, sources: tuple[Path | None, ...]) -> None:
    """InputError for an output that is a source, has another suffix, or exists."""
    from ptycho.io.targets import check_new, same_file

    if target.suffix.lower() not in (".h5", ".hdf5", ".cxi"):
        raise InputError(f"{short(target)}: a scan is written as .h5 or .cxi")
    for source in sources:
        if source is not None and same_file(target, source):
            raise InputError(f"{target} is what is read; choose another file to write")
    check_new(target)


def parse_settings(words: list[str]) -> tuple[dict[str, str], ImportOptions]:
    """(places inside the file, options) of `KEY=VALUE` words. UsageError for an unknown key."""
    from ptycho.io.import_settings import read_settings

    settings: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not value:
            raise UsageError(f"--set {word}: write KEY=VALUE, such as energy_eV=8800")
        if settings.get(key, value) != value:
            raise UsageError(f"--set {word}: {key} is also set to {settings[key]}; give it once")
        settings[key] = value
    try:
        return read_settings(settings)
    except InputError as error:
        raise UsageError(f"--set {error}") from None


def table_of(found: Found, made: Imported | None, options: ImportOptions) -> Iterator[str]:
    """The values that were found, one line each, and the missing ones."""
    geometry = made.geometry if made is not None else found.geometry.overruled_by(options.geometry)

    def row(name: str, value: str) -> str:
        return f"{name:<16} {value}"

    yield row("format", found.format)
    if found.frames is not None:
        M, H, W = (int(n) for n in found.frames.shape)
        size = M * H * W * found.frames.dtype.itemsize / 2**30
        grid = f", a grid of {found.grid[0]} x {found.grid[1]}" if found.grid else ""
        yield row("frames", f"{M} of {H} x {W}, {found.frames.dtype}, {size:.3g} GiB unpacked{grid}")
        yield row("codec", found.codec or "none")
    else:
        yield row("frames", "missing")
    count = found.n_positions
    places = found.positions_m if found.positions_m is not None else found.positions_px
    if places is not None:
        unit, factor = ("um", 1e6) if found.positions_m is not None else ("px", 1.0)
        span = (places.max(axis=0) - places.min(axis=0)) * factor
        yield row("positions", f"{count}, {span[0]:.4g} x {span[1]:.4g} {unit} (x, y)")
    else:
        yield row("positions", "missing: --positions FILE or --set path.positions_x=... path.positions_y=...")
    side = int(made.frames.shape[-1]) if made is not None else None
    for name, value in geometry.rows(side):
        yield row(name, value)
    if geometry.missing():
        yield row("missing", f"{', '.join(geometry.missing())}: give them by --set KEY=VALUE")
    if found.bad_pixels is not None:
        yield row("mask", f"{int(found.bad_pixels.sum())} bad pixels")
    yield row(
        "probe", "none: one is made from the mean pattern" if found.probe is None else f"{found.probe.shape}"
    )
    if made is not None:
        yield row("beam centre", f"row {made.centre_px[0]:g}, column {made.centre_px[1]:g}")
        for note in made.notes:
            yield row("note", note)
