"""One door to both backends for clients: the configuration says which library runs the network.

No backend is imported before one is chosen, and none is ever replaced silently by the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptycho.clients import workflow as client
from ptycho.clients.model_names import OpenedBundle
from ptycho.config.settings import InferenceConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.models.bundle import load_bundle


def run_cdi_example_with_backend(
    train_data: Any, test_data: Any, config: TrainingConfig, *placement: Any, **options: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """`run_cdi_example` of the backend that `config.backend` names; `results['backend']` says which ran.

    `placement` are flip_x, flip_y, transpose, M and do_stitching, where they are not given by name.
    """
    named = _by_todays_name(options)
    return client.run_cdi_example(config.backend, train_data, test_data, config, *placement, **named)


def train_cdi_model_with_backend(
    train_data: Any, test_data: Any, config: TrainingConfig, **options: Any
) -> dict[str, Any]:
    """`train_cdi_model` of the backend that `config.backend` names."""
    return client.train_cdi_model(config.backend, train_data, test_data, config, **_by_todays_name(options))


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
    model, config = client.load_inference_bundle(Path(directory), chosen)
    return OpenedBundle((model, {**config, "backend": chosen}))


def infer_scan_with_backend(
    model: Any, raw: Any, *, backend: str | None = None, **options: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """(amplitude, phase, results) of a scan under a trained model; see `infer_scan` of the backend.

    `model` is a bundle (path), opened by either backend, or a model in memory, which runs in its own: the
    backend need not be named then. Raises ConfigError where another one is.
    """
    if isinstance(model, (str, Path)):
        chosen = backend or load_bundle(Path(model)).backend
    else:
        chosen = model.backend
        if backend not in (None, chosen):
            raise ConfigError(
                f"backend = {backend!r}: this model is one of {chosen!r}; save it and give the bundle instead"
            )
    amplitude, phase, results = client.infer_scan(model, raw, backend=chosen, **options)
    return amplitude, phase, {**results, "backend": chosen}
