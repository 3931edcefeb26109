"""One door to both backends: the configuration says which library runs the network.

No backend is imported before one is chosen, and none is ever replaced silently by the other.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from ptycho.clients.model_names import OpenedBundle
from ptycho.config.settings import InferenceConfig, TrainingConfig
from ptycho.errors import ConfigError, MissingDependencyError
from ptycho.models.bundle import load_bundle

#: names of the twins: (tensorflow, pytorch)
_TWINS = {
    "run_cdi_example": "run_cdi_example_torch",
    "train_cdi_model": "train_cdi_model_torch",
    "load_inference_bundle": "load_inference_bundle_torch",
    "infer_scan": "infer_scan",
}


def _path_of(backend: str) -> ModuleType:
    """The workflow module of a backend; says what is missing and how to get it."""
    if backend == "pytorch":
        for package in ("torch", "lightning"):
            if find_spec(package) is None:
                raise MissingDependencyError(
                    f"backend 'pytorch' needs the package {package}: pip install ptychopinn"
                )
        return import_module("ptycho_torch.workflows.components")
    if backend == "tensorflow":
        from ptycho.workflows import components

        components.require_tensorflow()
        return components
    raise ConfigError(f"backend = {backend!r}: must be 'pytorch' or 'tensorflow'")


def _function(backend: str, name: str) -> Any:
    """One function of the workflow in a backend, by its TensorFlow name."""
    return getattr(_path_of(backend), _TWINS[name] if backend == "pytorch" else name)


def run_cdi_example_with_backend(
    train_data: Any, test_data: Any, config: TrainingConfig, *placement: Any, **options: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """`run_cdi_example` of the backend that `config.backend` names; `results['backend']` says which ran.

    `placement` are flip_x, flip_y, transpose, M and do_stitching, where they are not given by name.
    """
    run = _function(config.backend, "run_cdi_example")
    amplitude, phase, results = run(train_data, test_data, config, *placement, **_by_todays_name(options))
    return amplitude, phase, {**results, "backend": config.backend}


def train_cdi_model_with_backend(
    train_data: Any, test_data: Any, config: TrainingConfig, **options: Any
) -> dict[str, Any]:
    """`train_cdi_model` of the backend that `config.backend` names."""
    results = _function(config.backend, "train_cdi_model")(
        train_data, test_data, config, **_by_todays_name(options)
    )
    return {**results, "backend": config.backend}


def _by_todays_name(options: dict[str, Any]) -> dict[str, Any]:
    """The options with `torch_execution_config` of older programs as `execution_config`."""
    older = "torch_execution_config"
    return {"execution_config" if name == older else name: value for name, value in options.items()}


def load_inference_bundle_with_backend(
    directory: Path | str, backend: str | TrainingConfig | InferenceConfig | None = None
) -> tuple[Any, dict[str, Any]]:
    """(model, configuration) of a bundle, in the backend asked for or else in the one that wrote it.

    `backend` may be a configuration that names it, as older programs pass it.
    """
    asked = backend if backend is None or isinstance(backend, str) else backend.backend
    chosen = asked or load_bundle(Path(directory)).backend
    load = _function(chosen, "load_inference_bundle")
    options = {"backend": chosen} if chosen == "tensorflow" else {}
    model, config = load(Path(directory), **options)
    return OpenedBundle((model, {**config, "backend": chosen}))


def infer_scan_with_backend(
    model: Any, raw: Any, *, backend: str | None = None, **options: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """(amplitude, phase, results) of a scan under a trained model; see `infer_scan` of the backend.

    `model` is a bundle (path), opened by either backend, or a model in memory, which runs in its own: the
    backend need not be named then. Raises ConfigError where another one is.
    """
    if isinstance(model, (str, Path)):
        chosen, model = backend or load_bundle(Path(model)).backend, Path(model)
    else:
        own = getattr(model, "backend", "pytorch")
        if backend not in (None, own):
            raise ConfigError(
                f"backend = {backend!r}: this model is one of {own!r}; save it and give the bundle instead"
            )
        chosen = own
    amplitude, phase, results = _function(chosen, "infer_scan")(model, raw, **options)
    return amplitude, phase, {**results, "backend": chosen}
