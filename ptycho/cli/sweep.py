"""Compose runs from groups and overrides, run each from scan to judgement, and summarise the sweep.

An override is KEY=VALUE: nepochs=20, model.gridsize=2, execution.learning_rate=1e-3, scenario.photons=1e4, or
the option of a group, as in preset=quick. With --multirun a value may be a list (seed=0,1,2) or range(0,5).
Without train_data_file=FILE the scan is simulated. output_dir=OUT gets config.yaml, the model, image/ and
metrics.json of a run; for a sweep a folder for each run, runs.csv, sweep.csv, sweep.md and sweep.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.learned import run_tool
from ptycho.cli.parser import Parser, build_parser
from ptycho.cli.recording import on_record
from ptycho.cli.runs import add_overwrite, folder_name, prepare_folder, read_scan, write_json
from ptycho.errors import ConfigError, PtychoError, RunError

if TYPE_CHECKING:
    from ptycho.experiments.compose import Setting
    from ptycho.experiments.session import Point
    from ptycho.report.sweep import RunRecord
    from ptycho.simulation.scenario import Scenario

USAGE = "%(prog)s [KEY=VALUE ...] [--multirun] [flags]"
HELP = "compose, run and compare runs"
_IMAGE = "image"


def add_arguments(parser: Parser) -> None:
    """Overrides, `--multirun`, `--config_dir`, `--dry_run`; the groups stand below the flags."""
    from ptycho.experiments.presets import CONF, options

    parser.expand = flags_first
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="what differs from the default"
    )
    add = parser.add_argument
    add("-m", "--multirun", action="store_true", default=False, help="run every combination of listed values")
    add("--config_dir", type=Path, metavar="DIR", help="folder of your own groups, laid out as the package's")
    add(
        "--dry_run",
        action="store_true",
        default=False,
        help="check everything and list the runs, run nothing",
    )
    add_overwrite(parser)
    folders = sorted(path.name for path in CONF.iterdir() if path.is_dir() and options(path.name))
    tools = sorted(path.parent.name for path in (CONF / "learned").glob("*/config.yaml"))
    lines = [f"  {name:<11}{', '.join(options(name))}" for name in folders]
    if tools:
        lines.append(f"learned tools, with settings of their own: {', '.join(f'model={n}' for n in tools)}")
    parser.epilog = "\n".join(["groups and their options:", *lines])


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Compose and check every run, then run them one after another."""
    from ptycho.experiments.compose import points, settings_of
    from ptycho.experiments.learned import tool_of
    from ptycho.run.folder import OutputFolder, check_folder

    if any(word.replace(" ", "") == "output_dir=" for word in arguments.overrides):
        raise ConfigError("output_dir= names no folder; give output_dir=OUT")
    tool = tool_of(arguments.overrides)
    if tool is not None:
        return run_tool(tool, arguments, console)
    own = getattr(arguments, "config_dir", None)
    found = points(arguments.overrides, multirun=arguments.multirun, own=own)
    if any("output_dir" in point.swept for point in found):
        raise ConfigError("output_dir cannot be swept: each run of a sweep gets a folder in it")
    settings = [settings_of(point.overrides, own=own) for point in found]
    root = settings[0].config.output_dir
    for index, (point, setting) in enumerate(zip(found, settings, strict=True)):
        if arguments.multirun:
            setting.config.output_dir = root / folder_name(index, len(found), point.swept)
    _check(settings)
    if arguments.dry_run:
        for point, setting in zip(found, settings, strict=True):
            console.say(f"{setting.config.output_dir}  {' '.join(point.overrides)}".rstrip())
        return 0
    if not arguments.multirun:
        check_folder(root, "train", inputs=_files(settings), overwrite=arguments.overwrite)
        prepare_folder(root)
        console.output = root
        _run_one(settings[0], root, console, overwrite=arguments.overwrite)
        return 0
    held = OutputFolder(root, "experiment", inputs=_files(settings), overwrite=arguments.overwrite)
    console.output = root
    try:
        _sweep(found, settings, root, arguments, console)
    finally:
        held.close()
    return 0


def _sweep(
    found: Sequence[Point],
    settings: Sequence[Setting],
    root: Path,
    arguments: argparse.Namespace,
    console: Console,
) -> None:
    """Every run of a sweep, and its record."""
    own = getattr(arguments, "config_dir", None)
    command = [*console.prog.split(), *arguments.overrides, "--multirun"]
    if own:
        command += ["--config_dir", str(own)]
    inputs = {f"train{i or ''}": path for i, path in enumerate(sorted(_files(settings)))}
    with on_record(root, kind="experiment", command=command, inputs=inputs, seeds={}):
        _run_all(found, settings, root, console, overwrite=arguments.overwrite)


def _files(settings: Sequence[Setting]) -> set[Path]:
    return {s.config.train_data_file for s in settings if s.config.train_data_file is not None}


def _check(settings: Sequence[Setting]) -> None:
    """Check every run, its scan among it, before the first one starts; N is set from the scan."""
    from ptycho.run.validation import validate_training_config

    sides: dict[Path, int] = {}
    for setting in settings:
        config, path = setting.config, setting.config.train_data_file
        if path is not None:
            validate_training_config(config)
            for file in (*config.train_data_files, config.test_data_file):
                if file is not None and file not in sides:
                    sides[file] = read_scan(file, None).N
                if file is not None and sides[file] != sides[path]:
                    raise ConfigError(
                        f"{file}: patterns are {sides[file]} x {sides[file]} but {sides[path]} x "
                        f"{sides[path]} in {path}; crop them to one size"
                    )
            side, what = sides[path], str(path)
        else:
            validate_training_config(config, require_files=False)
            assert setting.scenario is not None
            side, what = setting.scenario.N, "scenario"
        if setting.n_is_fixed and side != config.model.N:
            raise ConfigError(
                f"{what}: patterns are {side} x {side} but N is {config.model.N}; drop model.N, it is read "
                "from the scan (scenario.N makes another scan)"
            )
        config.model.N = side


def _run_all(
    found: Sequence[Point], settings: Sequence[Setting], root: Path, console: Console, *, overwrite: bool
) -> None:
    """Run a sweep; a run that fails is recorded and the others go on. Tables are kept up to date."""
    from ptycho.report.sweep import METRICS, RunRecord, markdown, summarise, sweep_figure, write_tables

    silent = Console(console.prog, quiet=True, debug=console.debug)
    silent.stop = console.stop
    records: list[RunRecord] = []
    for point, setting in zip(found, settings, strict=True):
        folder = setting.config.output_dir
        console.output = folder  # so that the line after an interruption names the run that can be resumed
        try:
            metrics = _run_one(setting, root, silent, overwrite=overwrite)
            records.append(RunRecord(folder.name, point.swept, metrics))
        except Exception as error:
            if console.debug:
                traceback.print_exc()
            what = str(error) if isinstance(error, PtychoError) else f"{type(error).__name__}: {error}"
            records.append(RunRecord(folder.name, point.swept, {}, "failed", what))
        console.say(_line(len(records), len(found), records[-1]))
        write_tables(root, records)
        sweep_figure(root / "sweep.png", records)
    console.output = root
    rows = summarise(records)
    shown = [name for name in METRICS if any(name in row.mean for row in rows)]
    console.say()
    console.say(markdown(rows, list(rows[0].knobs), shown).rstrip())
    console.say(f"table        {root / 'sweep.md'}")
    failed = sum(record.state == "failed" for record in records)
    if failed:
        first = next(record for record in records if record.state == "failed")
        raise RunError(
            f"{failed} of {len(records)} runs failed, see {root / 'runs.csv'}; first: {first.error}"
        )


def _line(number: int, count: int, record: RunRecord) -> str:
    from ptycho.report.sweep import METRICS

    known = [(METRICS[name], record.metrics.get(name)) for name in ("nrmse", "r_factor", "train_s")]
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in known if isinstance(value, (int, float)))
    return (
        f"{number}/{count}  {record.run}: {numbers if record.state == 'done' else f'failed: {record.error}'}"
    )


def _run_one(setting: Setting, root: Path, console: Console, *, overwrite: bool) -> dict[str, Any]:
    """One run from scan to judgement in its own folder; returns what its metrics.json holds.

    Training and inference are the commands `ptycho train` and `ptycho infer` on the run's own config.yaml, so
    a run writes the same files, provenance.json among them.
    """
    from ptycho.cli import infer, train
    from ptycho.config.yaml_io import dump_yaml

    config, execution = setting.config, setting.execution
    folder = prepare_folder(config.output_dir)
    if config.train_data_file is None:
        assert setting.scenario is not None
        config.train_data_file = _simulated(setting.scenario, root, console)
    dump_yaml(config, execution, folder / "config.yaml")
    begin = time.perf_counter()
    more = ["--overwrite"] if overwrite else []
    _command(train, ["--config", str(folder / "config.yaml"), *more], console)
    trained = time.perf_counter()
    image = folder / _IMAGE
    words = ["--model", folder, "--data", config.test_data_file or config.train_data_file, "-o", image]
    words += ["--backend", config.backend, "--neighbor_count", config.neighbor_count]
    words += ["--accelerator", execution.accelerator, *more]
    if execution.inference_batch_size is not None:
        words += ["--inference_batch_size", execution.inference_batch_size]
    _command(infer, [str(word) for word in words], console)
    metrics = _read(image / "metrics.json") | _last_losses(folder / "history.json")
    metrics |= {"train_s": trained - begin, "infer_s": time.perf_counter() - trained}
    write_json(folder / "metrics.json", metrics)
    _draw(folder, console)
    return metrics


def _draw(folder: Path, console: Console) -> None:
    """Draw the page of the whole run; the page written by training has no image yet."""
    from ptycho.cli.recording import REPORT
    from ptycho.report.html import write_report

    try:
        write_report(folder / REPORT, [folder])
    except Exception as error:  # the run is complete; `ptycho report` can draw the page later
        console.warn(f"{REPORT} was not written: {error}; try ptycho report {folder}")


def _command(command: Any, words: list[str], console: Console) -> None:
    command.run(build_parser(command, console.prog).read(words), console)


def _simulated(scenario: Scenario, root: Path, console: Console) -> Path:
    """The scan of a scenario, simulated once for all runs of a sweep; its name identifies the scenario."""
    from ptycho import __version__
    from ptycho.simulation.scenario import simulate

    text = json.dumps([__version__, dataclasses.asdict(scenario)], sort_keys=True)
    path = root / f"scan_{hashlib.sha256(text.encode()).hexdigest()[:8]}.npz"
    if not path.exists():
        with console.progress("simulating") as progress:
            simulate(scenario, progress).to_npz(path)
    return path


def _read(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8"))
    return values if isinstance(values, dict) else {}


def _last_losses(path: Path) -> dict[str, float]:
    history = _read(path)
    return {name: history[name][-1] for name in ("train_loss", "val_loss") if history.get(name)}


def flags_first(parser: Parser, words: list[str]) -> list[str]:
    """The command line with all flags moved before the overrides."""
    values = {at + 1 for at, word in enumerate(words) if word == "--config_dir"}
    is_override = [not word.startswith("-") and at not in values for at, word in enumerate(words)]
    flags = [word for word, override in zip(words, is_override, strict=True) if not override]
    return flags + [word for word, override in zip(words, is_override, strict=True) if override]
