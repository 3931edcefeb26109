"""Reconstruct a scan by iterative refinement, from a trained network's image or from its own patterns.

OUT gets reconstruction.npz (object, coverage, origin_xy, probe, positions), PNGs, metrics.json and the state
that --resume goes on from. Ctrl-C keeps the best state so far and writes it. R is always printed; a scan
that holds the truth is judged too.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.config_words import with_config
from ptycho.cli.console import Console
from ptycho.cli.judging import report_product
from ptycho.cli.parser import Parser, add_switch
from ptycho.cli.position_reference import check_reference, move_by_reference
from ptycho.cli.processes import rank, run_together, the_team
from ptycho.cli.progress_of_sweeps import Previews, SoFar, in_words
from ptycho.cli.recording import begin_record, open_output, recorded
from ptycho.cli.runs import add_overwrite
from ptycho.cli.scan_checks import add_mask_flag, add_orientation_flag, mask_of, read_checked_scan
from ptycho.cli.skipping import Skipping, add_skip_flags
from ptycho.cli.writing import (
    add_product_flag,
    add_write_flag,
    check_writes,
    kinds_of,
    product_from_npz,
    product_target,
    start_of,
    write_from_npz,
)
from ptycho.config.settings import BACKENDS
from ptycho.errors import InputError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ptycho.scan.findings import Finding
    from ptycho_torch.refine import IterationState, RefineResult

USAGE = "%(prog)s SCAN -o OUT [--model RUN] [flags]"
HELP = "reconstruct a scan by iterative refinement"

PRODUCT = "reconstruction.npz"
CHECKPOINT = "refine.safetensors"
PREVIEW = "preview.png"
OBJECTIVES = ("poisson_nll", "gaussian_poisson", "amplitude_mae", "amplitude_charbonnier")
RULES = ("rpie", "lsqml", "epie", "raar", "adam", "none")
_INTERRUPTED = 130


def add_arguments(parser: Parser) -> None:
    """The scan, where to start, what to solve for, where to write."""
    add = parser.add_argument
    parser.expand = with_config
    add("scan", nargs="?", default=None, type=Path, metavar="SCAN", help="scan to reconstruct")
    add("-o", "--output_dir", type=Path, metavar="OUT", help="folder for the products")
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML settings, flag: value; a typed flag wins",
    )
    add("--model", type=Path, metavar="RUN", help="start from this network's image")
    add(
        "--start",
        choices=("auto", "coarse", "flat"),
        default="auto",
        help="without --model: coarse (from counts and centres of mass), flat, or the better (default auto)",
    )
    add("--levels", type=int, choices=(1, 2), default=2, help="2: coarse steps among the sweeps (default 2)")
    add(
        "--prior",
        choices=("auto", "learned", "tv", "none"),
        default="auto",
        help="learned (a network), tv (total variation); auto: learned where photons are few (default auto)",
    )
    add("--refine", choices=RULES, default="rpie", help="update rule; none: the network alone (default rpie)")
    add("--objective", choices=OBJECTIVES, help="what --refine adam minimises (default: squared amplitudes)")
    add("--sweeps", type=int, metavar="INT", help="sweeps over the scan (default: until R stops falling)")
    add("--max_time_s", type=float, metavar="NUMBER", help="no new sweep after so many s (default: no limit)")
    add("--preview", action="store_true", default=False, help="write OUT/preview.png as the image forms")
    add("--probe_modes", type=int, metavar="INT", help="incoherent probe modes (default: as in the scan)")
    add(
        "--positions",
        choices=("fixed", "free", "affine"),
        default="fixed",
        help="correct positions: each alone, or also scale and rotation (default fixed)",
    )
    add(
        "--position_error",
        type=float,
        default=0.0,
        metavar="PX",
        help="size of the position errors, px (default 0: a pixel or less)",
    )
    add(
        "--position_decode",
        choices=("auto", "exp", "st", "none"),
        default="auto",
        help="with --position_error: mean or likeliest shift on a grid, or places at random; auto: exp "
        "(default auto)",
    )
    add(
        "--position_belief",
        choices=("auto", "network", "formula"),
        default="auto",
        help="how misfits become a distribution; auto: network from 3e4 counts a pattern (default auto)",
    )
    add(
        "--position_reference",
        type=Path,
        metavar="IMAGE",
        help="first correct smooth position errors by this image or run",
    )
    add_switch(parser, "--background", dest="background", help="solve for a background image")
    add_switch(parser, "--intensity", dest="intensity", help="solve for one intensity a pattern")
    add_mask_flag(parser)
    add_orientation_flag(parser)
    add_skip_flags(parser)
    add("--seed", type=int, default=0, metavar="INT", help="of the order of patterns (default 0)")
    add("--backend", choices=BACKENDS, default="pytorch", help="the engine runs in pytorch only")
    add(
        "--accelerator",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="where to compute; auto: a GPU where there is one (default auto)",
    )
    add(
        "--device",
        metavar="NAME",
        help="torch's name of a device, such as cuda:1, instead",
    )
    add(
        "--patterns",
        choices=("auto", "memory", "disk"),
        default="auto",
        help="where the patterns are while it works; auto: on disk where memory is short (default auto)",
    )
    add("--devices", type=int, default=1, metavar="K", help="processes that share the work (default 1)")
    add_overwrite(parser)
    add_write_flag(parser)
    add_product_flag(parser)
    add("--image", type=Path, metavar="FILE", help="start from this file's object and probe, of any kind")
    add("--resume", action="store_true", default=False, help="go on with the run that OUT holds")


def _check_given(arguments: argparse.Namespace) -> None:
    """Raise InputError without a scan or an output folder."""
    if arguments.scan is None:
        raise InputError("no scan to reconstruct; give SCAN")
    if not hasattr(arguments, "output_dir"):
        raise InputError("no folder for the products; give -o OUT")


def check(arguments: argparse.Namespace) -> None:
    """Raise InputError for flags that are wrong by themselves or cannot be used together."""
    _check_given(arguments)
    _check_numbers(arguments)
    if arguments.backend != "pytorch":
        raise InputError(
            f"--backend {arguments.backend}: the iterative engine runs in PyTorch only, whichever backend "
            "trained the model; leave --backend out"
        )
    if hasattr(arguments, "image") and hasattr(arguments, "model"):
        raise InputError("--image and --model both give the first image; leave one of them out")
    if arguments.refine == "none" and not hasattr(arguments, "model"):
        raise InputError("--refine none without --model leaves nothing to do; give one of them")
    check_reference(arguments)
    if hasattr(arguments, "objective") and arguments.refine != "adam":
        raise InputError("--objective is what Adam minimises; add --refine adam, or leave it out")
    if arguments.resume and not (arguments.output_dir / CHECKPOINT).is_file():
        raise MissingFileError(
            f"--resume: {arguments.output_dir / CHECKPOINT} is not there; leave --resume out to start afresh"
        )


def _check_numbers(arguments: argparse.Namespace) -> None:
    limit = getattr(arguments, "max_time_s", None)
    if limit is not None and not limit > 0:
        raise InputError(f"--max_time_s {limit:g}: must be greater than 0")
    sweeps = getattr(arguments, "sweeps", None)
    if sweeps is not None and sweeps < 1:
        raise InputError(f"--sweeps {sweeps}: must be at least 1; for none use --refine none")
    if not 1 <= arguments.devices <= 1024:
        raise InputError(f"--devices {arguments.devices}: must lie between 1 and 1024")
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}: must not be negative")
    modes = getattr(arguments, "probe_modes", None)
    if modes is not None and not 1 <= modes <= 16:
        raise InputError(f"--probe_modes {modes}: must lie between 1 and 16")


@recorded
def run(arguments: argparse.Namespace, console: Console) -> int:
    """Read, start, refine, write, judge."""
    check(arguments)
    if (code := run_together(console.words, arguments.devices, console)) is not None:
        return code
    from ptycho.run.folder import check_folder

    check_folder(arguments.output_dir, "reconstruct", inputs=(arguments.scan,), overwrite=arguments.overwrite)
    model: Path | None = getattr(arguments, "model", None)
    side = None
    if model is not None:
        from ptycho.models.bundle import load_bundle

        side = load_bundle(model).state.get("N")
    skipping = Skipping.of(arguments, arguments.output_dir if arguments.resume else None)
    raw, findings = read_checked_scan(
        arguments.scan,
        side,
        console,
        why=" in the model",
        patterns=arguments.patterns,
        output_dir=arguments.output_dir,
        bad_pixels=mask_of(arguments),
        orientation=vars(arguments).get("orientation"),
        skipping=skipping,
    )
    product = product_target(arguments, arguments.output_dir / PRODUCT, (arguments.scan, model))
    kinds = [*kinds_of(arguments.write), *(["product"] if product else [])]
    check_writes(kinds, raw, arguments.scan)
    if raw.probe_made and model is None and not arguments.resume:
        from ptycho.workflows.probe_choice import choose_probe

        with console.progress("choosing a probe") as progress:
            choice = choose_probe(raw, seed=arguments.seed, progress=progress)
        console.say(f"probe        {choice.name}   (R of held-out patterns {choice.r_held[choice.name]:.3f})")
        raw = raw.with_probe(choice.probe)
    start = None if arguments.positions == "fixed" else raw.positions_px
    moved: dict[str, Any] = {}
    if hasattr(arguments, "position_reference"):
        start = raw.positions_px
        raw, moved = move_by_reference(arguments, raw, console)
    result = refine(arguments, raw, model, console, findings, skipping)
    if rank():
        return 0

    from ptycho_torch.refine.product import save_result

    output: Path = arguments.output_dir
    save_result(result, output, object_pixel_size_m=result.object_pixel_size_m, start_positions_xy=start)
    write_from_npz(arguments.write, output / PRODUCT, raw, arguments.scan, console.say)
    if product is not None:
        product_from_npz(product, output / PRODUCT, raw, arguments.scan)
        console.say(f"ptychodus    {product}")
    metrics: dict[str, Any] = {"r_factor": result.r, "sweeps": len(result.history), "stopped": result.stopped}
    if result.learned:
        metrics["r_before_prior"] = result.history[-1]["r"]  # of the last sweep, before the prior's step
    metrics |= {"start": result.began, "prior_weight": result.learned or result.variation or 0.0, **moved}
    console.say(in_words(result))
    if arguments.refine != "none" and result.stopped != "interrupted":
        from ptycho.workflows.second_look import second_look

        seen = second_look(raw, result.probe, intensity=result.intensity is not None, seed=arguments.seed)
        metrics |= seen.metrics
        for hint in seen.hints:
            console.warn(hint)
    report_product(output / PRODUCT, arguments.scan, metrics, console)
    if result.stopped == "interrupted":
        console.warn(
            f"interrupted after {len(result.history)} sweeps: the best is written; go on with --resume"
        )
        return _INTERRUPTED
    return 0


class TimeLimit:
    """Stops the sweeps a given number of seconds after its creation; None: never."""

    def __init__(self, seconds: float | None) -> None:
        self._end = float("inf") if seconds is None else time.monotonic() + seconds

    def __call__(self, now: IterationState) -> bool:
        """Whether the time limit has passed."""
        return time.monotonic() >= self._end


def _device(arguments: argparse.Namespace, console: Console) -> str:
    """Torch's name of the device; a GPU that `auto` found is named."""
    given: str | None = getattr(arguments, "device", None)
    if given is not None:
        return given
    from ptycho_torch.refine.device import device_for

    device, name = device_for(arguments.accelerator)
    if arguments.accelerator == "auto" and device != "cpu":
        console.say(f"device       {device}: {name} (--accelerator cpu keeps to the CPU)")
    return device


def refine(
    arguments: argparse.Namespace,
    raw: Any,
    model: Path | None,
    console: Console,
    findings: Sequence[Finding] = (),
    skipping: Skipping | None = None,
) -> RefineResult:
    """The refinement that the flags ask for; the output folder is made once scan and model are known good."""
    from ptycho.cli.freed_memory import give_back_holes
    from ptycho.io.lazy import LazyPatterns
    from ptycho_torch.refine import reconstruct
    from ptycho_torch.refine.network import start_from

    start: dict[str, Any] = {}
    if model is not None and not arguments.resume:
        with console.progress("the network's image") as progress:
            made = start_from(model, raw, progress)
        start = {
            "initial_object": made.object,
            "initial_origin_xy": made.origin_xy,
            "initial_probe": made.probe,
        }
    if hasattr(arguments, "image") and not arguments.resume:
        start = start_of(arguments.image, raw)
    reference = getattr(arguments, "position_reference", None)
    read = (arguments.scan, model, getattr(arguments, "image", None), mask_of(arguments), reference)
    device = _device(arguments, console)
    output = open_output(
        console, arguments, arguments.output_dir, "reconstruct", inputs=read, resumes=arguments.resume
    )
    begin_record(
        console,
        arguments,
        inputs={
            "scan": arguments.scan,
            "model": model,
            "bad_pixels": mask_of(arguments),
            "position_reference": reference,
        },
        seeds={"seed": arguments.seed},
        device=device,
        findings=findings,
        skipped=skipping.records if skipping is not None else None,
    )
    none = arguments.refine == "none"
    on_disk = isinstance(raw.diff3d, LazyPatterns)
    so_far = () if rank() else (SoFar(output),)
    with the_team() as team, console.progress("refining") as progress:

        def show(now: IterationState) -> None:
            progress(now.epoch, now.epochs, {"R": now.r})
            if on_disk:
                give_back_holes()

        return reconstruct(
            raw,
            rule="rpie" if none else arguments.refine,
            sweeps=0 if none else getattr(arguments, "sweeps", None),
            seed=arguments.seed,
            modes=getattr(arguments, "probe_modes", None),
            rule_options={"objective": arguments.objective} if hasattr(arguments, "objective") else {},
            positions=arguments.positions,
            position_search_px=arguments.position_error,
            position_decode=arguments.position_decode,
            position_belief=arguments.position_belief,
            background=getattr(arguments, "background", False),
            intensity=getattr(arguments, "intensity", False),
            start=arguments.start,
            levels=arguments.levels,
            prior=arguments.prior,
            device=device,
            watch=Previews(output / PREVIEW, console) if arguments.preview and not rank() else None,
            callbacks=(show, *so_far, TimeLimit(getattr(arguments, "max_time_s", None))),
            checkpoint=None if none else output / CHECKPOINT,
            resume=arguments.resume,
            team=team,
            **start,
        )
