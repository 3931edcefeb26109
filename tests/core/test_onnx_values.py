"""What an ONNX file says of itself: every number comes back, and one that cannot be is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.config.settings import ModelConfig, TrainingConfig
from ptycho.errors import BundleError
from ptycho.models.trained_state import TrainedState
from ptycho.networks.graphs import describe, initial_weights, spec_from_config
from ptycho.scan.scan_set import KnownScan

pytestmark = pytest.mark.onnx
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

NUMBERS = {"x_scale": 0.125, "nphotons": 2e4, "probe_factor": 0.75, "log_scale": -0.3}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of an untrained network."""
    from ptycho.models.onnx_export import write_onnx

    config = TrainingConfig(model=ModelConfig(N=32, n_filters_scale=1))
    spec = spec_from_config(config.model)
    weights = initial_weights(describe("swift", spec), spec, 0)
    probe = np.ones((1, 32, 32), np.complex64)
    scan = KnownScan(probe=probe, bad_pixels=np.zeros((32, 32), bool), guess=probe, **NUMBERS)
    return write_onnx(TrainedState(config, weights, (scan,)), tmp_path / "model.onnx")


def test_every_number_of_the_scan_comes_back(path: Path) -> None:
    from ptycho.models.onnx_model import open_onnx

    made = open_onnx(path)
    assert {name: getattr(made, name) for name in NUMBERS} == pytest.approx(NUMBERS)
    assert (made.probe == 1).all()


@pytest.mark.parametrize(
    "name, value",
    [
        ("x_scale", "0"),
        ("x_scale", "-1"),
        ("log_scale", "nan"),
        ("nphotons", "many"),
        ("format_version", "2"),
    ],
)
def test_a_number_that_cannot_be_is_refused(path: Path, name: str, value: str) -> None:
    from ptycho.models.onnx_model import open_onnx

    model = onnx.load(str(path))
    for entry in model.metadata_props:
        if entry.key == name:
            entry.value = value
    onnx.save(model, str(path))
    with pytest.raises(BundleError, match=f"{name}|format {value}"):
        open_onnx(path)
