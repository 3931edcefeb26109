"""Positions wrong by several pixels: random trials in a shrinking circle, and patterns that are lost.

The gradient of a position is valid only within the size of the finest feature under the probe. A. Maiden, M.
Humphry, M. Sarahan, B.
Kraus, J. Rodenburg, Ultramicroscopy 120, 64 (2012) try random positions within a shrinking radius and keep a
position that lowers the misfit of its pattern. A pattern in a wrong minimum far away damages the object
there, and the damaged object keeps the pattern there. Here such patterns are detected, left out of the object
update, and searched for further away.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.noise import misfit
from ptycho_torch.refine.portions import portions
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.shared import of_all, own
from ptycho_torch.refine.state import RefineState
from ptycho_torch.refine.unknowns import affine_part, clipped, position_step

_NEAR, _WIDE = 6, 24  # trials of a pattern in a sweep: within the radius, and further away
_ELSEWHERE = 63
_SURER = 5.0  # nats by which another position must be likelier
_LAST_RADIUS_PX = 0.1
_REACH = 1.5  # search distance for a lost pattern, in first radii
_WIDE_EVERY = 5
_FIRST = 2  # sweeps before the object is good enough for trials
_LOST_FROM = 0.35  # share of the search after which lost patterns do not update the object
_LOST_AFTER = 6.0  # threshold of the excess over the median, in median deviations


def radius_px(first_px: float, epoch: int, sweeps: int) -> float:
    """Radius of sweep `epoch` (0-based) of a search of `sweeps`: geometric, from `first_px` to 0.1 px."""
    return float(first_px * (min(_LAST_RADIUS_PX, first_px) / first_px) ** (epoch / max(sweeps, 1)))


def patterns_to_update(state: RefineState, index: Tensor, epoch: int, sweeps: int) -> Tensor:
    """The patterns of a batch (B,) that may change object and probe now."""
    if state.lost is None or epoch < _LOST_FROM * sweeps:
        return index
    return index[~state.lost[index]]


def search_batch(
    scan: RefineScan,
    state: RefineState,
    index: Tensor,
    first_px: float,
    epoch: int,
    sweeps: int,
    rng: np.random.Generator,
) -> None:
    """Trials for the patterns `index` (B,), in place: 6 forward models each, 24 every fifth sweep."""
    if epoch < _FIRST or not len(index):
        return
    wide = epoch >= _WIDE_EVERY and epoch < 0.75 * sweeps and epoch % _WIDE_EVERY == 0
    if wide:
        _try(scan, state, index, _REACH * first_px, _WIDE, rng)
    else:
        _try(scan, state, index, radius_px(first_px, epoch, sweeps), _NEAR, rng)


def find_lost(
    scan: RefineScan, state: RefineState, first_px: float, epoch: int, rng: np.random.Generator
) -> None:
    """After a sweep: search far and near for the patterns marked as lost, then mark again, in place."""
    if epoch < 2 * _WIDE_EVERY - 1:
        return
    if state.lost is not None and bool(state.lost.any()):
        # around the nominal position: a random walk from a wrong position would lead further away
        moves = state.positions_xy - scan.positions_xy
        home = scan.positions_xy + affine_part(scan.positions_xy, moves, ~state.lost)
        for part in torch.nonzero(state.lost)[:, 0].split(16):
            _try(scan, state, part, _REACH * first_px, _WIDE, rng, home[part])
            _try(scan, state, part, 0.7, _NEAR, rng)
    _mark(scan, state)


def _mark(scan: RefineScan, state: RefineState) -> None:
    """Mark patterns with an outlying misfit as lost, in place."""
    every = torch.arange(scan.size, device=scan.counts.device)
    wrong = torch.cat(
        [
            excess(scan.counts[part], predict(scan, state, part).intensity, scan.good)
            for part in portions(own(scan, every), 64, state.probe)
        ]
    )
    wrong = of_all(scan, every, wrong)
    deviation = (wrong - wrong.median()).abs().median()
    state.lost = wrong > wrong.median() + _LOST_AFTER * deviation


def relocate(scan: RefineScan, state: RefineState, first_px: float, rng: np.random.Generator) -> None:
    """Between joint steps, in place: test whether another position near the nominal one explains a pattern
    better.

    A few patterns far from their true positions distort the object around them, and so the positions of their
    neighbours. For each pattern the best of 64 positions within 1.5 `first_px` of the nominal one is refined
    by three separate steps, and taken if its likelihood is higher. Cost: about 75 forward models a pattern.
    """
    trusted = None if state.lost is None else ~state.lost
    home = scan.positions_xy + affine_part(scan.positions_xy, state.positions_xy - scan.positions_xy, trusted)
    there = replace(state, positions_xy=state.positions_xy.clone())
    for part in torch.arange(scan.size, device=home.device).split(16):
        _try(scan, there, part, _REACH * first_px, _ELSEWHERE, rng, home[part], stay=False)
        for _ in range(3):
            step = position_step(scan, there, predict(scan, there, own(scan, part)))[0]
            step = clipped(of_all(scan, part, step), 0.7)
            there.positions_xy[part] = clip_to_canvas(scan, state, there.positions_xy[part] + step)
        better = surprise(scan, there, part) < surprise(scan, state, part) - _SURER
        state.positions_xy[part] = torch.where(
            better[:, None], there.positions_xy[part], state.positions_xy[part]
        )
    _mark(scan, state)


def surprise(scan: RefineScan, state: RefineState, index: Tensor) -> Tensor:
    """Minus the log-likelihood of each pattern of `index` up to a constant, nats of photons, (B,) float64."""
    floor = 1e-2 * scan.mean_counts / scan.n**2
    mine = own(scan, index)
    model, counts = predict(scan, state, mine).intensity, scan.counts[mine]
    lost = model - (counts + floor) * torch.log(model + floor)
    lost = lost if scan.good is None else lost * scan.good
    return of_all(scan, index, lost.sum((-2, -1), dtype=torch.float64))


def excess(counts: Tensor, model: Tensor, good: Tensor | None = None) -> Tensor:
    """Misfit of each pattern beyond the photons' noise, (B,) float64: sum((n - I)^2 - I) / sum(n^2).

    Its mean is zero for a correct model at any dose, so few photons do not look like a wrong position.
    """
    away = (counts - model).square() - model
    away = away if good is None else away * good
    return away.sum((-2, -1)).to(torch.float64) / counts.square().sum((-2, -1)).to(torch.float64).clamp_min(
        1e-30
    )


def _try(
    scan: RefineScan,
    state: RefineState,
    index: Tensor,
    radius: float,
    trials: int,
    rng: np.random.Generator,
    around_xy: Tensor | None = None,
    stay: bool = True,
) -> None:
    """Move each pattern to the best of `trials` positions within `radius` px of `around_xy` (B, 2), or of its
    present position. With `stay` it moves only if that lowers its misfit.
    """
    count = len(index)
    angle = rng.uniform(0, 2 * math.pi, (count, 1)) + 2 * math.pi * np.arange(trials) / trials
    length = radius * np.sqrt(rng.uniform(0, 1, (count, trials)))
    moves = torch.from_numpy(np.stack([length * np.cos(angle), length * np.sin(angle)], -1))
    moves = moves.to(state.positions_xy)
    now = state.positions_xy[index, None]
    centre = now if around_xy is None else around_xy[:, None]
    places = torch.cat([now if stay else centre, centre + moves], 1)
    # every process draws for all patterns, so the draw does not depend on the distribution of work
    mine = own(scan, torch.arange(count, device=index.device))
    places = clip_to_canvas(scan, state, places[mine].reshape(-1, 2))
    repeated = index[mine].repeat_interleave(trials + 1)
    there = replace(
        state,
        positions_xy=places,
        intensity=None if state.intensity is None else state.intensity[repeated],
    )
    errors = [
        misfit(scan.counts[repeated[part]], predict(scan, there, part).intensity, scan.good)
        for part in portions(torch.arange(len(repeated), device=index.device), 128, state.probe)
    ]
    best = torch.cat(errors).reshape(len(mine), trials + 1).argmin(1)
    rows = torch.arange(len(mine), device=index.device)
    state.positions_xy[index] = of_all(scan, index, places.reshape(len(mine), trials + 1, 2)[rows, best])


def clip_to_canvas(scan: RefineScan, state: RefineState, places_xy: Tensor) -> Tensor:
    """Positions (K, 2), clipped so that their windows lie on the canvas."""
    low = torch.tensor(state.canvas.origin_xy, dtype=places_xy.dtype, device=places_xy.device) + scan.n // 2
    size = torch.tensor(state.canvas.shape[::-1], dtype=places_xy.dtype, device=places_xy.device) - scan.n
    return torch.minimum(torch.maximum(places_xy, low), low + size)
