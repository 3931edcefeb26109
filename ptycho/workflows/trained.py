"""Trained models: opened, saved, and chosen for a scan; the same for both backends."""

from __future__ import annotations

from pathlib import Path

from ptycho import backends
from ptycho.backends import Network
from ptycho.config.settings import PyTorchExecutionConfig
from ptycho.errors import BundleError, ConfigError
from ptycho.models.trained_state import TrainedState, load_trained_state
from ptycho.run.preparation import Scan


def restored(state: TrainedState, backend: str, *, source: str = "", trains: bool = True) -> Network:
    """The model of a trained state in a backend, whichever trained it. trains False: it only predicts.

    Raises ConfigError where it cannot be, or BundleError where a `source` is given that holds the state.
    """
    chosen = backends.find(backend)
    try:
        model: Network
        if trains:
            model = chosen.build(state.config, PyTorchExecutionConfig())
        else:
            model = chosen.build_to_predict(state.config)
        chosen.load(model, state)
    except ConfigError as error:
        if not source:
            raise
        raise BundleError(f"{source}: {error}") from None
    return model


def open_bundle(path: Path, backend: str) -> Network:
    """The model of a bundle (zip, its folder, or the unpacked contents), whichever backend wrote it."""
    state, _ = load_trained_state(path)
    return restored(state, backend, source=str(path))


def state_of(model: Network) -> TrainedState:
    """Everything a model knows, as arrays on the CPU."""
    return backends.find(model.backend).state(model)


def save_trained(module: Network, directory: Path) -> Path:
    """Write `wts.h5.zip` into a folder: configuration, weights, normalisation, probe. Atomic."""
    return state_of(module).save(directory, module.backend)


def for_scan(model: Network, number: int) -> Network:
    """The model with the probe and scale of one of its training scans. ConfigError for no such scan."""
    return restored(state_of(model).for_scan(number), model.backend)


def for_data(
    model: Network | Path, data: Scan, *, backend: str = "pytorch", wanted: int | None = None
) -> Network:
    """The model with which a scan is seen: as the training scan `wanted`, or else as the most similar one.

    A bundle (path) is opened by `backend` and only predicts; a model stays in its own. See
    `TrainedState.for_data`.
    """
    if isinstance(model, Path):
        state, _ = load_trained_state(model)
        return restored(state.for_data(data, wanted), backend, source=str(model), trains=False)
    if model.n_scans == 1 and wanted is None:
        return model
    return restored(state_of(model).for_data(data, wanted), model.backend)
