"""Reconstruct a scan with a trained model: every pattern at its own place, stitched.

OUT gets reconstruction.npz (object, coverage, origin_xy, probe), PNGs and metrics.json. R, the misfit of the
stitched object re-diffracted at every position, is always printed; a scan that holds the truth is judged too.
"""

from __future__ import annotations

import argparse
from typing import Any

from ptycho.cli.console import Console
from ptycho.cli.judging import report_product
from ptycho.cli.parser import Parser, add_fields, fields_given
from ptycho.cli.runs import (
    ALIASES,
    add_config_flag,
    add_retired_flags,
    prepare_folder,
    read_scan,
    settings_of,
)
from ptycho.config.config import InferenceConfig, PyTorchExecutionConfig
from ptycho.errors import InputError

USAGE = "%(prog)s --model RUN --data FILE -o OUT [flags]"
HELP = "reconstruct a scan with a trained model"

_CLASSES = (InferenceConfig, PyTorchExecutionConfig)
_ALIASES = {**ALIASES, "model_path": ("--model",), "test_data_file": ("--data",)}
PRODUCT = "reconstruction.npz"


def add_arguments(parser: Parser) -> None:
    """`--model`, `--data`, `--config`, and a flag for every field of the two configurations."""
    add_config_flag(parser)
    add_fields(parser, *_CLASSES, aliases=_ALIASES, skip=frozenset({"debug"}))
    add_retired_flags(parser)


def configure(
    arguments: argparse.Namespace, console: Console
) -> tuple[InferenceConfig, PyTorchExecutionConfig]:
    """The reconstruction that flags and YAML ask for; raises ConfigError."""
    from ptycho.config.yaml_io import inference_config_from

    values, overrides, source = settings_of(arguments, fields_given(arguments, *_CLASSES), console)
    return inference_config_from(values, overrides, source=source)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Check model and scan against each other, reconstruct, and write the products."""
    from ptycho.bundle import load_bundle
    from ptycho.config.validation import validate_inference_config

    config, execution = configure(arguments, console)
    if config.model_path is None:
        raise InputError("no model; give --model, the output folder of ptycho train")
    if config.test_data_file is None:
        raise InputError("no scan to reconstruct; give --data FILE")
    # Before the paths are looked at: the bundle's own errors say more than "no such file".
    bundle = load_bundle(config.model_path)
    validate_inference_config(config)
    raw = read_scan(config.test_data_file, _side_of(bundle.state), why=" in the model")
    output = prepare_folder(config.output_dir)
    console.output = output

    from ptycho.workflows.backend_selector import infer_scan_with_backend
    from ptycho.report.outputs import save_outputs

    with console.progress("reconstructing") as progress:
        amplitude, phase, results = infer_scan_with_backend(
            config.model_path,
            raw,
            backend=config.backend,
            config=config,
            execution_config=execution,
            progress=progress,
        )
    save_outputs(amplitude, phase, results, str(output))
    known = ("r_factor", "groups_per_s")
    metrics: dict[str, Any] = {name: float(results[name]) for name in known if name in results}
    report_product(output / PRODUCT, config.test_data_file, metrics, console)
    return 0


def _side_of(state: dict[str, Any]) -> int | None:
    side = state.get("N")
    return int(side) if isinstance(side, (int, float)) else None

