"""Train a network on one scan or several, from their diffraction alone, and keep the model.

Several FILEs train one network together, each with a probe and a scale of its own; --test holds one out.

Precedence: a typed flag, then the YAML file of --config, then --preset, then the default. N is read from the
scan unless given. OUT gets wts.h5.zip (the model), config.yaml (the settings, all of them), history.json,
training.log, coverage.npz, figures and checkpoints/. --resume OUT goes on with a run that was broken off: it
takes its settings from OUT/config.yaml, and a flag that contradicts them is refused.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser, add_fields, fields_given
from ptycho.cli.recording import begin_record, recorded
from ptycho.cli.retired import add_retired_flags
from ptycho.cli.runs import (
    ALIASES,
    add_config_flag,
    prepare_folder,
    quiet_tensorflow,
    read_scan,
    settings_of,
)
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import DataError, InputError

if TYPE_CHECKING:
    from ptycho.scan.raw_data import RawData

USAGE = "%(prog)s FILE [FILE ...] [--test FILE] -o OUT [flags]\n       %(prog)s --resume OUT [--nepochs MORE]"
HELP = "train a network on a scan"

_CLASSES = (TrainingConfig, ModelConfig, PyTorchExecutionConfig)
_ALIASES = {**ALIASES, "test_data_file": ("--test",)}


def add_arguments(parser: Parser) -> None:
    """`FILE`s, `--config`, and a flag for every field of the three configurations."""
    parser.add_argument("scan", nargs="*", default=[], type=Path, metavar="FILE", help="scans to train on")
    add_config_flag(parser)
    parser.add_argument("--preset", metavar="NAME", help="start from a preset; --config and flags win")
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="output folder (or checkpoint) of the run to continue"
    )
    add_fields(parser, *_CLASSES, aliases=_ALIASES, skip=frozenset({"debug"}))
    add_retired_flags(parser, *_CLASSES)


def configure(
    arguments: argparse.Namespace, console: Console
) -> tuple[TrainingConfig, PyTorchExecutionConfig, bool, Path | None]:
    """The run that flags and YAML ask for, whether they fix N, and the checkpoint it goes on from.

    Raises ConfigError.
    """
    from ptycho.config.yaml_io import training_config_from

    resume: Path | None = getattr(arguments, "resume", None)
    overrides = fields_given(arguments, *_CLASSES)
    if arguments.scan:
        for name in ("train_data_file", "more_train_data_files"):
            if name in overrides:
                raise InputError(f"the scan is given twice: as FILE and as --{name}; keep one")
        first, *others = arguments.scan
        overrides["train_data_file"] = first
        overrides["more_train_data_files"] = [str(path) for path in others] or None
    values, overrides, source = settings_of(arguments, overrides, console)
    if resume is not None and resume.is_dir():
        return _continued(resume, arguments, overrides, console)
    if "preset" in arguments:
        from ptycho.experiments.presets import beneath, preset_values

        values = beneath(preset_values(arguments.preset), values)
    config, execution = training_config_from(values, overrides, source=source)
    section = values.get("model")
    fixed = "N" in overrides or "N" in values or (isinstance(section, dict) and "N" in section)
    if resume is not None and not resume.is_file():
        raise InputError(
            f"--resume {resume}: no such file or folder; give the output folder of the run, or a checkpoint "
            "of it (PyTorch: a .ckpt, TensorFlow: a .safetensors)"
        )
    return config, execution, fixed, resume


def _continued(
    folder: Path, arguments: argparse.Namespace, overrides: dict[str, Any], console: Console
) -> tuple[TrainingConfig, PyTorchExecutionConfig, bool, Path | None]:
    from ptycho.run.state import continued

    for name in ("config", "preset"):
        if name in arguments:
            raise InputError(f"--{name}: --resume {folder} takes its own config.yaml; drop it")
    run = continued(folder, overrides)
    for note in run.notes:
        console.warn(note)
    return run.config, run.execution, True, run.checkpoint


@recorded
def run(arguments: argparse.Namespace, console: Console) -> int:
    """Check everything, train, and write the products."""
    from ptycho.config.yaml_io import dump_yaml
    from ptycho.models.bundle import BUNDLE_NAME
    from ptycho.run.state import begin_anew, training_inputs
    from ptycho.run.validation import validate_training_config

    config, execution, n_is_fixed, resume = configure(arguments, console)
    if config.train_data_file is None:
        raise InputError("no scan to train on; give FILE or --train_data_file")
    validate_training_config(config)
    place: dict[str, Any] = {"patterns": execution.patterns, "output_dir": config.output_dir}
    scans = _read_scans(config, n_is_fixed, place)
    config.model.N = scans[0].N
    test = None
    if config.test_data_file is not None:
        test = read_scan(config.test_data_file, config.model.N, why=" in the training scan", **place)
    output = prepare_folder(config.output_dir)
    if resume is None and os.environ.get("LOCAL_RANK", "0") == "0":
        begin_anew(output)
    dump_yaml(config, execution, output / "config.yaml")
    console.output = output
    inputs = {**training_inputs(config), "test": config.test_data_file, "resume": resume}
    seeds = {"seed": config.seed, "subsample_seed": config.subsample_seed}
    begin_record(console, arguments, inputs=inputs, seeds=seeds, device=execution.accelerator)

    if config.backend == "tensorflow":
        quiet_tensorflow()
    from ptycho.report.outputs import save_run
    from ptycho.workflows import run as workflow
    from ptycho.workflows.infer import Placing

    with console.progress("training") as progress:
        made = workflow.run(
            scans if len(scans) > 1 else scans[0],
            test,
            config,
            execution,
            stitch=Placing(M=20) if test is not None else None,
            resume=resume,
            progress=progress,
        )
    trained = made.trained
    save_run(made.image, trained.history, output, backend=config.backend, scale=trained.model.intensity_scale)
    if trained.recorder is not None:
        trained.recorder.add_outputs()
    _report(trained.history, output / BUNDLE_NAME, console)
    return 0


def _read_scans(config: TrainingConfig, n_is_fixed: bool, place: dict[str, Any]) -> list[RawData]:
    """Every scan to train on, of one pattern size, with labels where they are needed."""
    assert config.train_data_file is not None
    scans = [read_scan(config.train_data_file, config.model.N if n_is_fixed else None, **place)]
    for path in config.train_data_files[1:]:
        scans.append(read_scan(path, scans[0].N, why=f" in {config.train_data_file}", **place))
    for path, scan in zip(config.train_data_files, scans, strict=True):
        if config.model.model_type == "supervised" and scan.objectGuess is None and scan.Y is None:
            raise DataError(
                f"{path}: model_type 'supervised' learns from objectGuess, which is not there; "
                "add it or use model_type 'pinn'"
            )
    return scans


def _report(history: dict[str, list[float]], bundle: Path, console: Console) -> None:
    for name in ("train_loss", "val_loss"):
        if values := history.get(name):
            console.say(f"{name:<10} {float(values[-1]):.6g} after {len(values)} epochs")
    console.say(f"model      {bundle}")
    console.say(f"next       ptycho infer --model {bundle.parent} --data FILE -o OUT")
