"""The network that ships, on small scans: better than the coarse object, in both backends, trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError, DataError
from ptycho.evaluation import evaluate
from ptycho.models.shipped import WEIGHTS, shipped_model, shipped_weights
from ptycho.networks.graphs import describe, parameter_shapes, spec_from_config
from ptycho.run.reference import coarse_reference
from ptycho.scan.container import PtychoDataContainer
from ptycho.simulation.scenario import Scenario, simulate
from ptycho.workflows.infer import infer
from ptycho.workflows.references import with_start
from ptycho.workflows.shipped import shipped_state
from ptycho.workflows.trained import restored


@pytest.fixture(scope="module")
def known():
    """A scan of 100 patterns of an object that the network was not trained on, and its probe."""
    return simulate(Scenario(object="two_photographs", n_positions=100, probe_error=0.0, seed=5))


def nrmse(known, image, origin):
    return evaluate(image, known.object_true, known.roi, origin_xy=origin).nrmse


def test_the_weights_fit_the_network_and_are_small():
    spec = spec_from_config(shipped_model(64))
    shapes = {name: value.shape for name, value in shipped_weights().items()}
    assert shapes == parameter_shapes(describe("swift", spec), spec)
    assert WEIGHTS.stat().st_size < 4e6


def test_an_image_without_training_beats_the_coarse_object(known):
    state = shipped_state(known.raw, refine=False)
    scan = PtychoDataContainer.from_raw(known.raw, 1)
    start = coarse_reference(scan.patterns, scan.positions_px, state.scans[0].probe)
    made = infer(restored(state, "pytorch"), known.raw)
    before = nrmse(known, start.image, start.origin_xy)
    assert nrmse(known, made.object, made.origin_xy) < 0.65 * before


@pytest.mark.tf
def test_tensorflow_makes_the_same_image(known, tmp_path):
    pytest.importorskip("tensorflow")
    state = shipped_state(known.raw, refine=False)
    images = [infer(restored(state, name), known.raw).object for name in ("pytorch", "tensorflow")]
    np.testing.assert_allclose(images[1], images[0], atol=2e-3)


@pytest.mark.parametrize("side", [32, 256])
def test_another_side_is_refused_by_name(side):
    with pytest.raises(
        DataError, match=f"{side} x {side} px, the network that ships was trained on 64 and 128"
    ):
        shipped_model(side)


def test_training_goes_on_from_it_and_refuses_another_network(known):
    from ptycho.workflows.train import train

    config = TrainingConfig(start_from="shipped", nepochs=1, probe_from="guess", output_dir=Path())
    execution = PyTorchExecutionConfig(accelerator="cpu", logger_backend="none", learning_rate=1e-5)
    model = train(known.raw, None, config, execution).model
    assert model.config.model.reference == "coarse"
    away = [abs(value.numpy() - shipped_weights()[name]).max() for name, value in _weights(model).items()]
    assert 0 < max(away) < 1e-3
    with pytest.raises(ConfigError, match="gridsize = 2.*the network that ships has 1"):
        with_start(TrainingConfig(model=ModelConfig(gridsize=2), start_from="shipped"))


def _weights(model):
    from ptycho_torch.layers import neutral_weights

    return neutral_weights(model.network)


def test_the_objects_it_was_trained_on_follow_from_a_seed():
    from ptycho.simulation.random_objects import random_object

    drawn = [random_object(48, np.random.default_rng(seed)) for seed in range(12)]
    for seed, image in enumerate(drawn):
        assert image.shape == (48, 48) and image.dtype == np.complex64
        assert np.isfinite(image).all() and 0 < np.abs(image).max() < 2
        np.testing.assert_array_equal(image, random_object(48, np.random.default_rng(seed)))
    assert len({image.tobytes() for image in drawn}) == len(drawn)
