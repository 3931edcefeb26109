"""Fits a warp to one pair of images, in stages: shift, affine, lens, a flow with more and more points, all
together.

A richer warp is accepted only if held-out pixels fit better by more than chance.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ptycho.warp.prepare import Pair
from ptycho.warp.score import Score, hard_failures, score_pair
from ptycho.warp.settings import PairSettings
from ptycho.warp.warp import Warp, identity
from ptycho_torch.warp.field import WarpField
from ptycho_torch.warp.levels import Level, make_levels
from ptycho_torch.warp.losses import View, data_terms, flow_terms, fold_penalty, misfit

#: least area of a cell during a fit
_MARGIN = 0.2
_FIRST_FLOW = 7
_RATE_PX, _LAST_RATE = 0.4, 0.03
_TUNING_PX = 0.1
#: standard errors for more points of an accepted flow: that there is a distortion is settled
_FINER_SURE = 1.0


@dataclass(frozen=True)
class Registered:
    """warp: the fit, or the identity if `score.failures` names a reason. start, score: the score before and
    after. stages: one row each (name, kept, better: standard errors by which held-out pixels fit better).
    seconds: CPU time of this process.
    """

    warp: Warp
    start: Score
    score: Score
    stages: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "warp": self.warp.as_dict(),
            "score_before": self.start.as_dict(),
            "score_after": self.score.as_dict(),
            "stages": self.stages,
        }


def register(
    pair: Pair,
    settings: PairSettings | None = None,
    *,
    seed: int = 0,
    start: Warp | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Registered:
    """Fit a warp of the settings' kind to a pair; the result does not depend on the gauge of the images.

    start: a warp to start from (of a network); held-out pixels compare it with the identity. Deterministic.
    Time: about 3 CPU s for 200 x 200 px, linear in pixels; memory some 30 copies of an image.
    """
    settings = (settings or PairSettings()).check()
    begun = time.process_time()
    before = score_pair(pair, identity(pair.shape))
    fit = _Fit(pair, settings, seed)
    plan = _plan(settings, fit.levels)
    if start is not None and settings.kind != "none" and fit.offer(start):
        plan = [stage for stage in plan if stage[1] == settings.kind]
    for number, stage in enumerate(plan):
        if progress is not None:
            progress(number, len(plan))
        if not fit.stage(*stage) and stage[0].startswith("flow"):
            break
    if fit.changed:
        fit.tune()
    if progress is not None:
        progress(len(plan), len(plan))
    warp = fit.best.warp()
    score = score_pair(pair, warp)
    if score.failures:
        warp = identity(pair.shape)
    return Registered(warp, before, score, fit.rows, time.process_time() - begun)


def _plan(settings: PairSettings, levels: dict[int, Level]) -> list[tuple[str, str, int | None, list[int]]]:
    """Stages: name, kind, control points, levels from the coarsest on."""
    coarse = sorted(levels, reverse=True)
    if settings.kind == "none":
        return []
    plan: list[tuple[str, str, int | None, list[int]]] = [("shift", "shift", None, coarse[-2:])]
    plan.append(("affine", "affine", None, coarse))
    if settings.kind in ("lens", "flow"):
        plan.append(("lens", "lens", None, coarse[-2:]))
    if settings.kind == "flow":
        points, fewest = [settings.flow_points], _FIRST_FLOW
        while points[0] > fewest:
            points.insert(0, max(fewest, (points[0] - 3) // 2 + 3))
        plan += [
            (f"flow {count}", "flow", count, coarse[-3:] if count == points[0] else coarse[-2:])
            for count in points
        ]
    return plan


class _Fit:
    """The best warp so far and the data that judge it."""

    def __init__(self, pair: Pair, settings: PairSettings, seed: int) -> None:
        self.pair, self.settings = pair, settings
        self.levels = make_levels(pair, settings, seed)
        self.weights = settings.all_weights()
        self.best = WarpField(pair.shape, settings.max_flow_px)
        self.rows: list[dict[str, Any]] = []
        self.changed = False
        seen = float(self.levels[1].weight.sum())
        #: independent pixels, for the weight of the priors
        self.pixels = seen / max(1.0, 4 * math.pi * settings.smooth_px**2)

    def stage(self, name: str, kind: str, points: int | None, levels: list[int]) -> bool:
        """Fit a richer warp from the best one; keep it if held-out pixels fit better."""
        tried = copy.deepcopy(self.best)
        tried.use(kind)
        if points is not None:
            tried.refine(points)
        for factor in levels:
            self.descend(tried, self.levels[factor], _RATE_PX * factor, held=True)
        return self.judge(name, tried)

    def offer(self, warp: Warp) -> bool:
        """Use a given warp, within the allowed kind, if it is better than none."""
        tried = copy.deepcopy(self.best)
        tried.set(warp)
        tried.use(self.settings.kind)
        if self.settings.kind != "flow":
            tried.head = None
        return self.judge("given", tried)

    def judge(self, name: str, tried: WarpField) -> bool:
        """Whether held-out pixels fit better by more than chance; if so, `tried` becomes the best warp."""
        better = self.gain(self.best, tried)
        failures = hard_failures(self.pair, tried.warp())
        finer = self.best.head is not None and tried.head is not None
        needed = min(_FINER_SURE, self.settings.significance) if finer else self.settings.significance
        kept = better > needed and not failures
        self.rows.append({"stage": name, "kept": kept, "better": better, "failures": list(failures)})
        if kept:
            self.best, self.changed = tried, True
        return kept

    def tune(self) -> None:
        """Fit all numbers to all pixels in short steps; kept unless it causes a hard failure."""
        tried = copy.deepcopy(self.best)
        self.descend(tried, self.levels[1], _TUNING_PX, held=False)
        failures = hard_failures(self.pair, tried.warp())
        self.rows.append(
            {"stage": "tuning", "kept": not failures, "better": None, "failures": list(failures)}
        )
        if not failures:
            self.best = tried

    def gain(self, old: WarpField, new: WarpField) -> float:
        """Standard errors by which the held-out squares fit better under `new`."""
        level = self.levels[1]
        with torch.no_grad():
            views = [level.view(warp, self.settings, held=True) for warp in (old, new)]
            noise = noise_of(views[1])
            weight = torch.minimum(
                *(level.view(warp, self.settings, held=False).weight for warp in (old, new))
            )
            errors = [misfit(_scaled(view, noise)) for view in views]
            judged = level.judges & (weight > 0)
            change = ((errors[0] - errors[1]) * weight)[judged]
            number = level.block[judged]
            sums = torch.zeros(int(level.block.max()) + 1, dtype=torch.float64).index_add_(
                0, number, change.double()
            )
            sums = sums[torch.unique(number)]
            if len(sums) < 4:
                return 0.0
            return float(sums.mean() / (sums.std() / math.sqrt(len(sums))).clamp_min(1e-30))

    def descend(self, warp: WarpField, level: Level, rate_px: float, *, held: bool) -> None:
        """Steps of Adam with a learning rate that falls as a quarter of a cosine, in place."""
        moving = [warp.raw] if warp.head is None else [warp.raw, warp.head]
        optimizer = torch.optim.Adam(moving, lr=rate_px, betas=(0.9, 0.98))
        with torch.no_grad():
            noise = noise_of(level.view(warp, self.settings, held=held))
        for step in range(self.settings.steps):
            course = math.cos(0.5 * math.pi * step / self.settings.steps)
            optimizer.param_groups[0]["lr"] = rate_px * max(course, _LAST_RATE)
            optimizer.zero_grad(set_to_none=True)
            loss = self.loss(warp, _scaled(level.view(warp, self.settings, held=held), noise))
            loss.backward()
            optimizer.step()

    def loss(self, warp: WarpField, view: View) -> Tensor:
        """The declared terms, each with its weight."""
        points = None if warp.head is None else warp.points()
        spacing = max(warp.shape) / max(1, 0 if points is None else max(points.shape[1:]) - 3)
        terms = data_terms(view, self.weights)
        terms |= flow_terms(points, spacing, warp.max_flow_px, self.pixels)
        terms["fold"] = fold_penalty(view.field, _MARGIN)
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()


def noise_of(view: View) -> float:
    """Standard error of a pixel's difference, of either part, from the median: misfit counts as noise."""
    seen = view.weight > 0
    error = ((view.fixed - view.moved).abs() * view.weight.sqrt())[seen]
    return max(
        float(error.median()) / math.sqrt(2 * math.log(2)), 1e-6 * float(view.fixed.abs().mean()) + 1e-30
    )


def _scaled(view: View, noise: float) -> View:
    return View(view.fixed / noise, view.moved / noise, view.weight, view.field)
