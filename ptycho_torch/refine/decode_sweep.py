"""Positions wrong by many pixels: a search that excludes a part of the scan from a sweep and then decodes it.

A pattern always agrees with an object that it has updated itself, even at a wrong position. So a quarter of
the patterns rests (is left out) in each sweep and is decoded afterwards, with the object of the other
patterns; four sweeps are a round. The grid shrinks from round to round. The object becomes sharper, and so do
the distributions (decode.py). The last quarter of the sweeps tries random positions in a small circle
(search.py), without a grid.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.refine.beliefs import NUMBERS, Believe, Maps, by_formula
from ptycho_torch.refine.decode import Belief, Grid, misfit_maps, noise_of, prior_of
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.search import clip_to_canvas
from ptycho_torch.refine.shared import of_all, own
from ptycho_torch.refine.state import RefineState
from ptycho_torch.refine.unknowns import affine_part

_FIRST = 4  # sweeps before the object is good enough to decode shifts
_PARTS = 4  # parts of the scan; each part rests and is decoded once in a round
_UNTIL = 0.75  # share of the search after which random positions are tried
_REACH = 1.3  # radius of the first grid, in sizes of the error
_LAST_RADIUS_PX = 2.0
LIKELY = 0.7  # deviation of the prior on each axis, in sizes of the error
_TOGETHER = 16
_UNSURE_PX = 1.0


def decodes(epoch: int, sweeps: int) -> bool:
    """Whether sweep `epoch` (0-based) of a search of `sweeps` decodes."""
    return _FIRST <= epoch < _UNTIL * sweeps


def resting(count: int, epoch: int, sweeps: int, seed: int) -> Tensor | None:
    """The patterns, of `count`, that rest in a sweep and are decoded after it; None where none are.

    Every pattern is among them once in four sweeps; depends on (seed, sweep) only.
    """
    if not decodes(epoch, sweeps):
        return None
    turn, part = divmod(epoch - _FIRST, _PARTS)
    order = torch.from_numpy(np.random.default_rng([seed, turn, 2]).permutation(count))
    return order.tensor_split(_PARTS)[part]


def grid_of(first_px: float, epoch: int, sweeps: int) -> Grid:
    """The grid of a sweep: its radius falls from 1.3 `first_px` to 2 px, slowly at first, its step from 2 to
    1/2 px.

    >>> [round(grid_of(9.0, epoch, 40).radius_px, 1) for epoch in (4, 12, 20, 28)]
    [11.7, 8.8, 3.8, 2.0]
    """
    turns = max(int((_UNTIL * sweeps - _FIRST) // _PARTS) - 1, 1)
    turn = min((epoch - _FIRST) // _PARTS, turns)
    start = max(_REACH * first_px, _LAST_RADIUS_PX)
    radius = start * (_LAST_RADIUS_PX / start) ** ((turn / turns) ** 2)
    step = 2.0 if radius > 8 else 1.0 if radius > 2.5 else 0.5
    return Grid(radius, step)


def home_of(scan: RefineScan, state: RefineState) -> Tensor:
    """The nominal positions (M, 2) px, corrected by the affine part of the position updates."""
    trusted = None if state.lost is None else ~state.lost
    moves = state.positions_xy - scan.positions_xy
    return scan.positions_xy + affine_part(scan.positions_xy, moves, trusted)


def decode_patterns(
    scan: RefineScan,
    state: RefineState,
    index: Tensor,
    grid: Grid,
    first_px: float,
    kind: str,
    believe: Believe = by_formula,
) -> None:
    """Move the patterns `index` (B,) by the shifts decoded on `grid`, in place.

    first_px: size of the errors, of the prior around the given place. believe: from maps to distributions.
    Time: side^2 forward models a pattern. Memory: 128 exit waves, and the maps of 16 patterns.
    """
    home = home_of(scan, state)
    for part in index.split(_TOGETHER):
        mine = own(scan, part)
        around = state.positions_xy[mine]
        prior = prior_of(around, home[mine], grid.shifts(around.device), LIKELY * first_px)
        misfits = misfit_maps(scan, state, mine, grid, around)
        noise = noise_of(scan.of(mine), scan.good)
        belief = believe(Maps(mine, around, home[mine], misfits, grid, prior, noise))
        places = clip_to_canvas(scan, state, around + belief.decoded(kind))
        state.positions_xy[part] = of_all(scan, part, places)


def unsure(scan: RefineScan, state: RefineState, first_px: float) -> Tensor:
    """The patterns (M,) bool with an uncertain position: another position explains them as well or better.

    Their distribution around the estimated position, on whole px up to the size of the errors (2 to 6 px), is
    wider than 1 px, or its mean is more than 1 px away. Here the model is trusted: only misfit beyond photon
    noise makes a distribution wider. Time: up to 169 forward models a pattern.
    """
    grid = Grid(min(max(float(round(first_px)), 2.0), 6.0), 1.0)
    far = torch.zeros(scan.size, dtype=torch.float64, device=state.positions_xy.device)
    for part in torch.arange(scan.size, device=far.device).split(_TOGETHER):
        mine = own(scan, part)
        noise = noise_of(predict(scan, state, mine).intensity, scan.good)
        maps = misfit_maps(scan, state, mine, grid, state.positions_xy[mine])
        belief = Belief.of(maps, grid, NUMBERS, noise=noise)
        far[part] = of_all(scan, part, torch.maximum(belief.width_px(), belief.mean().norm(dim=1)))
    return far > _UNSURE_PX
