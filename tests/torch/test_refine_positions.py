"""Positions wrong by pixels, and scans that are strained: found where they are, left alone where not."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from test_refine_engine import guess_of, make_problem

from ptycho.errors import ConfigError
from ptycho.simulation.scenario import Scenario, simulate
from ptycho_torch.refine import make_scan, reconstruct, start_state
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.search import excess, radius_px
from ptycho_torch.refine.strain import strain, stretch
from ptycho_torch.refine.unknowns import believe_positions


@functools.cache
def photographs(photons=1e7, n_positions=100):
    """A scan over a generic object: counts, centres, probe guess, true probe, true object."""
    made = simulate(Scenario(N=32, n_positions=n_positions, step_px=3.0, jitter_px=1.2, photons=photons))
    raw = made.raw
    return raw.diff3d, raw.positions_px, raw.probeGuess, made.probe_true, made.object_true


def true_state(photons=1e8):
    """Scan and state at the answer, in double precision."""
    counts, positions, _, probe, truth = photographs(photons)
    scan = make_scan(counts, positions, probe, unit="counts", dtype=torch.complex128)
    return scan, start_state(scan, initial_object=truth, initial_origin_xy=(0, 0))


def left(found, true):
    """rms distance after a common shift, px."""
    away = (found - found.mean(0)) - (true - true.mean(0))
    return np.sqrt(np.mean(np.sum(away**2, 1)))


def test_errors_of_pixels_are_found():
    counts, positions, guess, _, _ = photographs()
    wrong = positions + np.random.default_rng(3).normal(0, 1.4, positions.shape)
    options = {"positions": "free", "epochs": 60}
    result = reconstruct(make_scan(counts, wrong, guess), position_search_px=3.0, **options)
    assert left(wrong, positions) > 1.8
    assert left(result.positions_xy, positions) < 0.4 * left(wrong, positions)


def test_a_search_resumes_to_the_byte(tmp_path):
    counts, positions, probe, _, _ = make_problem(side=5)
    wrong = positions + np.random.default_rng(3).normal(0, 1.0, positions.shape)
    scan = make_scan(counts, wrong, guess_of(probe))
    options = {"positions": "affine", "position_search_px": 2.0, "epochs": 30}
    whole = reconstruct(scan, **options)
    path = tmp_path / "state.safetensors"
    reconstruct(scan, **options, checkpoint=path, callbacks=(lambda now: now.epoch == 13,))
    again = reconstruct(scan, **options, checkpoint=path, resume=True)
    assert again.positions_xy.tobytes() == whole.positions_xy.tobytes()
    assert again.object.tobytes() == whole.object.tobytes()


@pytest.mark.parametrize(
    "matrix", [[[0.01, 0], [0, 0.01]], [[0, -0.015], [0.015, 0]], [[0.008, 0.004], [0, -0.008]]]
)
def test_a_strained_object_is_seen_inside_the_windows_and_straightened(matrix):
    scan, state = true_state()
    index = torch.arange(20, 60)
    bent = torch.eye(2, dtype=torch.float64) + torch.tensor(matrix, dtype=torch.float64)
    stretch(state, bent)
    found, deviation = strain(scan, state, index)
    assert deviation.shape == (2, 2)
    asked = bent - torch.eye(2, dtype=torch.float64)
    assert float((found - asked).norm()) < 0.25 * float(asked.norm())
    for _ in range(4):
        stretch(state, torch.linalg.inv(torch.eye(2, dtype=torch.float64) + strain(scan, state, index)[0]))
    assert float(strain(scan, state, index)[0].norm()) < 0.1 * float(found.norm())


def test_stretching_moves_positions_and_features_alike():
    _, state = true_state()
    before, places = state.object.clone(), state.positions_xy.clone()
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    for _ in range(4):
        stretch(state, turn)
    torch.testing.assert_close(state.positions_xy, places)
    torch.testing.assert_close(state.object[20:-20, 20:-20], before[20:-20, 20:-20], atol=0.05, rtol=0)


@pytest.mark.parametrize("photons", [1e4, 1e7])
def test_right_positions_stay_under_affine(photons):
    counts, positions, guess, _, _ = photographs(photons)
    result = reconstruct(make_scan(counts, positions, guess), positions="affine", epochs=30)
    assert left(result.positions_xy, positions) < 0.05


def test_excess_does_not_mistake_noise_for_a_wrong_place():
    counts, positions, probe, truth, _ = make_problem(photons=2e3)
    scan = make_scan(counts, positions, probe)
    state = start_state(scan, initial_object=truth)
    state.probe = torch.from_numpy(probe)
    index = torch.arange(scan.size)
    right = excess(scan.counts, predict(scan, state, index).intensity)
    state.positions_xy = state.positions_xy + torch.tensor([2.0, 1.0])
    wrong = excess(scan.counts, predict(scan, state, index).intensity)
    assert abs(float(right.mean())) < 0.01 < float(wrong.median())


def test_the_circle_shrinks_and_the_options_are_checked():
    assert radius_px(4.0, 0, 40) == 4.0 and radius_px(4.0, 40, 40) == pytest.approx(0.1)
    counts, positions, probe, _, _ = make_problem(side=3)
    scan = make_scan(counts, positions, probe)
    with pytest.raises(ConfigError, match="needs positions"):
        reconstruct(scan, position_search_px=3.0)
    with pytest.raises(ConfigError, match="between 0 and 100"):
        reconstruct(scan, position_search_px=-1.0, positions="free")


def strained_scan(matrix, photons=1e5):
    """A scan whose given positions are strained, and a state that has found the right ones."""
    counts, positions, _, probe, truth = photographs(photons)
    wrong = positions @ (np.eye(2) + np.array(matrix)).T
    scan = make_scan(counts, wrong, probe, unit="counts")
    state = start_state(scan, initial_object=truth, initial_origin_xy=(0, 0), margin_px=3)
    state.positions_xy = torch.from_numpy(positions.copy())
    return scan, state, wrong, positions


@pytest.mark.parametrize("angle", [0.008, -0.008])
def test_a_small_rotation_is_believed_where_a_scale_of_its_size_is_not(angle):
    # fitting the object's noise makes a scan larger or smaller; nothing turns it
    scan, state, wrong, right = strained_scan([[0, -angle], [angle, 0]])
    believe_positions(scan, state, RefineOptions(positions="affine"))
    assert left(state.positions_xy.numpy(), right) < 0.02 * left(wrong, right)
    scan, state, wrong, right = strained_scan([[angle, 0], [0, angle]])
    believe_positions(scan, state, RefineOptions(positions="affine"))
    assert left(state.positions_xy.numpy(), wrong) < 1e-6


def test_of_a_small_strain_only_the_turn_is_believed_and_a_turn_within_the_noise_is_not():
    scan, state, _, right = strained_scan([[0.006, -0.008], [0.008, 0.006]])
    believe_positions(scan, state, RefineOptions(positions="affine"))
    moved, places = state.positions_xy.numpy(), scan.positions_xy.numpy()
    centred = places - places.mean(0)
    away = moved - moved.mean(0) - centred
    found = np.linalg.lstsq(centred, away, rcond=None)[0]
    assert found[0, 1] == pytest.approx(-0.008, rel=0.05) and found[1, 0] == pytest.approx(0.008, rel=0.05)
    assert np.abs(np.diag(found)).max() < 1e-6
    scan, state, wrong, right = strained_scan([[0, -0.003], [0.003, 0]])
    believe_positions(scan, state, RefineOptions(positions="affine"))
    assert left(state.positions_xy.numpy(), wrong) < 1e-6
