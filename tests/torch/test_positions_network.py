"""The positions network: the formula's interface, its gradient, maps that move or are padded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from test_refine_decode import true_state

from ptycho.errors import BundleError
from ptycho.io.tensors import write_tensors
from ptycho_torch.layers import draw_he
from ptycho_torch.refine.beliefs import (
    BeliefNetwork,
    Maps,
    by_formula,
    load_network,
    network_belief,
    pictures,
)
from ptycho_torch.refine.decode import Grid, misfit_maps, prior_of


def drawn(zero: tuple[str, ...] = (), seed: int = 0) -> BeliefNetwork:
    network = BeliefNetwork()
    draw_he(network, seed, zero=zero)
    return network.requires_grad_(False)


def maps_of(misfits: torch.Tensor, grid: Grid, prior: torch.Tensor | None = None) -> Maps:
    """Maps of patterns at home, with the misfit of 400 lit pixels as noise."""
    count = len(misfits)
    home = torch.zeros(count, 2, dtype=torch.float64)
    if prior is None:
        prior = prior_of(home, home, grid.shifts(), 3.0)
    return Maps(torch.arange(count), home, home, misfits, grid, prior, torch.full((count,), 100.0).double())


def some_misfits(count: int, grid: Grid, seed: int = 0) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    return 120 + 40 * torch.rand(count, grid.side**2, dtype=torch.float64, generator=made)


@pytest.mark.parametrize("grid", [Grid(2, 0.5), Grid(4, 1.0), Grid(11.7, 2.0)])
def test_its_belief_has_the_shape_and_the_limits_of_the_formulas(grid):
    misfits = some_misfits(3, grid)
    misfits[0, : grid.side] = float("inf")
    misfits[1] = float("inf")
    found, formula = network_belief(drawn(), maps_of(misfits, grid)), by_formula(maps_of(misfits, grid))
    assert found.logits.shape == formula.logits.shape and found.logits.dtype == formula.logits.dtype
    assert torch.equal(found.logits.isinf(), formula.logits.isinf())
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(3, dtype=torch.float64))
    assert float(found.decoded("exp")[1].abs().max()) < 1e-12
    assert torch.isfinite(found.decoded("st")).all()


def test_before_training_it_is_the_formula():
    grid = Grid(4, 1.0)
    maps = maps_of(some_misfits(5, grid), grid)
    found = network_belief(drawn(zero=("leave", "sharpness")), maps)
    torch.testing.assert_close(found.probabilities, by_formula(maps).probabilities, rtol=1e-4, atol=1e-7)


def test_shifts_off_the_canvas_are_as_if_the_grid_ended_there():
    small, large = Grid(4, 1.0), Grid(7, 1.0)
    misfits = some_misfits(2, small)
    wide = torch.full((2, 15, 15), float("inf"), dtype=torch.float64)
    wide[:, 3:-3, 3:-3] = misfits.reshape(2, 9, 9)
    prior = maps_of(misfits, small).prior
    ones = torch.ones(2, dtype=torch.float64)
    wide_prior = maps_of(wide.flatten(1), large).prior
    network = drawn()
    one = network(*pictures(misfits, prior, 100 * ones, ones, 4 * ones))
    other = network(*pictures(wide.flatten(1), wide_prior, 100 * ones, ones, 4 * ones))
    torch.testing.assert_close(other[:, 3:-3, 3:-3], one, rtol=1e-4, atol=1e-4)


def test_where_the_grid_is_far_the_belief_moves_with_the_map():
    grid = Grid(12, 1.0)
    flat = torch.zeros(1, grid.side**2, dtype=torch.float64)
    windows = []
    for x, y in ((0, 0), (1, -1), (-1, 1)):
        misfits = torch.full((1, grid.side, grid.side), 300.0, dtype=torch.float64)
        misfits[0, 12 + y, 12 + x] = 120.0
        misfits[0, 12 + y, 13 + x] = 180.0
        logits = network_belief(drawn(), maps_of(misfits.flatten(1), grid, flat)).logits.reshape(25, 25)
        windows.append(logits[10 + y : 15 + y, 10 + x : 15 + x])
    for window in windows[1:]:
        torch.testing.assert_close(window, windows[0], rtol=1e-4, atol=1e-4)
    assert float(windows[0].std()) > 0.1


def test_exp_and_st_differ_and_have_one_gradient_which_reaches_object_and_probe():
    scan, state, _ = true_state(photons=1e5)
    index, grid = torch.arange(12, 18), Grid(3, 1)
    around = scan.positions_xy[index] + 1.2
    state.object = state.object.clone().requires_grad_(True)
    state.probe = state.probe.clone().requires_grad_(True)
    misfits = misfit_maps(scan, state, index, grid, around)
    prior = prior_of(around, around, grid.shifts(), 2.0)
    noise = torch.full((6,), 200.0, dtype=torch.float64)
    belief = network_belief(load_network(), Maps(index, around, around, misfits, grid, prior, noise))
    values, slopes = {}, {}
    for kind in ("exp", "st"):
        values[kind] = belief.decoded(kind)
        weights = torch.arange(12, dtype=torch.float64).reshape(6, 2)
        slopes[kind] = torch.autograd.grad(
            (values[kind] * weights).sum(), [state.object, state.probe], retain_graph=True
        )
    assert float((values["exp"] - values["st"]).detach().abs().max()) > 1e-2
    for one, other in zip(slopes["exp"], slopes["st"], strict=True):
        assert torch.equal(one, other) and torch.isfinite(one).all() and float(one.abs().max()) > 0


def test_its_gradient_is_that_of_finite_differences():
    grid = Grid(3, 1.0)
    maps = maps_of(some_misfits(1, grid), grid)
    network = drawn().double()

    def value(misfits: torch.Tensor) -> torch.Tensor:
        seen = dataclasses.replace(maps, misfits=misfits)
        parts = pictures(misfits, seen.prior, seen.noise, torch.ones(1).double(), 3 * torch.ones(1).double())
        logits = network(*(part.double() for part in parts)).flatten(1)
        return (torch.softmax(logits, 1) @ grid.shifts())[0, 0]

    misfits = maps.misfits.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(value(misfits), [misfits])
    least = int(misfits.argmin())
    place = int(slope.abs().masked_fill(torch.arange(49) == least, 0).argmax())
    move = torch.zeros_like(maps.misfits)
    # the pictures are float32: a long step
    move[0, place] = 1.0
    found = (value(maps.misfits + move) - value(maps.misfits - move)) / 2
    assert float(found) == pytest.approx(float(slope[0, place]), rel=0.05)


def test_files_of_another_network_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"slope": np.ones(3)}, {})
    with pytest.raises(BundleError, match="no weights of the positions network"):
        load_network(path)
