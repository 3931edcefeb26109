"""After a reconstruction: do patterns that a short one did not see agree, and if not, why?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.report.verdict import PREDICTED, HeldOut
from ptycho.workflows.orientation import find_orientation
from ptycho.workflows.trials import Attempt, attempt, take_part

_PATTERNS, _SWEEPS = 100, 15
#: sweeps of a first look, and the share of the held-out structure that ends the matter there
_FEW_SWEEPS, _CLEAR = 5, 0.8
_SEARCH_PATTERNS, _SEARCH_SWEEPS = 60, 5
_CONTRAST_SIGMA = 5.0


class SecondLook(NamedTuple):
    """Numbers for metrics.json, and sentences on what may be wrong."""

    metrics: dict[str, float]
    hints: list[str]


def second_look(raw: Any, probe: NDArray[Any], *, intensity: bool = False, seed: int = 0) -> SecondLook:
    """Reconstruct a part of the scan anew with a fifth of it held out; search the axes where that fails.

    probe (P,N,N): the reconstruction's own, to start from. Time: 100 patterns in 5 sweeps, half a second at
    N = 64; in 15 more where these leave a doubt, and ten times that where the prediction fails. A scan of few
    patterns is not looked at.
    """
    if raw.n_positions < 20:
        return SecondLook({}, [])
    part = take_part(raw, _PATTERNS, seed)
    if probe.shape[-1] != part.probe.shape[-1]:
        probe = part.probe
    known = raw.diffraction_unit == "counts"
    for sweeps in (_FEW_SWEEPS, _SWEEPS):
        tried = attempt(part, probe=probe, sweeps=sweeps, counts_known=known, intensity=intensity, seed=seed)
        held = held_out_of(tried)
        if held.share >= _CLEAR:
            break
    metrics = {"held_out_r": held.r, "held_out_flat": held.flat, "held_out_sigma": held.sigma}
    if held.noise is not None:
        metrics["held_out_noise"] = held.noise
    hints = list(_hints(raw, held, intensity, seed)) if held.share < PREDICTED else []
    return SecondLook(metrics, hints)


def held_out_of(tried: Attempt) -> HeldOut:
    """What an attempt says, as the verdict takes it."""
    lead = tried.flat_misfit - tried.misfit
    spread = float(lead.std(ddof=1)) / np.sqrt(len(lead)) if len(lead) > 2 else float("inf")
    sigma = float(lead.mean()) / spread if 0 < spread < float("inf") else 0.0
    return HeldOut(tried.r_held, tried.flat, tried.noise, sigma)


def _hints(raw: Any, held: HeldOut, intensity: bool, seed: int) -> Iterator[str]:
    found = find_orientation(
        raw, n_patterns=_SEARCH_PATTERNS, sweeps=_SEARCH_SWEEPS, seed=seed, with_scale=True
    )
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
    if not intensity:
        part = take_part(raw, _SEARCH_PATTERNS, seed)
        with_it = attempt(part, sweeps=_SEARCH_SWEEPS, intensity=True, seed=seed)
        if with_it.r_held < 0.7 * min(held.r, found.r_held["as_given"]):
            yield f"with one intensity a pattern R falls to {with_it.r_held:.3f}: rerun with --intensity"
