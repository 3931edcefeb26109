"""Both backends hand back what each training scan says of its metres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho import backends
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.io.geometry import Geometry
from ptycho.models.trained_state import TrainedState, load_trained_state
from ptycho.networks.graphs import describe, initial_weights, spec_from_config
from ptycho.scan.scan_set import KnownScan

PHOTONS = Geometry.of_settings({"energy_eV": 8800.0, "object_pixel_size_m": 28e-9})
ELECTRONS = Geometry.of_settings({"voltage_V": 80e3, "angular_pixel_size_rad": 0.9e-3})


@pytest.mark.parametrize("known", [(PHOTONS,), (ELECTRONS, PHOTONS, Geometry())], ids=["one", "three"])
@pytest.mark.parametrize("name", ["pytorch", "tensorflow"])
def test_a_model_keeps_the_geometry_of_its_scans(
    name: str, known: tuple[Geometry, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if name == "tensorflow":
        request.getfixturevalue("tf")
    config = TrainingConfig(model=ModelConfig(N=32, gridsize=1, n_filters_scale=1), backend=name)
    spec = spec_from_config(config.model)
    probe, none = np.ones((1, 32, 32), np.complex64), np.zeros((32, 32), bool)
    scans = tuple(KnownScan(probe, 1.0, 10.0, 0.5, none, probe, geometry=one) for one in known)
    weights = initial_weights(describe(config.model.architecture, spec), spec, 0)
    backend = backends.find(name)
    model = backend.build(config, PyTorchExecutionConfig())
    backend.load(model, TrainedState(config, weights, scans))
    again, _ = load_trained_state(backend.state(model).save(tmp_path, name))
    assert tuple(scan.geometry for scan in again.scans) == known
    assert tuple(backend.known_scan(model, k).geometry for k in range(len(known))) == known
