"""After a reconstruction: do patterns that a short one did not see agree, and if not, why?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.evaluation.anchors import mean_pattern_r, poisson_noise_r
from ptycho.evaluation.dispersion import measure_dispersion, quanta_per_count
from ptycho.report.verdict import PREDICTED, HeldOut, explained_share
from ptycho.workflows.near_field import near_field
from ptycho.workflows.orientation import Orientation, find_orientation
from ptycho.workflows.trials import Attempt, attempt, take_part

_FEWEST = 20
_PATTERNS, _SWEEPS = 100, 15
#: share that must be predicted, and R over that of noise, under which the axes are tried
_CLEAR, _OVER_NOISE = 0.9, 1.1
_SEARCH_PATTERNS, _SEARCH_SWEEPS = 60, 5
_CONTRAST_SIGMA = 5.0


class SecondLook(NamedTuple):
    """Numbers for metrics.json, and sentences on what may be wrong."""

    metrics: dict[str, float]
    hints: list[str]


def second_look(raw: Any, probe: NDArray[Any], *, intensity: bool = False, seed: int = 0) -> SecondLook:
    """Reconstruct a part of the scan anew with a fifth of it held out; search the axes where that fails.

    probe (P,N,N): the reconstruction's own, to start from. Time: 100 patterns in 15 sweeps, a second or two
    at
    N = 64, and ten times that where the prediction fails. A scan of few patterns is not looked at.
    """
    if raw.n_positions < _FEWEST:
        return SecondLook({}, [])
    part = take_part(raw, _PATTERNS, seed)
    if probe.shape[-1] != part.probe.shape[-1]:
        probe = part.probe
    known = raw.diffraction_unit == "counts"
    tried = attempt(part, probe=probe, sweeps=_SWEEPS, counts_known=known, intensity=intensity, seed=seed)
    held = held_out_of(tried)
    metrics = {"held_out_r": held.r, "held_out_flat": held.flat, "held_out_sigma": held.sigma}
    if held.noise is not None:
        metrics["held_out_noise"] = held.noise
    hints = []
    if held.share < _CLEAR and held.r > _OVER_NOISE * (held.noise or 0.0):
        found = find_orientation(
            raw,
            n_patterns=_SEARCH_PATTERNS,
            sweeps=_SEARCH_SWEEPS,
            seed=seed,
            with_scale=held.share < PREDICTED,
            with_pairing=True,
        )
        hints = list(_hints(raw, found, held, intensity, seed))
        others = []
        if found.name != "as_given" and found.sure != "cannot tell":
            others.append(found.r_held[found.name])
        if found.pairing is not None and found.pairing.words:
            others.append(found.pairing.r_held)
        if others:
            metrics["held_out_r_elsewhere"] = min(others)
            metrics["held_out_r_as_given"] = found.r_held["as_given"]
    if held.share >= PREDICTED and not raw.probe_made:
        near = near_field(raw, seed=seed)
        if near.sigma > -math.inf:
            metrics["near_field_sigma"] = near.sigma
    return SecondLook(metrics, hints)


def look_where_wrong(raw: Any, r: float | None, probe: NDArray[Any], *, seed: int = 0) -> SecondLook:
    """A second look where an image that a network made looks wrong; nothing where it explains the patterns.

    The network was not fitted to this scan's positions, so that an R (`r`, None: not known) which explains
    half of the structure or more is an honest one. Time: 100 patterns read; `second_look` where R is larger.
    """
    if r is None or raw.n_positions < _FEWEST:
        return SecondLook({}, [])
    counts = take_part(raw, _PATTERNS, seed).counts
    usual = counts.mean(axis=0, dtype=np.float64)
    flat = mean_pattern_r(np.sqrt(counts.astype(np.float64)), np.sqrt(usual))
    known = raw.diffraction_unit == "counts"
    per_count = quanta_per_count(measure_dispersion(counts, raw.bad_pixels), known)
    noise = None if per_count is None else poisson_noise_r(usual / per_count)
    if explained_share(r, noise, flat) >= PREDICTED:
        return SecondLook({}, [])
    return second_look(raw, probe, seed=seed)


def held_out_of(tried: Attempt) -> HeldOut:
    """What an attempt says, as the verdict takes it."""
    lead = tried.flat_misfit - tried.misfit
    spread = float(lead.std(ddof=1)) / np.sqrt(len(lead)) if len(lead) > 2 else float("inf")
    sigma = float(lead.mean()) / spread if 0 < spread < float("inf") else 0.0
    return HeldOut(tried.r_held, tried.flat, tried.noise, sigma)


def _hints(raw: Any, found: Orientation, held: HeldOut, intensity: bool, seed: int) -> Iterator[str]:
    if found.pairing is not None and found.pairing.words:
        yield found.pairing.words
    if found.sure != "cannot tell":
        if found.name != "as_given":
            yield (
                f"the positions fit better when turned: rerun with --orientation {found.name} ({found.sure};"
                f" R of held-out patterns {found.r_held[found.name]:.3f}, as given"
                f" {found.r_held['as_given']:.3f})"
            )
        if found.scale != 1.0:
            yield (
                f"positions times {found.scale:g} fit better: check the pixel size that they were divided by"
            )
    if not intensity and held.share < PREDICTED:
        part = take_part(raw, _SEARCH_PATTERNS, seed)
        with_it = attempt(part, sweeps=_SEARCH_SWEEPS, intensity=True, seed=seed)
        if with_it.r_held < 0.7 * min(held.r, found.r_held["as_given"]):
            yield f"with one intensity a pattern R falls to {with_it.r_held:.3f}: rerun with --intensity"
