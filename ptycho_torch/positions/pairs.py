"""Misfit maps with the shift that each should have led to, collected from searches of simulated scans."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from ptycho.positions.scenes import Scene
from ptycho_torch.refine.beliefs import Maps, by_formula
from ptycho_torch.refine.decode import Belief, Grid, prior_of
from ptycho_torch.refine.decode_sweep import LIKELY, decodes
from ptycho_torch.refine.initial import start_state
from ptycho_torch.refine.loop import iterate
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.scan import make_scan
from ptycho_torch.refine.schedule import Schedule
from ptycho_torch.refine.state import RefineState

_NEAR = 1 / 6  # deviation of the neighbourhood that makes the object around a pattern, in sides of a pattern


@dataclass(frozen=True)
class Pairs:
    """B maps, padded to one side S with shifts off the canvas, and their true shifts.

    misfits (B, S, S) float32, infinite off the canvas; noise (B,), step_px (B,), radius_px (B,), deviation_px
    (B,) of the prior, home_xy (B, 2) its centre, true_xy (B, 2) the true shift, px; all float32.
    """

    misfits: Tensor
    noise: Tensor
    step_px: Tensor
    radius_px: Tensor
    deviation_px: Tensor
    home_xy: Tensor
    true_xy: Tensor

    def __len__(self) -> int:
        return len(self.noise)

    def at(self, index: Tensor) -> Pairs:
        """Some of the pairs."""
        return Pairs(*(getattr(self, one.name)[index] for one in fields(self)))

    def turned(self, turn: int) -> Pairs:
        """Mirrored and turned, as the scan would be: turn 0 to 7; bit 0 swaps x and y, 1 and 2 mirror."""
        misfits, home, true = self.misfits, self.home_xy, self.true_xy
        if turn & 1:
            misfits, home, true = misfits.mT, home.flip(-1), true.flip(-1)
        signs = torch.tensor([-1.0 if turn & 2 else 1.0, -1.0 if turn & 4 else 1.0])
        axes = [axis for bit, axis in ((2, -1), (4, -2)) if turn & bit]
        return replace(self, misfits=misfits.flip(axes), home_xy=home * signs, true_xy=true * signs)


def joined(parts: Iterable[Pairs]) -> Pairs:
    """All pairs of some collections, padded to the largest side."""
    parts = list(parts)
    side = max(part.misfits.shape[-1] for part in parts)
    padded = [replace(part, misfits=_padded(part.misfits, side)) for part in parts]
    return Pairs(*(torch.cat([getattr(part, one.name) for part in padded]) for one in fields(Pairs)))


def _padded(misfits: Tensor, side: int) -> Tensor:
    pad = (side - misfits.shape[-1]) // 2
    return torch.nn.functional.pad(misfits, [pad] * 4, value=float("inf"))


def shifts_of(pairs: Pairs) -> Tensor:
    """The shifts (B, S^2, 2) px of every map, x fastest."""
    side = pairs.misfits.shape[-1]
    return pairs.step_px[:, None, None] * Grid(side // 2, 1.0).shifts(pairs.step_px.device).float()


def prior_map(pairs: Pairs) -> Tensor:
    """Log weights (B, S^2) of the prior of every map."""
    away = (shifts_of(pairs) - pairs.home_xy[:, None]).square().sum(-1)
    return -away / (2 * pairs.deviation_px[:, None].square())


@dataclass
class Collector:
    """A way to believe that keeps every map that it is asked about; with a hint about the truth it decides
    better than the formula, so that maps of later stages of a search are seen too.
    """

    true_xy: Tensor
    help_px: float
    first_px: float
    near_px: float
    state: RefineState
    found: list[Pairs] = field(default_factory=list)

    def __call__(self, maps: Maps) -> Belief:
        true = local_shifts(self.true_xy, self.state, maps.index, self.near_px)
        self.found.append(self._kept(maps, true))
        belief = by_formula(maps)
        if not np.isfinite(self.help_px):
            return belief
        hint = prior_of(torch.zeros_like(true), true, belief.shifts, self.help_px)
        return replace(belief, logits=belief.logits + hint)

    def _kept(self, maps: Maps, true: Tensor) -> Pairs:
        count, side = len(true), maps.grid.side
        one = torch.ones(count)
        return Pairs(
            misfits=maps.misfits.reshape(count, side, side).float(),
            noise=maps.noise.float(),
            step_px=maps.grid.step_px * one,
            radius_px=maps.grid.radius_px * one,
            deviation_px=LIKELY * self.first_px * one,
            home_xy=(maps.home_xy - maps.around_xy).float(),
            true_xy=true.float(),
        )


def local_shifts(true_xy: Tensor, state: RefineState, index: Tensor, near_px: float) -> Tensor:
    """Shift (B, 2) px that takes each pattern of `index` (B,) to its true place within the present object.

    That object is where the patterns around have put it: a common error of patterns whose true places lie
    near, weighted by a Gaussian of deviation near_px, is one that no map can show, and is taken off.
    """
    away = true_xy - state.positions_xy
    near = (true_xy[index][:, None] - true_xy).square().sum(-1)
    weights = torch.exp(-near / (2 * near_px**2))
    weights[torch.arange(len(index)), index] = 0
    if state.lost is not None:
        weights = weights * ~state.lost  # they are kept out of the object
    whole = weights.sum(1, keepdim=True).clamp_min(1e-9)
    return away[index] - weights @ away / whole


def collect(scene: Scene, seed: int) -> Pairs:
    """All maps that a search of one scan decodes: about a quarter of the patterns in each of 26 sweeps.

    The engine's own search with its defaults, ended where it stops decoding. Time: about 5 CPU s for 64
    patterns of 64 x 64.
    """
    scan = make_scan(scene.counts, scene.given_xy, scene.probe, unit="counts")
    options = RefineOptions(
        positions="free", position_search_px=scene.size_px, position_belief="formula", prior="none"
    ).check()
    state = start_state(scan, margin_px=10 + round(2 * scene.size_px))
    true = torch.from_numpy(scene.true_xy)
    collector = Collector(true, scene.help_px, scene.size_px, _NEAR * scan.n, state)
    sweeps = Schedule(options).searches()
    last = max(epoch for epoch in range(sweeps) if decodes(epoch, sweeps))
    for now in iterate(scan, state, seed=seed, options=options, believe=collector):
        if now.epoch > last:
            break
    return joined(collector.found)
