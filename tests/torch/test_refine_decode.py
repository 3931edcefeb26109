"""Positions decoded from misfit maps: the map against the oracle, the distribution, a shift, its gradient."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ptycho.errors import ConfigError
from ptycho.simulation.scenario import Scenario, diffract_scan, simulate
from ptycho_torch.refine import make_scan, start_state
from ptycho_torch.refine.decode import Belief, Grid, misfit_maps, prior_of


def true_state(photons=1e7, n_modes=1, **more):
    """A scan of 32 x 32 and a state at its answer, in double precision, with room to move."""
    made = simulate(
        Scenario(N=32, n_positions=36, step_px=3.0, jitter_px=1.2, photons=photons, n_modes=n_modes)
    )
    raw = made.raw
    scan = make_scan(
        raw.diff3d, raw.positions_px, made.probe_true, unit="counts", dtype=torch.complex128, **more
    )
    state = start_state(scan, margin_px=6, initial_object=made.object_true, initial_origin_xy=(0, 0))
    state.probe = torch.from_numpy(made.probe_true.astype(np.complex128))
    return scan, state, made


@pytest.mark.parametrize("radius, step", [(2, 1.0), (4, 2.0), (1, 0.5)])
def test_a_map_is_the_misfit_of_the_oracle_at_every_shift(radius, step):
    scan, state, made = true_state(n_modes=2)
    grid, index = Grid(radius, step), torch.tensor([14, 20])
    around = scan.positions_xy[index] + torch.tensor([0.3, -0.2], dtype=torch.float64)
    maps = misfit_maps(scan, state, index, grid, around)
    places = (around[:, None] + grid.shifts()).reshape(-1, 2).numpy()
    model = diffract_scan(made.object_true, made.probe_true, places).reshape(*maps.shape, 32, 32)
    away = np.sqrt(model) - np.sqrt(made.raw.diff3d[index.numpy()])[:, None]
    np.testing.assert_allclose(maps.numpy(), (away**2).sum((-2, -1)), rtol=1e-5)
    assert maps.shape == (2, grid.side**2)


def test_ignored_pixels_intensities_and_a_background_have_their_say():
    bad = np.zeros((32, 32), bool)
    bad[10:20, 3:9] = True
    scan, state, made = true_state(bad_pixels=bad)
    state.background = torch.full((32, 32), 3.0, dtype=torch.float64)
    state.intensity = torch.full((36,), 1.1, dtype=torch.float64)
    index, grid = torch.tensor([14]), Grid(1, 1)
    around = scan.positions_xy[index]
    maps = misfit_maps(scan, state, index, grid, around)
    places = (around[:, None] + grid.shifts()).reshape(-1, 2).numpy()
    model = 1.21 * diffract_scan(made.object_true, made.probe_true, places) + 3.0
    away = (np.sqrt(model) - np.sqrt(made.raw.diff3d[14])) * ~bad
    np.testing.assert_allclose(maps[0].numpy(), (away**2).sum((-2, -1)), rtol=1e-5)


def test_the_right_shift_is_found_between_the_points_of_the_grid():
    scan, state, _ = true_state()
    index = torch.arange(scan.size)
    off = torch.from_numpy(np.random.default_rng(0).uniform(-2, 2, (scan.size, 2)))
    grid = Grid(4, 0.5)
    around = scan.positions_xy + off
    belief = Belief.of(misfit_maps(scan, state, index, grid, around), grid, 1e9)
    inner = (scan.positions_xy - scan.positions_xy.mean(0)).abs().amax(1) < 7
    assert int(inner.sum()) >= 16
    assert float((belief.best() + off)[inner].norm(dim=1).max()) < 0.15
    # a mean that is sure lies on the grid: half a diagonal away at most
    assert float((belief.mean() + off)[inner].norm(dim=1).max()) < 0.5 * 0.5 * 2**0.5 + 0.02
    # a grid of whole steps alone would leave more than the parabola does
    nearest = grid.shifts()[belief.logits.argmax(1)]
    assert float((belief.best() + off)[inner].square().mean()) < 0.5 * float(
        (nearest + off)[inner].square().mean()
    )


def test_the_mean_is_the_expectation_and_its_gradient_is_that_of_finite_differences():
    grid = Grid(1, 0.5)
    maps = torch.rand(3, 25, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    belief = Belief.of(maps, grid, 1e15)
    weights = np.exp(-2 * maps.numpy())
    weights /= weights.sum(1, keepdims=True)
    np.testing.assert_allclose(belief.decoded("exp").numpy(), weights @ grid.shifts().numpy(), atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda m: Belief(grid, grid.shifts(), -2 * m).decoded("exp"), maps.requires_grad_(True)
    )


def test_straight_through_gives_the_likeliest_with_the_gradient_of_the_mean():
    scan, state, _ = true_state(photons=1e5)
    index, grid = torch.arange(12, 18), Grid(3, 1)
    around = scan.positions_xy[index] + 1.2
    state.object = state.object.clone().requires_grad_(True)
    state.probe = state.probe.clone().requires_grad_(True)
    belief = Belief.of(misfit_maps(scan, state, index, grid, around), grid, 20.0)
    values, slopes = {}, {}
    for kind in ("exp", "st"):
        values[kind] = belief.decoded(kind)
        weights = torch.arange(12, dtype=torch.float64).reshape(6, 2)
        slopes[kind] = torch.autograd.grad(
            (values[kind] * weights).sum(), [state.object, state.probe], retain_graph=True
        )
    assert float((values["exp"] - values["st"]).detach().abs().min(1).values.max()) > 1e-3
    torch.testing.assert_close(values["st"], belief.best())
    for one, other in zip(slopes["exp"], slopes["st"], strict=True):
        assert torch.equal(one, other) and float(one.abs().max()) > 0


def test_the_gradient_reaches_the_object_as_finite_differences_say():
    scan, state, _ = true_state(photons=1e3)
    index, grid = torch.tensor([14]), Grid(2, 1)
    around = scan.positions_xy[index] + 0.7
    weights = torch.tensor([[1.0, -0.5]], dtype=torch.float64)

    def value(image):
        seen = dataclasses.replace(state, object=image)
        maps = misfit_maps(scan, seen, index, grid, around)
        return (Belief.of(maps, grid, 1e15).decoded("exp") * weights).sum()

    image = state.object.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(value(image), [image])
    y, x = divmod(int(slope.abs().argmax()), slope.shape[1])
    for unit in (1.0, 1j):
        move = torch.zeros_like(state.object)
        move[y, x] = 1e-5 * unit
        found = (value(state.object + move) - value(state.object - move)) / 2e-5
        expected = float(slope[y, x].real if unit == 1.0 else slope[y, x].imag)
        assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_the_larger_the_misfit_of_the_model_the_less_is_believed():
    grid = Grid(3, 1)
    maps = 10.0 + grid.shifts().square().sum(1)[None]
    sure = Belief.of(maps - 9.99, grid, 30.0)
    unsure = Belief.of(maps + 300.0, grid, 30.0)
    assert float(sure.width_px()) < 0.8 < 2.0 < float(unsure.width_px())
    assert float(sure.entropy_nats()) < float(unsure.entropy_nats()) < np.log(49)
    torch.testing.assert_close(sure.probabilities.sum(1), torch.ones(1, dtype=torch.float64))
    # never sharper than the likelihood of counts; as sharp where the counts' noise explains the misfit
    counts = Belief.of(maps - 9.99, grid, 1e12).logits
    assert bool((sure.logits >= counts).all())
    torch.testing.assert_close(
        Belief.of(maps + 300.0, grid, 30.0, noise=torch.tensor([310.0])).logits, counts
    )


def test_a_shift_off_the_canvas_is_never_believed_and_none_on_it_moves_nothing():
    scan, state, _ = true_state()
    index = torch.tensor([0])
    edge = torch.tensor([state.canvas.origin_xy], dtype=torch.float64) + scan.n // 2
    grid = Grid(2, 1)
    maps = misfit_maps(scan, state, index, grid, edge)
    outside = (grid.shifts() < 0).any(1)
    assert maps[0, outside].isinf().all() and maps[0, ~outside].isfinite().all()
    belief = Belief.of(maps, grid, 5.0)
    assert float(belief.probabilities[0, outside].sum()) == 0
    assert torch.isfinite(belief.decoded("st")).all()
    nowhere = Belief.of(torch.full((1, 25), float("inf"), dtype=torch.float64), grid, 5.0)
    assert float(nowhere.decoded("exp").abs().max()) < 1e-12


def test_the_prior_is_a_gaussian_around_where_the_scan_says():
    grid = Grid(2, 1)
    home, around = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    prior = prior_of(around, home, grid.shifts(), 2.0)
    places = around + grid.shifts()
    torch.testing.assert_close(prior[0], -places.square().sum(1) / 8)


@pytest.mark.parametrize("radius, step", [(2, 0.0), (2, 0.3), (0.5, 1.0), (2, 1.5)])
def test_a_grid_that_cannot_be_is_refused(radius, step):
    with pytest.raises(ConfigError, match="grid of shifts"):
        Grid(radius, step)


def test_an_unknown_way_to_decode_is_refused():
    belief = Belief.of(torch.zeros(1, 9, dtype=torch.float64), Grid(1, 1), 1.0)
    with pytest.raises(ConfigError, match="use 'exp' or 'st'"):
        belief.decoded("soft")
