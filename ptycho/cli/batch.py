"""Many scans by one command each: inference with one model, or reconstruction where there is none.

Each scan gets a folder OUT/NAME, a log OUT/NAME.batch.log, and its own exit code. A scan that failed is tried
once more and listed. OUT gets batch.json and, for up to fifty scans, report.html. A finished scan is not
computed again: the same command continues with the remaining scans.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.cli.runs import add_overwrite, prepare_folder, write_json
from ptycho.cli.threads import usable_cores
from ptycho.errors import InputError

if TYPE_CHECKING:
    from ptycho.workflows.batch import Ended, Job

USAGE = "%(prog)s SCAN... -o OUT [--model RUN] [--jobs K] [--dry_run]"
HELP = "many scans: a queue of inferences or reconstructions"

SUMMARY, REPORT = "batch.json", "report.html"
_ON_A_PAGE = 50
#: memory of a program before it reads a scan, GiB; then bytes a pattern pixel: counts and amplitudes
_BASE_GIB, _BYTES_A_PIXEL = 0.7, 12


def add_arguments(parser: Parser) -> None:
    """The scans, the model, where to write, how many at a time."""
    add = parser.add_argument
    add("scans", nargs="+", metavar="SCAN", help="scan files, or patterns in quotes: 'data/*.npz'")
    add("-o", "--output_dir", required=True, type=Path, metavar="OUT", help="folder of the batch")
    add("--model", type=Path, metavar="RUN", help="infer with this model; without it: ptycho reconstruct")
    add("--flags", default="", metavar="WORDS", help="more flags of each command, in quotes")
    add("--jobs", type=int, default=1, metavar="K", help="scans at a time (default 1)")
    add("--dry_run", dest="dry_run", action="store_true", default=False, help="show the plan; run the "
        "smallest scan once, without keeping it, to estimate time and memory")  # fmt: skip
    add("--slurm", action="store_true", default=False, help="one array job of SLURM, through submitit")
    add("--slurm_set", action="append", default=[], metavar="KEY=VALUE",
        help="submitit's names: slurm_partition=short, timeout_min=60, mem_gb=16")  # fmt: skip
    add_overwrite(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Plan, run and summarise; returns 1 if a scan failed."""
    from ptycho.io.lock import FolderLock
    from ptycho.workflows.batch import Queue, slurm_array

    if not 1 <= arguments.jobs <= 1024:
        raise InputError(f"--jobs {arguments.jobs}: must lie between 1 and 1024")
    options = _options(arguments.slurm_set)
    jobs = plan(arguments, sized=arguments.dry_run)
    if arguments.dry_run:
        return _show_plan(jobs, arguments.jobs, console)
    output = prepare_folder(arguments.output_dir)
    lock = FolderLock(output)
    try:
        left = [job for job in jobs if not _is_done(job)]
        if arguments.slurm:
            numbers = slurm_array(left, output / "slurm", workers=arguments.jobs, options=options)
            console.say(
                f"handed over  {len(left)} jobs to SLURM, the first is {numbers[0] if numbers else '-'}"
            )
            return 0
        cores = max(1, usable_cores(os.environ) // arguments.jobs)
        queue = Queue(arguments.jobs, {**os.environ, "OMP_NUM_THREADS": str(cores)})
        ended: list[Ended] = []
        with console.progress("scans") as progress:

            def told(done: int, one: Ended) -> None:
                ended.append(one)
                console.say(_line(one))
                progress(done, len(left))

            try:
                queue.run(left, told)
            finally:
                _sum_up(output, jobs, ended, console)
    finally:
        lock.release()
    return 0 if all(one.code == 0 for one in ended) else 1


def plan(arguments: argparse.Namespace, *, sized: bool) -> list[Job]:
    """A job for each scan; `sized`: with patterns and side. InputError before any work."""
    from ptycho.io.inputs import check_input
    from ptycho.io.registry import shape_of
    from ptycho.workflows.batch import Job, folders_of, scans_of

    scans = scans_of(arguments.scans)
    model: Path | None = vars(arguments).get("model")
    if model is not None:
        from ptycho.models.bundle import load_bundle

        if model.suffix != ".onnx":
            load_bundle(model)
    try:
        more = shlex.split(arguments.flags)
    except ValueError as error:
        raise InputError(f"--flags {arguments.flags!r}: {error}") from None
    if arguments.overwrite:
        more.append("--overwrite")
    jobs = []
    for scan, folder in zip(scans, folders_of(scans, arguments.output_dir), strict=True):
        check_input(scan)
        words = ["reconstruct", str(scan)] if model is None else ["infer", str(scan), "--model", str(model)]
        n_patterns, N = shape_of(scan) if sized else (0, 0)
        jobs.append(Job(scan, folder, (*words, "-o", str(folder), *more), n_patterns, N))
    return jobs


def _options(settings: Sequence[str]) -> dict[str, Any]:
    """`key=value` words for submitit; whole numbers are numbers."""
    found: dict[str, Any] = {}
    for word in settings:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InputError(f"--slurm_set {word}: must be KEY=VALUE")
        found[key] = int(value) if value.isdigit() else value
    return found


def _is_done(job: Job) -> bool:
    """Whether the folder of a job holds the image of its scan already, by its record."""
    from ptycho.run import provenance

    try:
        record = provenance.read(job.folder)
    except (InputError, OSError):
        return False
    if record is None or record.get("state") != "done" or not (job.folder / "reconstruction.npz").is_file():
        return False
    inputs = {entry["role"]: entry for entry in record.get("inputs", ()) if isinstance(entry, dict)}
    sha = inputs.get("scan", {}).get("sha256")
    return sha is not None and sha == provenance.describe_file("scan", job.scan).get("sha256")


def _show_plan(jobs: Sequence[Job], workers: int, console: Console) -> int:
    from ptycho.workflows.batch import measure

    smallest = min(jobs, key=lambda job: job.size)
    with console.progress("measuring the smallest scan"):
        estimate = measure(smallest)
    console.say(f"measured     {smallest.scan}: {estimate.seconds(smallest):.1f} s, thrown away")
    console.say("patterns   side px   memory GiB   seconds   scan")
    for job in jobs:
        memory = _BASE_GIB + job.size * _BYTES_A_PIXEL / 2**30
        console.say(f"{job.n_patterns:<11}{job.N:<10}{memory:<13.1f}{estimate.seconds(job):<10.1f}{job.scan}")
    whole = sum(estimate.seconds(job) for job in jobs) / workers
    console.say(f"{len(jobs)} jobs, {workers} at a time: about {whole:.0f} s; nothing was written")
    return 0


def _line(one: Ended) -> str:
    again = ", second try" if one.tries > 1 else ""
    reason = "" if one.code == 0 else f": {one.said}"
    return f"{one.state:<13}{one.job.folder}   {one.seconds:.1f} s{again}{reason}"


def _sum_up(output: Path, jobs: Sequence[Job], ended: Sequence[Ended], console: Console) -> None:
    """batch.json, the list of what failed, and a page of what is done."""
    from ptycho.errors import PtychoError
    from ptycho.report.html import build_views, write_page

    by_folder = {one.job.folder: one for one in ended}
    rows = []
    for job in jobs:
        one = by_folder.get(job.folder)
        state = one.state if one is not None else "done" if _is_done(job) else "not begun"
        numbers = {} if one is None else {k: v for k, v in asdict(one).items() if k != "job"}
        rows.append({"scan": str(job.scan), "folder": str(job.folder), "state": state, **numbers})
    write_json(output / SUMMARY, rows)
    counts = {state: sum(row["state"] == state for row in rows) for state in {row["state"] for row in rows}}
    console.say("batch        " + ", ".join(f"{n} {state}" for state, n in sorted(counts.items())))
    done = [Path(row["folder"]) for row in rows if row["state"] == "done"][:_ON_A_PAGE]
    if not done:
        return
    try:
        write_page(output / REPORT, build_views(done))
        console.say(f"page         {output / REPORT}")
    except (PtychoError, OSError) as error:
        console.warn(f"{output / REPORT} was not written: {error}")
