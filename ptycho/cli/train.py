"""Train a network on the diffraction data of one or more scans, and save the model.

Several SCANs train one network together, each with its own probe and scale; --test gives a scan that is not
trained on.

Precedence: a typed flag, then the YAML file of --config, then --preset, then the default. Without --config
and --preset the defaults are those that train well: 60 epochs, WarmupCosine from 2e-3, gradient norm 1.
N is read from the scan unless given. OUT gets wts.h5.zip (the model), config.yaml (the settings, all of
them), history.json, training.log, coverage.npz, figures and checkpoints/. --resume OUT continues an
interrupted run: it takes its settings from OUT/config.yaml and refuses a flag that contradicts them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser, add_fields, fields_given
from ptycho.cli.processes import rank, run_together
from ptycho.cli.recording import begin_record, open_output, recorded
from ptycho.cli.retired import add_retired_flags
from ptycho.cli.runs import (
    ALIASES,
    add_config_flag,
    add_overwrite,
    quiet_tensorflow,
    settings_of,
)
from ptycho.cli.scan_checks import add_mask_flag, add_orientation_flag, mask_of, read_checked_scan
from ptycho.cli.skipping import Skipping, add_skip_flags
from ptycho.config.defaults import TRAINS_WELL
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import DataError, InputError

if TYPE_CHECKING:
    from ptycho.scan.findings import Finding
    from ptycho.scan.raw_data import RawData

USAGE = "%(prog)s SCAN [SCAN ...] [--test SCAN] -o OUT [flags]\n       %(prog)s --resume OUT [--nepochs MORE]"
HELP = "train a network on a scan"

_CLASSES = (TrainingConfig, ModelConfig, PyTorchExecutionConfig)
_ALIASES = {**ALIASES, "test_data_file": ("--test",), "start_from": ("--from",)}


def add_arguments(parser: Parser) -> None:
    """`SCAN`s, `--config`, and a flag for every field of the three configurations."""
    parser.add_argument("scan", nargs="*", default=[], type=Path, metavar="SCAN", help="scans to train on")
    add_config_flag(parser)
    parser.add_argument("--preset", metavar="NAME", help="start from a preset; --config and flags win")
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="output folder (or checkpoint) of the run to continue"
    )
    add_mask_flag(parser)
    add_orientation_flag(parser)
    add_skip_flags(parser)
    add_fields(parser, *_CLASSES, aliases=_ALIASES, skip=frozenset({"debug"}), defaults=TRAINS_WELL)
    add_overwrite(parser)
    add_retired_flags(parser, *_CLASSES)


def configure(
    arguments: argparse.Namespace, console: Console
) -> tuple[TrainingConfig, PyTorchExecutionConfig, bool, Path | None]:
    """The run of the flags and the YAML file, whether they fix N, and the checkpoint that it continues from.

    Raises ConfigError.
    """
    from ptycho.config.yaml_io import training_config_from

    resume: Path | None = getattr(arguments, "resume", None)
    overrides = fields_given(arguments, *_CLASSES)
    if arguments.scan:
        for name in ("train_data_file", "more_train_data_files"):
            if name in overrides:
                raise InputError(f"the scan is given twice: as SCAN and as --{name}; keep one")
        first, *others = arguments.scan
        overrides["train_data_file"] = first
        overrides["more_train_data_files"] = [str(path) for path in others] or None
    values, overrides, source = settings_of(arguments, overrides, console)
    if resume is not None and resume.is_dir():
        return _continued(resume, arguments, overrides, console)
    if "preset" in arguments:
        from ptycho.experiments.presets import beneath, preset_values

        values = beneath(preset_values(arguments.preset), values)
    elif "config" not in arguments:
        values = _defaults(resume)
    config, execution = training_config_from(values, overrides, source=source)
    section = values.get("model")
    fixed = "N" in overrides or "N" in values or (isinstance(section, dict) and "N" in section)
    if resume is not None and not resume.is_file():
        raise InputError(
            f"--resume {resume}: no such file or folder; give the output folder of the run, or a checkpoint "
            "of it (PyTorch: a .ckpt, TensorFlow: a .safetensors)"
        )
    return config, execution, fixed, resume


def _defaults(checkpoint: Path | None) -> dict[str, Any]:
    """The values used without a flag: good training defaults, or those of the run of a checkpoint."""
    from ptycho.config.yaml_io import load_yaml_config

    values = dict(TRAINS_WELL)
    kept = None if checkpoint is None else checkpoint.parent.parent / "config.yaml"
    if kept is not None and kept.is_file():
        known = load_yaml_config(kept)
        known = {**(known.get("execution") or {}), **{k: v for k, v in known.items() if k != "execution"}}
        values |= {name: known[name] for name in TRAINS_WELL if name in known}
    rate = values.pop("learning_rate")
    return {**values, "execution": {"learning_rate": rate}}


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
    from ptycho.models.shipped import with_shipped_model
    from ptycho.models.values import check_network_fits
    from ptycho.run.state import kept_settings, training_inputs
    from ptycho.run.validation import validate_training_config

    config, execution, n_is_fixed, resume = configure(arguments, console)
    if config.train_data_file is None:
        raise InputError("no scan to train on; give SCAN or --train_data_file")
    validate_training_config(config)
    from ptycho.ops.team import processes

    started = processes()
    if started > 1 and execution.devices not in (1, started):
        raise InputError(f"--devices {execution.devices}: torchrun started {started} processes; leave it out")
    execution.devices = max(execution.devices, started)
    if config.backend == "pytorch":
        if resume is not None:
            from ptycho_torch.fit.within_epoch import check_processes

            check_processes(resume, execution.devices)
        code = run_together(console.words, execution.devices, console)
        if code is not None:
            return code
    skipping = Skipping.of(arguments, None if resume is None else resume.parent.parent)
    place: dict[str, Any] = {
        "patterns": execution.patterns,
        "output_dir": config.output_dir,
        "bad_pixels": mask_of(arguments),
        "orientation": vars(arguments).get("orientation"),
        "skipping": skipping,
    }
    scans, findings = _read_scans(config, n_is_fixed, place, console)
    config.model.N = scans[0].N
    config = with_shipped_model(config)
    check_network_fits(config.model)
    test = None
    if config.test_data_file is not None:
        test, found = read_checked_scan(
            config.test_data_file, config.model.N, console, why=" in the training scan", **place
        )
        findings += found
    _check_config_kept(arguments, config.output_dir)
    mask = mask_of(arguments)
    read = (*config.train_data_files, config.test_data_file, vars(arguments).get("config"), mask)
    output = open_output(
        console, arguments, config.output_dir, "train", inputs=read, resumes=resume is not None
    )
    if not rank():
        dump_yaml(config, execution, output / "config.yaml")
    inputs = {
        **training_inputs(config),
        "test": config.test_data_file,
        "resume": resume,
        "bad_pixels": mask,
    }
    seeds = {"seed": config.seed, "subsample_seed": config.subsample_seed}
    device = execution.accelerator
    kept = kept_settings(config, execution)
    begin_record(
        console, arguments, inputs=inputs, seeds=seeds, device=device, findings=findings, settings=kept,
        skipped=skipping.records,
    )  # fmt: skip

    if config.backend == "tensorflow":
        quiet_tensorflow()
    from ptycho.report.outputs import save_run
    from ptycho.workflows import run as workflow
    from ptycho.workflows.infer import Placing

    if execution.devices > 1:
        console.say(_step(config.batch_size, execution))
    with console.phases("reading the scan") as phase:
        made = workflow.run(
            scans if len(scans) > 1 else scans[0],
            test,
            config,
            execution,
            stitch=Placing(M=20) if test is not None else None,
            resume=resume,
            progress=phase("training"),
            probe_progress=phase("improving the probe"),
        )
    if rank():
        return 0
    trained = made.trained
    save_run(made.image, trained.history, output, backend=config.backend, scale=trained.model.intensity_scale)
    if trained.recorder is not None:
        trained.recorder.add_outputs()
    _report(trained.history, output / BUNDLE_NAME, console)
    return 0


def _step(batch_size: int, execution: PyTorchExecutionConfig) -> str:
    """What one step of several processes takes together."""
    batches = max(execution.accum_steps, execution.devices)
    return (
        f"processes  {execution.devices}; a step takes {batches} batches of {batch_size} together, "
        f"{batches * batch_size} groups"
    )


def _check_config_kept(arguments: argparse.Namespace, output: Path) -> None:
    """Refuse to overwrite a hand-written configuration file that this run reads."""
    from ptycho.config.yaml_io import written_here
    from ptycho.io.targets import check_not_read

    given: Path | None = vars(arguments).get("config")
    if given is not None and not written_here(given):
        check_not_read(output / "config.yaml", (given,))


def _read_scans(
    config: TrainingConfig, n_is_fixed: bool, place: dict[str, Any], console: Console
) -> tuple[list[RawData], list[Finding]]:
    """Every scan to train on, of one pattern size, with labels if needed; and the findings about them."""
    assert config.train_data_file is not None
    side = config.model.N if n_is_fixed else None
    first, findings = read_checked_scan(config.train_data_file, side, console, **place)
    scans = [first]
    for path in config.train_data_files[1:]:
        why = f" in {config.train_data_file}"
        scan, found = read_checked_scan(path, first.N, console, why=why, **place)
        scans.append(scan)
        findings += found
    for path, scan in zip(config.train_data_files, scans, strict=True):
        if config.model.model_type == "supervised" and scan.objectGuess is None and scan.Y is None:
            raise DataError(
                f"{path}: model_type 'supervised' learns from objectGuess, which is not there; "
                "add it or use model_type 'pinn'"
            )
    return scans, findings


def _report(history: dict[str, list[float]], bundle: Path, console: Console) -> None:
    for name in ("train_loss", "val_loss"):
        if values := history.get(name):
            console.say(f"{name:<10} {float(values[-1]):.6g} after {len(values)} epochs")
    console.say(f"model      {bundle}")
    console.say(f"next       ptycho infer SCAN --model {bundle.parent} -o OUT")
