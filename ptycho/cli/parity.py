"""Compare the two backends on a scan, from the grouping to the stitched image; exit code 1 if they differ.

Without FILE a small scan is simulated. OUT gets parity.json (every quantity), parity_summary.md, parity.png.
Weights are compared after 1, 10 and 100 optimiser steps at --learning_rate, here 2e-5 by default: at larger
rates training is chaotic, and the last digit of the first step grows tenfold every few steps in any library.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser, add_fields, fields_given
from ptycho.cli.runs import ALIASES, add_config_flag, prepare_folder, quiet_tensorflow, read_scan, settings_of
from ptycho.cli.scan_checks import add_mask_flag, mask_of
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig

USAGE = "%(prog)s [FILE] [-o OUT] [flags]"
HELP = "compare the two backends"

_CLASSES = (TrainingConfig, ModelConfig, PyTorchExecutionConfig)
#: training is chaotic: at 1e-3 a difference in the last digit grows a millionfold in a hundred steps
LEARNING_RATE = 2e-5


def add_arguments(parser: Parser) -> None:
    """`FILE`, `--precision`, `--config`, and a flag for every field of a training."""
    add = parser.add_argument
    add("scan", nargs="?", default=None, type=Path, metavar="FILE", help="scan to compare on")
    add("--precisions", choices=("float32", "float64", "both"), default="both", help="number formats")
    add("--steps", type=int, default=100, metavar="INT", help="optimiser steps (default 100)")
    add_mask_flag(parser)
    add_config_flag(parser)
    add_fields(parser, *_CLASSES, aliases=ALIASES, skip=frozenset({"debug"}))


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Compare, print the largest error of each section, write the files."""
    from ptycho.config.yaml_io import training_config_from
    from ptycho.errors import InputError
    from ptycho.run.validation import validate_training_config

    if arguments.steps < 1:
        raise InputError(f"--steps {arguments.steps}: must be at least 1")
    overrides = {"learning_rate": LEARNING_RATE, "output_dir": Path("parity_out")}
    overrides |= fields_given(arguments, *_CLASSES)
    values, overrides, source = settings_of(arguments, overrides, console)
    config, execution = training_config_from(values, overrides, source=source)
    mask = mask_of(arguments)
    if mask is not None and arguments.scan is None:
        raise InputError(f"--bad_pixels {mask}: a mask needs the scan it belongs to; give FILE")
    if arguments.scan is None:
        from ptycho.simulation import Scenario, simulate

        raw = simulate(Scenario(N=config.model.N, n_positions=64, seed=config.seed)).raw
    else:
        side = config.model.N if "N" in overrides else None
        raw = read_scan(arguments.scan, side, bad_pixels=mask)
        config.model.N = raw.N
    config.neighbor_count = max(config.neighbor_count, config.model.gridsize**2 - 1)
    validate_training_config(config, require_files=False)
    from ptycho.run.folder import check_folder

    check_folder(config.output_dir, "parity")
    output = prepare_folder(config.output_dir)
    console.output = output
    quiet_tensorflow()

    from ptycho.workflows.parity import report
    from ptycho.workflows.parity.run import PRECISIONS, run_parity

    chosen = PRECISIONS if arguments.precisions == "both" else (arguments.precisions,)
    marks = tuple(sorted({step for step in (1, 10, 100) if step <= arguments.steps} | {arguments.steps}))
    with console.progress("comparing") as progress:
        found = run_parity(raw, config, execution, precisions=chosen, steps=marks, progress=progress)
    written = report.write(found, output)
    for line in report.lines(found):
        console.say(line)
    console.say(("equal within every tolerance: " if found.passed else "NOT equal: ") + str(written[1]))
    return 0 if found.passed else 1
