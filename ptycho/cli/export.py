"""Write a trained model as one ONNX file, for programs and machines without this package.

It takes detector counts and returns amplitude and phase of the object patches; square root, normalisation,
bad pixels and probe are part of the model. ptycho infer --model FILE.onnx runs it with onnxruntime.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.cli.runs import add_overwrite

HELP = "write a model as ONNX"
_FORMATS = ("onnx",)


def add_arguments(parser: Parser) -> None:
    """`BUNDLE`, `-o`, `--format`, `--trained_scan`."""
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="wts.h5.zip, or the output folder of ptycho train")
    add("-o", "--output", type=Path, metavar="FILE", help="where to (default: model.onnx beside the bundle)")
    add("--trained_scan", type=int, metavar="INT", help="whose probe and scale lie inside (default: 0)")
    add_overwrite(parser)
    add("--format", choices=_FORMATS, help="file format (default: onnx)")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Export, and print the model's inputs and outputs."""
    from ptycho.models.onnx_export import OPSET, check_target, signature, write_onnx
    from ptycho.models.trained_state import load_trained_state
    from ptycho.networks.graphs import spec_from_config

    bundle: Path = arguments.bundle
    folder = bundle if bundle.is_dir() else bundle.parent
    target: Path = vars(arguments).get("output", folder / "model.onnx")
    check_target(target)
    from ptycho.io.targets import check_target as check_unread
    from ptycho.models.bundle import BUNDLE_NAME

    check_unread(target, inputs=(folder / BUNDLE_NAME if bundle.is_dir() else bundle,))
    state, _ = load_trained_state(bundle)
    scan: int = vars(arguments).get("trained_scan", 0)
    write_onnx(state.for_scan(scan), target, source=str(bundle))
    for name, shape in signature(spec_from_config(state.config.model)).items():
        console.say(f"{name:<13}float32 ({', '.join(map(str, shape))})")
    console.say(f"probe        inside: that of training scan {scan} of {len(state.scans)}, numbered from 0")
    console.say(f"opset        {OPSET}")
    console.say(f"product      {target}, {target.stat().st_size / 1e6:.1f} MB")
    return 0
