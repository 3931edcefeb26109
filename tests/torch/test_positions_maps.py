"""The misfit maps that the positions network learns from, and the opening of the network that ships."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ptycho.positions.scenes import draw_scene
from ptycho.positions.settings import PositionsData
from ptycho_torch.positions.pairs import collect, joined, prior_map, shifts_of
from ptycho_torch.positions.task import examples
from ptycho_torch.refine.beliefs import load_network


@pytest.fixture(scope="module")
def pairs():
    data = PositionsData(sides=(32,), n_positions=(25, 25), photons=(1e5, 1e5), errors_px=(6, 6), drifts=0)
    return collect(draw_scene(data, (77, 0)), 0)


def test_maps_are_turned_with_their_shifts(pairs) -> None:
    """The misfit at the truth, the prior and the example of a turned map are those of the map."""
    for turn in range(8):
        moved = pairs.turned(turn)
        shifts, before = shifts_of(moved), shifts_of(pairs)
        for k in (0, len(pairs) // 2):
            sought = (before[k] - pairs.true_xy[k]).norm(dim=1).argmin()
            found = (shifts[k] - moved.true_xy[k]).norm(dim=1).argmin()
            assert moved.misfits[k].flatten()[found] == pairs.misfits[k].flatten()[sought]
            torch.testing.assert_close(prior_map(moved)[k, found], prior_map(pairs)[k, sought])


def test_maps_of_several_grids_are_joined_without_a_change(pairs) -> None:
    part = pairs.at(torch.tensor([0, 1]))  # of the first sweep that decodes
    small = dataclasses.replace(part, misfits=part.misfits[:, 2:-2, 2:-2], radius_px=2 * part.step_px)
    both = joined([part, small])
    assert torch.equal(both.misfits[:2], part.misfits) and both.misfits[2:, 2:-2, 2:-2].isfinite().any()
    assert both.misfits[2:, :2].isinf().all()
    made = examples(both)
    assert float(made["wanted"][made["dark"]].sum()) == 0
    torch.testing.assert_close(made["wanted"].sum(1), torch.ones(4))


def test_loading_what_ships_draws_nothing_and_takes_little() -> None:
    load_network.cache_clear()
    before = torch.get_rng_state()
    network = load_network()
    assert torch.equal(before, torch.get_rng_state())
    assert sum(value.numel() for value in network.parameters()) < 12_000
