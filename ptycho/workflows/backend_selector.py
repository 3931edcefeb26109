"""One door to both backends: the configuration says which library runs the network.

No backend is imported before one is chosen, and none is ever replaced silently by the other.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from ptycho.bundle import load_bundle
from ptycho.config.config import TrainingConfig
from ptycho.errors import ConfigError, MissingDependencyError

_PYTORCH = "ptycho_torch.workflows.components"


def _path_of(backend: str) -> ModuleType:
    """The workflow module of a backend; says what is missing and how to get it."""
    if backend == "pytorch":
        for package in ("torch", "lightning"):
            if find_spec(package) is None:
                raise MissingDependencyError(
                    f"backend 'pytorch' needs the package {package}: pip install ptychopinn"
                )
        return import_module(_PYTORCH)
    if backend == "tensorflow":
        if find_spec("tensorflow") is None:
            raise MissingDependencyError(
                "backend 'tensorflow' needs TensorFlow: pip install 'ptychopinn[tf]' "
                "- or use --backend pytorch"
            )
        raise ConfigError(
            "backend = 'tensorflow': the TensorFlow path is not part of this release - use --backend pytorch"
        )
    raise ConfigError(f"backend = {backend!r}: must be 'pytorch' or 'tensorflow'")


def run_cdi_example_with_backend(
    train_data: Any, test_data: Any, config: TrainingConfig, **options: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """`run_cdi_example` of the backend that `config.backend` names; `results['backend']` says which ran."""
    path = _path_of(config.backend)
    amplitude, phase, results = path.run_cdi_example_torch(train_data, test_data, config, **options)
    return amplitude, phase, {**results, "backend": config.backend}


def train_cdi_model_with_backend(
    train_data: Any, test_data: Any, config: TrainingConfig, **options: Any
) -> dict[str, Any]:
    """`train_cdi_model` of the backend that `config.backend` names."""
    path = _path_of(config.backend)
    results = path.train_cdi_model_torch(train_data, test_data, config, **options)
    return {**results, "backend": config.backend}


def load_inference_bundle_with_backend(
    directory: Path | str, backend: str | None = None
) -> tuple[Any, dict[str, Any]]:
    """(model, configuration) of a bundle, in the backend asked for or else in the one that wrote it."""
    chosen = backend or load_bundle(Path(directory)).backend
    model, config = _path_of(chosen).load_inference_bundle_torch(Path(directory))
    return model, {**config, "backend": chosen}


def infer_scan_with_backend(model: Any, raw: Any, *, backend: str = "pytorch", **options: Any) -> Any:
    """(amplitude, phase, results) of a scan under a trained model; see `infer_scan` of the backend."""
    amplitude, phase, results = _path_of(backend).infer_scan(model, raw, **options)
    return amplitude, phase, {**results, "backend": backend}
