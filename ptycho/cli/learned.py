"""Training of a learned tool by `ptycho sweep model=TOOL`: one run, or several one after another."""

from __future__ import annotations

import argparse
import dataclasses
import traceback
from collections.abc import Sequence
from pathlib import Path

from ptycho.cli.console import Console
from ptycho.cli.recording import on_record
from ptycho.cli.runs import folder_name
from ptycho.config.learned import LearnedSettings, weight_settings
from ptycho.errors import ConfigError, InputError, PtychoError, RunError

KIND = "learned"


def run_tool(tool: str, arguments: argparse.Namespace, console: Console) -> int:
    """Check every run, then train them in turn; the numbers of each are printed."""
    from ptycho.experiments.learned import points
    from ptycho.run.folder import check_folder

    own: Path | None = getattr(arguments, "config_dir", None)
    found = points(tool, arguments.overrides, multirun=arguments.multirun, own=own)
    if any("output_dir" in point.swept for point, _ in found):
        raise ConfigError("output_dir cannot be swept: each run of a sweep gets a folder in it")
    runs: list[LearnedSettings] = []
    for index, (point, settings) in enumerate(found):
        if arguments.multirun:
            folder = settings.output_dir / folder_name(index, len(found), point.swept)
            settings = dataclasses.replace(settings, output_dir=folder)
        runs.append(settings)
    if arguments.dry_run:
        for (point, _), settings in zip(found, runs, strict=True):
            console.say(f"{settings.output_dir}  model={tool} {' '.join(point.overrides)}".rstrip())
        return 0
    for settings in runs:
        check_folder(settings.output_dir, KIND, overwrite=arguments.overwrite)
    if arguments.multirun:
        _train_all(tool, runs, arguments, console)
    else:
        _train(tool, runs[0], arguments, console)
    return 0


def _train_all(
    tool: str, runs: Sequence[LearnedSettings], arguments: argparse.Namespace, console: Console
) -> None:
    """Train every run of a sweep. One that fails is named, and the others go on; RunError at the end."""
    failed: list[str] = []
    for settings in runs:
        try:
            _train(tool, settings, arguments, console)
        except Exception as error:
            if console.debug:
                traceback.print_exc()
            what = str(error) if isinstance(error, PtychoError) else f"{type(error).__name__}: {error}"
            console.warn(f"{settings.output_dir}: failed: {what}")
            failed.append(f"{settings.output_dir.name} ({what})")
    if failed:
        raise RunError(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(failed)}")


def _train(tool: str, settings: LearnedSettings, arguments: argparse.Namespace, console: Console) -> None:
    from ptycho.run.folder import OutputFolder
    from ptycho.workflows.learned import train_tool

    folder = settings.output_dir
    held = OutputFolder(
        folder, KIND, overwrite=arguments.overwrite, resumes=settings.resume, products=settings.exports
    )
    console.output = folder
    console.goes_on = "go on with the same command and resume=true"
    record = on_record(
        folder,
        kind=KIND,
        command=[*console.prog.split(), *arguments.overrides],
        inputs={},
        seeds={"seed": settings.seed},
        device=settings.accelerator,
        settings=weight_settings(settings),
    )
    try:
        with record, console.progress(f"training {tool}") as progress:
            fit = train_tool(tool, settings, progress)
    except InputError:
        held.refused()
        raise
    finally:
        held.close()
    console.say(f"trained      {tool}, {len(fit.history.get('epoch', ()))} epochs, in {folder}")
    console.say("best         " + "  ".join(f"{name} {value:.4g}" for name, value in fit.headline.items()))
    for path in fit.files:
        console.say(f"wrote        {path}")
