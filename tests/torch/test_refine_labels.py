"""Labels from a refined object; a network that learns from them; a network as the start of a refinement."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho.errors import BundleError, ConfigError, DataError
from ptycho.scan.labels import cut_patches
from ptycho.simulation.scenario import Scenario, simulate
from ptycho_torch.refine import check_distilled, label_scan, reconstruct
from ptycho_torch.refine.network import flat_where_unseen
from ptycho_torch.refine.scan import scan_from_raw
from ptycho_torch.workflows import components


@pytest.fixture(scope="module")
def refined():
    """A scan of 64 patterns with no truth in it, and what a refinement made of it."""
    made = simulate(Scenario(N=32, n_positions=64, step_px=3.0, photons=1e6, object="gaussian_random_field"))
    raw = type(made.raw)(**{**made.raw.as_arrays(), "objectGuess": None})
    return raw, reconstruct(raw, epochs=30, start="flat", levels=1, prior="none")


def test_labels_are_the_refined_object_under_each_pattern(refined):
    raw, result = refined
    labelled = label_scan(raw, result)
    x, y = result.origin_xy
    np.testing.assert_allclose(labelled.xcoords, raw.xcoords - x)
    np.testing.assert_allclose(labelled.ycoords - labelled.ycoords_start, 0, atol=1e-9)
    patch = cut_patches(labelled.objectGuess, labelled.positions_px[:5], raw.N)
    want = raw.amplitude()[:5]
    # bilinear labels under an unmoved probe: near the counts, not equal to them
    got = np.abs(np.fft.fftshift(np.fft.fft2(patch * labelled.probe_modes[0], norm="ortho"), axes=(1, 2)))
    assert np.linalg.norm(got - want) < 0.35 * np.linalg.norm(want)
    assert labelled.diffraction_unit == raw.diffraction_unit


def test_a_supervised_run_learns_from_them_and_is_checked(refined, small_config, silent):
    raw, result = refined
    labelled = label_scan(raw, result)
    config = small_config(labelled, model_type="supervised", nepochs=6)
    _, _, trained = components.run_cdi_example_torch(labelled, None, config, execution_config=silent)
    losses = trained["history"]["train_loss"]
    assert losses[-1] < 0.8 * losses[0]
    model = trained["models"]["autoencoder"]
    from ptycho_torch.workflows.trained import TrainedModel

    model = (
        model if isinstance(model, TrainedModel) else TrainedModel(trained["models"]["diffraction_to_obj"])
    )
    shifted = label_scan(raw, dataclasses.replace(result, origin_xy=(0, 0)))
    judged = check_distilled(model, shifted, result)
    assert 0 < judged.nrmse < 0.6
    assert np.hypot(*judged.shift_px) < 2  # each canvas knows where it lies
    started = reconstruct(raw, model, epochs=4)
    assert started.r < started.history[0]["r"]
    with pytest.raises(ConfigError, match="RawData"):
        reconstruct(scan_from_raw(raw), model, epochs=1)


def test_a_refinement_of_another_scan_is_refused(refined):
    raw, result = refined
    with pytest.raises(DataError, match="refine this scan"):
        label_scan(raw.subsample(10), result)


def test_a_model_that_is_none_is_refused(refined, tmp_path):
    raw, _ = refined
    with pytest.raises(ConfigError, match="model is a int"):
        reconstruct(raw, 3)
    with pytest.raises((BundleError, FileNotFoundError)):
        reconstruct(raw, tmp_path / "nothing")


def test_the_networks_gauge_is_taken_off_and_the_rest_is_flat():
    image = np.full((6, 8), 3.0 * np.exp(1j))
    coverage = np.ones((6, 8))
    image[:, 6:], coverage[:, 6:] = 0, 0
    np.testing.assert_allclose(flat_where_unseen(image, coverage), 1.0, atol=1e-6)
    np.testing.assert_array_equal(flat_where_unseen(np.zeros((3, 3)), coverage[:3, :3]), np.ones((3, 3)))
