"""Parts of the learned tools without a training: steps and weights of the trainer, decoder, warp."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from ptycho.config.learned import LearnedSettings, loss_weights
from ptycho.errors import ConfigError
from ptycho.io.compressed.levels import stabilised
from ptycho.io.compressed.network import decoded_frames, shipped_weights
from ptycho_torch.codec.latents import network_of
from ptycho_torch.codec.network import made_from_seed
from ptycho_torch.learned.module import Steps
from ptycho_torch.refine.learned_step import shipped_denoiser
from ptycho_torch.triage.running import load_network as load_triage
from ptycho_torch.warp import backward_warp
from ptycho_torch.warp.predict import load_network

TERMS = {"edges": 1.0, "folds": 0.5}


def test_every_step_is_named_by_its_epoch() -> None:
    steps = Steps(3)
    assert list(steps) == [(0, 0), (0, 1), (0, 2)] and len(steps) == 3
    steps.set_epoch(7)
    assert list(steps) == [(7, 0), (7, 1), (7, 2)]


def test_weights_of_terms_are_the_tools_unless_settings_say_otherwise() -> None:
    assert loss_weights(LearnedSettings(), TERMS) == TERMS
    assert loss_weights(LearnedSettings(loss_weights={"folds": 0.0}), TERMS) == {"edges": 1.0, "folds": 0.0}
    for given, message in (
        ({"fold": 1.0}, "nearest known: 'folds'"),
        ({"folds": -1.0}, "must be a number >= 0"),
        ({"folds": float("inf")}, "must be a number >= 0"),
        ({"edges": 0.0, "folds": 0.0}, "nothing to minimise"),
    ):
        with pytest.raises(ConfigError, match=message):
            loss_weights(LearnedSettings(loss_weights=given), TERMS)


def test_numpy_decodes_a_frame_as_torch_does() -> None:
    network = made_from_seed(2, 8, seed=1)
    rng = np.random.default_rng(0)
    latents = rng.integers(-4, 5, (1, 2, 4, 4)).astype(np.float32)
    light = stabilised(rng.poisson(40.0, (32, 32)))
    weights = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    found = decoded_frames(latents, light, 2.5, weights)
    given = torch.from_numpy((light / light.max()).astype(np.float32))[None, None]
    with torch.no_grad():
        made = network.decode(torch.from_numpy(latents), given).numpy()[:, 0]
    np.testing.assert_allclose(found, 2.5 * made + light, atol=1e-4 * np.abs(made).max(), rtol=1e-5)


def test_loading_what_ships_draws_nothing_from_torchs_own_generator() -> None:
    shipped_denoiser.cache_clear()
    load_network.cache_clear()
    before = torch.get_rng_state()
    made = [shipped_denoiser(), load_network(), network_of(shipped_weights()), load_triage()[0]]
    assert torch.equal(before, torch.get_rng_state())
    assert all(value.isfinite().all() for network in made for value in network.parameters())


def test_a_warp_takes_each_pixel_from_where_the_field_points() -> None:
    image = np.random.default_rng(0).normal(size=(12, 15))
    field = np.zeros((12, 15, 2))
    field[...] = (1.5, -2.25)  # x, y
    wanted = ndimage.shift(image, (2.25, -1.5), order=1, mode="nearest")
    made = backward_warp(torch.tensor(image)[None, None], torch.tensor(field)[None])
    np.testing.assert_allclose(made[0, 0].numpy()[3:, :-2], wanted[3:, :-2], atol=1e-10)
