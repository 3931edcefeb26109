"""Show the installed packages and devices; with BUNDLE, show the properties of a model."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser

HELP = "what is installed, or what a model is"

_PACKAGES = ("torch", "lightning", "numpy", "scipy", "scikit-image", "safetensors")
# Package: the feature that needs it, and the command that installs it.
_EXTRAS = {"tensorflow": "tf", "mlflow": "mlflow", "onnxruntime": "onnx"}


def add_arguments(parser: Parser) -> None:
    """`BUNDLE`, optional."""
    parser.add_argument(
        "--formats", action="store_true", default=False, help="list the formats that `ptycho import` reads"
    )
    parser.add_argument(
        "bundle", nargs="?", default=None, type=Path, metavar="BUNDLE", help="wts.h5.zip or its folder"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print a table."""
    if arguments.formats:
        for line in _format_lines():
            console.say(line)
        return 0
    rows = _machine_rows() if arguments.bundle is None else _bundle_rows(arguments.bundle)
    for name, value in rows:
        console.say(f"{name:<26}{value}")
    return 0


def _format_lines() -> Iterator[str]:
    from ptycho.io.formats.registry import formats

    for one in formats().values():
        yield f"{one.name:<12}{one.title}: {one.holds} ({one.library})"


def _machine_rows() -> Iterator[tuple[str, Any]]:
    from ptycho import __version__

    yield "ptychopinn", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for package in _PACKAGES:
        yield package, _version(package) or "missing"
    for package, extra in _EXTRAS.items():
        absent = f"not installed: pip install 'ptychopinn[{extra}]'"
        yield package, (_version(package) or "present") if util.find_spec(package) else absent
    import torch

    yield "cores", f"{os.cpu_count()}, torch uses {torch.get_num_threads()} threads"
    yield "devices", ", ".join(_devices(torch))


def _devices(torch: Any) -> list[str]:
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _bundle_rows(path: Path) -> Iterator[tuple[str, Any]]:
    from ptycho.models.bundle import load_bundle

    bundle = load_bundle(path)
    yield "bundle", bundle.path
    yield "format", bundle.format_version
    yield "backend", bundle.backend
    yield "versions", ", ".join(f"{name} {version}" for name, version in sorted(bundle.versions.items()))
    yield "models", ", ".join(bundle.models)
    weights = sum(array.size for array in bundle.weights.values())
    yield "weights", f"{weights:,} in {len(bundle.weights)} arrays"
    for name, value in sorted(bundle.state.items()):
        yield name, value
    model = bundle.config.get("model")
    for name, value in sorted(model.items() if isinstance(model, dict) else ()):
        if name not in bundle.state:
            yield name, value
