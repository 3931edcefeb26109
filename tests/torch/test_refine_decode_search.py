"""The search that decodes: who rests when, what is found, what is doubted, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_refine_positions import left, photographs, true_state

from ptycho.errors import ConfigError
from ptycho_torch.refine import make_scan, reconstruct
from ptycho_torch.refine.decode import Grid
from ptycho_torch.refine.decode_sweep import decode_patterns, grid_of, resting, unsure
from ptycho_torch.refine.options import RefineOptions


def test_every_pattern_rests_once_in_four_sweeps_and_none_outside_the_search():
    for turn in (4, 8):
        rests = [resting(37, epoch, 40, seed=3) for epoch in range(turn, turn + 4)]
        assert sorted(torch.cat(rests).tolist()) == list(range(37))
    assert resting(37, 3, 40, 3) is None and resting(37, 30, 40, 3) is None
    assert torch.equal(resting(37, 5, 40, 3), resting(37, 5, 40, 3))
    assert not torch.equal(resting(37, 5, 40, 3), resting(37, 5, 40, 4))


def test_the_grid_shrinks_and_gets_finer():
    grids = [grid_of(9.0, epoch, 40) for epoch in range(4, 30)]
    radii = [grid.radius_px for grid in grids]
    assert radii == sorted(radii, reverse=True) and radii[0] > 9 and radii[-1] == pytest.approx(2)
    assert [grids[0].step_px, grids[-1].step_px] == [2.0, 0.5]
    assert max(grid.side for grid in grids) <= 19  # the cost of a sweep, in forward models a pattern, squared
    assert grid_of(0.5, 4, 40).radius_px == 2.0


@pytest.mark.parametrize("kind", ["exp", "st"])
def test_places_are_found_on_the_right_object(kind):
    scan, state = true_state(photons=1e6)
    right = state.positions_xy.clone()
    index = torch.arange(30, 70)
    errors = torch.from_numpy(np.random.default_rng(1).uniform(-2, 2, (len(index), 2)))
    state.positions_xy[index] += errors
    decode_patterns(scan, state, index, Grid(4, 1), 3.0, kind)
    away = (state.positions_xy - right).norm(dim=1)
    assert float(away[index].median()) < 0.5 and float(errors.norm(dim=1).median()) > 1.4
    others = torch.ones(scan.size, dtype=torch.bool)
    others[index] = False
    assert float(away[others].max()) == 0


def test_a_pattern_in_a_wrong_place_is_doubted_and_a_right_one_is_not():
    scan, state = true_state(photons=1e5)
    wrong = torch.tensor([33, 44, 55, 66])
    state.positions_xy[wrong] += torch.tensor([[3.0, 0.0], [0.0, -3.0], [2.0, 2.0], [-3.0, 1.0]])
    doubted = unsure(scan, state, 3.0)
    assert doubted.dtype == torch.bool and doubted[wrong].all()
    assert int(doubted.sum()) <= len(wrong) + 2


def test_errors_of_three_pixels_are_found_and_as_well_as_by_trials_at_random():
    # where trials fail and this does not is measured in benchmarks/position_decode.py: it takes minutes
    counts, positions, guess, _, _ = photographs(1e6)
    wrong = positions + np.random.default_rng(3).normal(0, 2.2, positions.shape)
    ends = {}
    for kind in ("none", "exp"):
        made = reconstruct(
            make_scan(counts, wrong, guess),
            positions="free", position_search_px=4.0, position_decode=kind, epochs=48,
        )  # fmt: skip
        ends[kind] = left(made.positions_xy, positions)
        assert (made.unsure is None) == (kind == "none")
    assert ends["exp"] < 0.03 * left(wrong, positions) and ends["exp"] < 1.2 * ends["none"]


def test_how_to_decode_is_checked_and_asked_for_only_with_a_size():
    with pytest.raises(ConfigError, match="position_decode='soft' is unknown; use 'auto', 'exp', 'st'"):
        RefineOptions(position_decode="soft").check()
    with pytest.raises(ConfigError, match="position_decode='st' needs position_search_px"):
        RefineOptions(positions="free", position_decode="st").check()
    assert RefineOptions().decoder == "none"
    searched = {"positions": "free", "position_search_px": 3.0}
    assert RefineOptions(**searched).decoder == "exp"
    assert RefineOptions(**searched, position_decode="none").decoder == "none"


def test_the_belief_is_checked_and_asked_for_only_where_it_decodes():
    with pytest.raises(ConfigError, match="position_belief='soft' is unknown; use 'auto', 'network'"):
        RefineOptions(position_belief="soft").check()
    searched = {"positions": "free", "position_search_px": 3.0}
    for given in ({}, {**searched, "position_decode": "none"}):
        with pytest.raises(ConfigError, match="position_belief='network' needs position_search_px"):
            RefineOptions(**given, position_belief="network").check()
        assert RefineOptions(**given).check().believer(1e6) == "formula"
    for belief in ("network", "formula"):
        assert RefineOptions(**searched, position_belief=belief).check().believer(1e4) == belief
    assert [RefineOptions(**searched).believer(counts) for counts in (1e4, 1e5)] == ["formula", "network"]
