"""Reconstruct a scan with a trained model or the built-in network, each pattern at its scan position.

OUT gets reconstruction.npz (object, coverage, origin_xy, probe), PNGs and metrics.json. R, the misfit of the
stitched object re-diffracted at every position, is always printed; a scan that holds the truth is judged too.
--product writes the image as a product that ptychodus opens, on the object of the scan's own product.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.judging import report_product
from ptycho.cli.parser import Parser, add_fields, fields_given
from ptycho.cli.processes import rank, run_together, the_team
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
from ptycho.cli.writing import (
    add_product_flag,
    add_write_flag,
    check_writes,
    kinds_of,
    product_target,
    write_from_npz,
)
from ptycho.config.fields import describe_fields
from ptycho.config.settings import InferenceConfig, PyTorchExecutionConfig
from ptycho.errors import InputError

if TYPE_CHECKING:
    from ptycho.models.onnx_model import OnnxModel
    from ptycho.run.reconstruction import Reconstruction
    from ptycho.scan.raw_data import RawData

USAGE = "%(prog)s SCAN [--model RUN] -o OUT [flags]"
HELP = "reconstruct a scan with a trained model"

_CLASSES = (InferenceConfig, PyTorchExecutionConfig)
_ALIASES = {**ALIASES, "model_path": ("--model",), "test_data_file": ("--data",)}
#: the execution settings that inference uses; the others apply to training only
_OF_THE_MACHINE = frozenset({"accelerator", "devices", "patterns", "inference_batch_size"})
_OF_TRAINING = frozenset(info.name for info in describe_fields(PyTorchExecutionConfig)) - _OF_THE_MACHINE
PRODUCT = "reconstruction.npz"


def add_arguments(parser: Parser) -> None:
    """`SCAN`, `--model`, `--config`, and a flag for every field that an inference has."""
    parser.add_argument(
        "scan", nargs="?", default=None, type=Path, metavar="SCAN", help="scan to reconstruct"
    )
    add_config_flag(parser)
    add_product_flag(parser)
    add_mask_flag(parser)
    add_orientation_flag(parser)
    add_skip_flags(parser)
    add_write_flag(parser)
    add_fields(parser, *_CLASSES, aliases=_ALIASES, skip=_OF_TRAINING | {"debug"})
    add_overwrite(parser)
    add_retired_flags(parser, *_CLASSES, without=_OF_TRAINING)
    parser.elsewhere = {f"--{name}": "ptycho train" for name in _OF_TRAINING} | {"--logger": "ptycho train"}


def configure(
    arguments: argparse.Namespace, console: Console
) -> tuple[InferenceConfig, PyTorchExecutionConfig]:
    """The reconstruction that flags and YAML ask for; raises ConfigError."""
    from ptycho.config.yaml_io import inference_config_from

    overrides = fields_given(arguments, *_CLASSES)
    if arguments.scan is not None:
        if "test_data_file" in overrides:
            raise InputError("the scan is given twice: as SCAN and as --data; keep one")
        overrides["test_data_file"] = arguments.scan
    values, overrides, source = settings_of(arguments, overrides, console)
    return inference_config_from(values, overrides, source=source)


@recorded
def run(arguments: argparse.Namespace, console: Console) -> int:
    """Check model and scan against each other, reconstruct, and write the products."""
    from ptycho.models.bundle import load_bundle
    from ptycho.run.validation import validate_inference_config

    config, execution = configure(arguments, console)
    if (code := run_together(console.words, execution.devices, console)) is not None:
        return code
    if config.backend == "tensorflow":
        quiet_tensorflow()
    if config.test_data_file is None:
        raise InputError("no scan to reconstruct; give SCAN")
    # Before the paths are checked: the errors of the bundle say more than "no such file".
    model: Path | OnnxModel | None = config.model_path
    if config.model_path is None:
        state, backend = {}, config.backend or "pytorch"
        console.say("model        the network that ships (no --model was given): docs/model_card.md")
    elif config.model_path.suffix == ".onnx":
        from ptycho.models.onnx_model import open_onnx

        model = open_onnx(config.model_path, execution)
        state, backend = model.state, "onnxruntime"
    else:
        bundle = load_bundle(config.model_path)
        state, backend = bundle.state, config.backend or bundle.backend
    validate_inference_config(config)
    mask = mask_of(arguments)
    read = (config.test_data_file, _bundle_file(config.model_path), vars(arguments).get("config"), mask)
    product = product_target(arguments, config.output_dir / PRODUCT, read)
    skipping = Skipping.of(arguments)
    raw, findings = read_checked_scan(
        config.test_data_file,
        _side_of(state),
        console,
        why=" in the model",
        patterns=execution.patterns,
        output_dir=config.output_dir,
        bad_pixels=mask,
        orientation=vars(arguments).get("orientation"),
        skipping=skipping,
    )
    kinds = kinds_of(arguments.write)
    check_writes([*kinds, *(["product"] if product else [])], raw, config.test_data_file)
    output = open_output(console, arguments, config.output_dir, "infer", inputs=read)
    inputs = {"scan": config.test_data_file, "model": config.model_path, "bad_pixels": mask}
    seeds = {"subsample_seed": config.subsample_seed}
    device = execution.accelerator
    begin_record(
        console, arguments, inputs=inputs, seeds=seeds, device=device, findings=findings,
        skipped=skipping.records,
    )  # fmt: skip

    from ptycho.ops.team import ALONE
    from ptycho.report.outputs import metrics_of, save_reconstruction
    from ptycho.workflows.infer import infer

    with the_team() as team, console.progress("reconstructing") as progress:
        made = infer(model, raw, config, execution, backend=backend, progress=progress, team=team or ALONE)
    if rank():
        return 0
    save_reconstruction(made, output, backend=backend, object_pixel_size_m=made.object_pixel_size_m)
    metrics: dict[str, Any] = metrics_of(made)
    from ptycho.backends import is_installed

    if backend != "onnxruntime" and is_installed("pytorch"):
        metrics |= _looked_at(raw, made, config, console)
    if product is not None:
        _write_product(product, config, raw, made)
        console.say(f"ptychodus    {product}")
    write_from_npz(arguments.write, output / PRODUCT, raw, config.test_data_file, console.say, made.to_counts)
    # only an NPZ scan can hold the truth: the object in a product is the client's guess
    knows = config.test_data_file if config.test_data_file.suffix == ".npz" else output / PRODUCT
    report_product(output / PRODUCT, knows, metrics, console)
    return 0


def _looked_at(
    raw: RawData, made: Reconstruction, config: InferenceConfig, console: Console
) -> dict[str, float]:
    """Further checks if the image looks wrong; their hints are printed."""
    from ptycho.workflows.second_look import look_where_wrong

    seed = config.subsample_seed or 0
    r = None if made.agreement is None else made.agreement.whole
    seen = look_where_wrong(raw, r, made.probe * made.to_counts, seed=seed)
    for hint in seen.hints:
        console.warn(hint)
    return seen.metrics


def _bundle_file(path: Path | None) -> Path | None:
    from ptycho.models.bundle import BUNDLE_NAME

    if path is None:
        return None
    return path / BUNDLE_NAME if path.is_dir() else path


def _write_product(path: Path, config: InferenceConfig, raw: RawData, image: Reconstruction) -> None:
    """The image and the probe in photons on the object frame of the scan, and the losses of training."""
    from ptycho.io.ptychodus_product import write_product
    from ptycho.io.ptychodus_scan import product_of_image

    assert config.test_data_file is not None
    folder = config.model_path
    losses = []
    if folder is not None:
        losses = _losses((folder if folder.is_dir() else folder.parent) / "history.json")
    made = product_of_image(
        config.test_data_file,
        image.object,
        image.origin_xy,
        image.probe * image.to_counts,
        raw.positions_px,
        losses,
        geometry=raw.geometry,
        frame_numbers=raw.frame_numbers,
    )
    write_product(path, made)


def _losses(history: Path) -> list[float]:
    """The training losses for the product; none if the history cannot be read."""
    from ptycho.report.runs import numbers_in

    return numbers_in(history).get("train_loss", [])


def _side_of(state: dict[str, Any]) -> int | None:
    side = state.get("N")
    return int(side) if isinstance(side, (int, float)) else None
