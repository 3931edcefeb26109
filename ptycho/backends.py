"""What a backend does for the rest of the package, and the one place where backends are looked up by name.

A backend holds its own tensors and its own trainer. Everything else (scans, batches, configuration, probes,
stitching, files) is the same for all of them and lives in the rooms of `ptycho`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import BACKENDS, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError, MissingDependencyError
from ptycho.models.trained_state import TrainedState
from ptycho.ops import Array
from ptycho.run.job import Fitted, Job
from ptycho.run.reconstruction import Predictor
from ptycho.run.starting_probe import Refinement
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.scan_set import KnownScan

#: name -> the package whose module `backend` holds BACKEND
PACKAGES = {"pytorch": "ptycho_torch", "tensorflow": "ptycho.tf"}
#: the iterative engine that refines starting probes, the same for both backends
ENGINE = "ptycho_torch.refine"
_MISSING = {
    "torch": "backend 'pytorch' needs the package torch: pip install ptychopinn",
    "lightning": "backend 'pytorch' needs the package lightning: pip install ptychopinn",
    "tensorflow": "backend 'tensorflow' needs TensorFlow: pip install 'ptychopinn[tf]' - or use --backend "
    "pytorch",
}
_NEEDS = {"pytorch": ("torch", "lightning"), "tensorflow": ("tensorflow",)}


class Network(Protocol):
    """A model as the neutral code knows it: built by a backend, told of its scans, perhaps trained.

    Numbers without a scan are those of the first scan; see `ptycho.scan.normalization` for their meaning.
    """

    backend: str
    config: TrainingConfig

    @property
    def n_scans(self) -> int:
        """Scans that the model knows."""

    @property
    def x_scale(self) -> float:
        """Factor from measured amplitude to x."""

    @property
    def nphotons(self) -> float:
        """Counts in the mean pattern."""

    @property
    def intensity_scale(self) -> float:
        """s = 2 sqrt(nphotons) / N."""


Model = TypeVar("Model", bound=Network)
Patches = TypeVar("Patches", covariant=True)


class Backend(Protocol[Model, Patches]):
    """What a backend supplies. `Model` is its network, `Patches` its complex tensors."""

    name: str

    def check(
        self, config: TrainingConfig, execution: PyTorchExecutionConfig, resume: Path | None = None
    ) -> None:
        """Refuse by name what this backend does not do, before any work; ConfigError.

        resume: the checkpoint that the run goes on from.
        """

    def build(self, config: TrainingConfig, execution: PyTorchExecutionConfig) -> Model:
        """An untrained model that knows no scan yet; its weights follow from the seed."""

    def build_to_predict(self, config: TrainingConfig) -> Model:
        """As `build`, a model that need not be able to train."""

    def load(self, model: Model, state: TrainedState) -> None:
        """Put weights and scans of a trained state into a new model; ConfigError where they do not fit."""

    def load_weights(self, model: Model, weights: Mapping[str, NDArray[Any]]) -> None:
        """Put weights by neutral name into a new model; ConfigError where they do not fit."""

    def fit(self, job: Job, model: Model | None = None) -> Fitted[Model]:
        """Train a model (a new one: None) as the job says; it has the weights that validated best.

        Time linear in groups x epochs; memory: the containers and a few batches.
        """

    def predict(
        self,
        model: Model,
        x: NDArray[np.float32],
        scan: int = 0,
        reference: NDArray[np.complex64] | None = None,
    ) -> Patches:
        """Patches (B, C_out, N, N) of x (B, C, N, N), as the model's scan `scan`, without gradients.

        reference (B, C, N, N): the image around each pattern, where `ModelConfig.reference` is coarse.
        """

    def state(self, model: Model) -> TrainedState:
        """Everything the model knows, as arrays."""

    def known_scan(self, model: Model, scan: int) -> KnownScan:
        """What the model knows of one of its scans now: probe, numbers, bad pixels."""

    def placed(self, model: Model, execution: PyTorchExecutionConfig) -> AbstractContextManager[object]:
        """Inside it the model computes on the device that the execution asks for; ConfigError."""

    def has_gpu(self) -> bool:
        """Whether a GPU is there to compute on."""


def find(name: str) -> Backend[Network, Array]:
    """The backend of a name; ConfigError for an unknown one, MissingDependencyError for one not installed."""
    if name not in PACKAGES:
        raise ConfigError(f"backend = {name!r}: must be {' or '.join(map(repr, BACKENDS))}")
    for package in _NEEDS[name]:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(_MISSING[package])
    found: Backend[Network, Array] = importlib.import_module(f"{PACKAGES[name]}.backend").BACKEND
    return found


def is_installed(name: str) -> bool:
    """Whether the packages of a backend are there."""
    return all(importlib.util.find_spec(package) is not None for package in _NEEDS[name])


def refined_modes(
    container: PtychoDataContainer,
    modes: NDArray[Any],
    wanted: int,
    config: TrainingConfig,
    progress: Callable[[int, int], None] | None,
) -> NDArray[Any]:
    """The probe (P, N, N) after some sweeps of the iterative engine; see `ptycho.run.starting_probe`."""
    refine: Refinement = importlib.import_module(f"{ENGINE}.starting").refined_modes
    return refine(container, modes, wanted, config, progress)


def engine() -> ModuleType:
    """The iterative engine, `ptycho_torch.refine`, which serves both backends."""
    return importlib.import_module(ENGINE)


def predictor_of(model: Network, scan: int = 0) -> Predictor[Array]:
    """A model as it sees one of its scans."""
    backend = find(model.backend)
    known = backend.known_scan(model, scan)

    def predict(x: NDArray[np.float32], reference: NDArray[np.complex64] | None = None) -> Any:
        return backend.predict(model, x, scan, reference)

    return Predictor(
        config=model.config,
        x_scale=known.x_scale,
        nphotons=known.nphotons,
        probe=known.probe,
        log_scale=known.log_scale,
        predict=predict,
    )
