"""Reconstruct a scan by iterative refinement, from a trained network's image or from nothing.

OUT gets reconstruction.npz (object, coverage, origin_xy, probe, positions), PNGs, metrics.json and the state
that --resume goes on from. Ctrl-C keeps the best state so far and writes it. R is always printed; a scan
that holds the truth is judged too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.judging import report_product
from ptycho.cli.parser import Parser, add_switch
from ptycho.cli.recording import begin_record, recorded
from ptycho.cli.runs import prepare_folder, read_scan
from ptycho.cli.writing import add_write_flag, check_writes, kinds_of, start_of, write_from_npz
from ptycho.config.settings import BACKENDS
from ptycho.errors import InputError, MissingFileError

if TYPE_CHECKING:
    from ptycho_torch.refine import IterationState, RefineResult

USAGE = "%(prog)s SCAN -o OUT [--model RUN] [flags]"
HELP = "reconstruct a scan by iterative refinement"

PRODUCT = "reconstruction.npz"
CHECKPOINT = "refine.safetensors"
OBJECTIVES = ("poisson_nll", "gaussian_poisson", "amplitude_mae", "amplitude_charbonnier")
RULES = ("rpie", "lsqml", "epie", "raar", "adam", "none")
_INTERRUPTED = 130


def add_arguments(parser: Parser) -> None:
    """The scan, where to start, what to solve for, where to write."""
    add = parser.add_argument
    add("scan", type=Path, metavar="SCAN", help="scan file")
    add("-o", "--output_dir", required=True, type=Path, metavar="OUT", help="folder for the products")
    add("--model", type=Path, metavar="RUN", help="start from this network's image (default: a flat object)")
    add("--refine", choices=RULES, default="rpie", help="update rule; none: the network alone (default rpie)")
    add("--objective", choices=OBJECTIVES, help="what --refine adam minimises (default: squared amplitudes)")
    add("--sweeps", type=int, default=40, metavar="INT", help="sweeps over the scan (default 40)")
    add("--probe_modes", type=int, metavar="INT", help="incoherent probe modes (default: as in the scan)")
    add(
        "--positions",
        choices=("fixed", "free", "affine"),
        default="fixed",
        help="correct positions: each for itself, or scale, rotation and shear too (default fixed)",
    )
    add(
        "--position_error",
        type=float,
        default=0.0,
        metavar="PX",
        help="with --positions: look for errors of this size, px (default 0: a pixel or less)",
    )
    add_switch(parser, "--background", dest="background", help="solve for a background image")
    add_switch(parser, "--intensity", dest="intensity", help="solve for one intensity a pattern")
    add("--seed", type=int, default=0, metavar="INT", help="of the order of patterns (default 0)")
    add("--backend", choices=BACKENDS, default="pytorch", help="the engine runs in pytorch only")
    add("--device", default="cpu", metavar="NAME", help="cpu, cuda or mps (default cpu)")
    add_write_flag(parser)
    add("--image", type=Path, metavar="FILE", help="start from this file's object and probe, of any kind")
    add("--resume", action="store_true", default=False, help="go on with the run that OUT holds")


def check(arguments: argparse.Namespace) -> None:
    """Raise InputError for what flags show by themselves."""
    if arguments.sweeps < 1:
        raise InputError(f"--sweeps {arguments.sweeps}: must be at least 1; for none use --refine none")
    if arguments.backend != "pytorch":
        raise InputError(
            f"--backend {arguments.backend}: the iterative engine runs in PyTorch only, whichever backend "
            "trained the model; leave --backend out"
        )
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}: must not be negative")
    modes = getattr(arguments, "probe_modes", None)
    if modes is not None and not 1 <= modes <= 16:
        raise InputError(f"--probe_modes {modes}: must lie between 1 and 16")
    if hasattr(arguments, "image") and hasattr(arguments, "model"):
        raise InputError("--image and --model both give the first image; leave one of them out")
    if arguments.refine == "none" and not hasattr(arguments, "model"):
        raise InputError("--refine none without --model leaves nothing to do; give one of them")
    if hasattr(arguments, "objective") and arguments.refine != "adam":
        raise InputError("--objective is what Adam minimises; add --refine adam, or leave it out")
    if arguments.resume and not (arguments.output_dir / CHECKPOINT).is_file():
        raise MissingFileError(
            f"--resume: {arguments.output_dir / CHECKPOINT} is not there; leave --resume out to start afresh"
        )


@recorded
def run(arguments: argparse.Namespace, console: Console) -> int:
    """Read, start, refine, write, judge."""
    check(arguments)
    model: Path | None = getattr(arguments, "model", None)
    side = None
    if model is not None:
        from ptycho.models.bundle import load_bundle

        side = load_bundle(model).state.get("N")
    raw = read_scan(arguments.scan, side, why=" in the model", output_dir=arguments.output_dir)
    check_writes(kinds_of(arguments.write), raw, arguments.scan)
    result = refine(arguments, raw, model, console)

    from ptycho_torch.refine.product import save_result

    output: Path = arguments.output_dir
    save_result(result, output, object_pixel_size_m=raw.object_pixel_size_m)
    write_from_npz(arguments.write, output / PRODUCT, raw, arguments.scan, console.say)
    metrics: dict[str, Any] = {"r_factor": result.r, "sweeps": len(result.history), "stopped": result.stopped}
    report_product(output / PRODUCT, arguments.scan, metrics, console)
    if result.stopped == "interrupted":
        console.warn(
            f"interrupted after {len(result.history)} of {arguments.sweeps} sweeps: the best is written; "
            "go on with --resume"
        )
        return _INTERRUPTED
    return 0


def refine(arguments: argparse.Namespace, raw: Any, model: Path | None, console: Console) -> RefineResult:
    """The refinement that the flags ask for; the output folder is made once scan and model are known good."""
    from ptycho_torch.refine import reconstruct
    from ptycho_torch.refine.network import start_from

    start: dict[str, Any] = {}
    if model is not None and not arguments.resume:
        with console.progress("network") as progress:
            made = start_from(model, raw, progress)
        start = {
            "initial_object": made.object,
            "initial_origin_xy": made.origin_xy,
            "initial_probe": made.probe,
        }
    if hasattr(arguments, "image") and not arguments.resume:
        start = start_of(arguments.image, raw)
    output = prepare_folder(arguments.output_dir)
    console.output = output
    begin_record(
        console,
        arguments,
        inputs={"scan": arguments.scan, "model": model},
        seeds={"seed": arguments.seed},
        device=arguments.device,
    )
    none = arguments.refine == "none"
    with console.progress("refining") as progress:

        def show(now: IterationState) -> None:
            progress(now.epoch, now.epochs, {"R": now.r})

        return reconstruct(
            raw,
            rule="rpie" if none else arguments.refine,
            epochs=0 if none else arguments.sweeps,
            seed=arguments.seed,
            modes=getattr(arguments, "probe_modes", None),
            rule_options={"objective": arguments.objective} if hasattr(arguments, "objective") else {},
            positions=arguments.positions,
            position_search_px=arguments.position_error,
            background=getattr(arguments, "background", False),
            intensity=getattr(arguments, "intensity", False),
            device=arguments.device,
            callbacks=(show,),
            checkpoint=None if none else output / CHECKPOINT,
            resume=arguments.resume,
            **start,
        )
