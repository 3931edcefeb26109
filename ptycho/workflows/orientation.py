"""Which way the axes of the positions run against the detector's: tried, by patterns held out.

Eight orientations are possible: x negated, y negated, both, and each with x and y swapped. Far-field patterns
cannot tell an object from its conjugate turned by 180 degrees (the twin), so each orientation has a
partner, the
one with both axes negated, that fits as well: only the pair is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.orientation import ORIENTATIONS, reorient
from ptycho.workflows.pairing import Pairing, find_pairing
from ptycho.workflows.rotation import Rotation, find_rotation
from ptycho.workflows.trials import Attempt, Part, attempt, take_part

Floats = NDArray[np.float64]

_PAIRS = tuple(zip(list(ORIENTATIONS)[::2], list(ORIENTATIONS)[1::2], strict=True))
SCALES = (0.5, 0.7, 1.4, 2.0)
_TWIN = (
    "the data alone cannot tell {} from {} (the twin: the object conjugated and turned by 180 degrees); a"
    " feature"
    " whose place is known, or the sign of the probe's defocus, settles it"
)


@dataclass(frozen=True)
class Orientation:
    """The orientation found.

    name: the best, 'as_given' where the positions are right; twin: its partner that fits as well. sure: how
    sure, 'sure', 'likely' or 'cannot tell'. r_held: R of held-out patterns by orientation; scales: the same
    for the best orientation with positions multiplied by a factor. margin: by how much the best pair of
    orientations is ahead of the next, relative; sigma: the same in standard errors. rotation: by how many
    degrees more the axes are turned, and pairing: whether patterns and positions are off by one, where that
    was asked.
    """

    name: str
    twin: str
    sure: str
    r_held: dict[str, float]
    scales: dict[float, float]
    flat: float
    margin: float
    sigma: float
    rotation: Rotation | None = None
    pairing: Pairing | None = None

    @property
    def scale(self) -> float:
        """Factor on the positions that fits clearly better than 1, or 1."""
        if not self.scales:
            return 1.0
        best = min(self.scales, key=lambda factor: self.scales[factor])
        return best if self.scales[best] < 0.9 * self.r_held[self.name] else 1.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        return {
            "name": self.name,
            "twin": self.twin,
            "sure": self.sure,
            "scale": self.scale,
            "margin": self.margin,
            "sigma": self.sigma,
            "r_held_out": self.r_held,
            "r_held_out_by_scale": {str(key): value for key, value in self.scales.items()},
            "r_without_structure": self.flat,
            **({} if self.rotation is None else {"rotation": self.rotation._asdict()}),
            **({} if self.pairing is None else {"pairing": self.pairing._asdict()}),
        }

    def lines(self) -> Iterator[str]:
        """What to tell a user."""
        shown = ", ".join(
            f"{name} {r:.3f}" for name, r in sorted(self.r_held.items(), key=lambda one: one[1])
        )
        yield f"orientation: R of held-out patterns: {shown}; without structure {self.flat:.3f}"
        if self.rotation is not None and self.rotation.degrees:
            turn = self.rotation
            first = "" if turn.name == "as_given" else f"{turn.name} and then "
            yield (
                f"orientation: {first}turned by {turn.degrees:g} degrees, from x towards y, the positions fit"
                f" better (R {turn.r_held:.3f}): turn them and write the scan again (ptycho reconstruct"
                " --positions affine solves for a few degrees)"
            )
        if self.pairing is not None and self.pairing.words:
            yield f"pairing: {self.pairing.words}"
        if self.sure == "cannot tell":
            yield (
                "orientation: cannot tell: no orientation predicts held-out patterns clearly better than the"
                " others; more photons, or more overlap, would settle it"
            )
            return
        state = (
            "right as given"
            if self.name == "as_given"
            else f"{self.name}: rerun with --orientation {self.name}"
        )
        lead = f"{self.margin:.0%} ahead of the next, {self.sigma:.1f} sigma"
        yield f"orientation: {state} ({self.sure}; {lead})"
        yield f"orientation: {_TWIN.format(self.name, self.twin)}"
        if self.scale != 1.0:
            yield (
                f"orientation: positions times {self.scale:g} fit better (R {self.scales[self.scale]:.3f}):"
                " check the pixel size that they were divided by"
            )


def find_orientation(
    raw: Any,
    *,
    n_patterns: int = 80,
    sweeps: int = 6,
    modes: int | None = None,
    with_scale: bool = True,
    with_rotation: bool = False,
    with_pairing: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Orientation:
    """Reconstruct a part of the scan in each orientation, and ask which predicts the patterns held out.

    Time: eight (twelve with scales) reconstructions of `n_patterns` patterns in `sweeps` sweeps, some ten CPU
    seconds at N = 128; linear in both and in N^2 log N; with_rotation, with_pairing: see `find_rotation`,
    `find_pairing`. Memory: these patterns.
    """
    part = take_part(raw, n_patterns, seed)
    tried: dict[str, Attempt] = {}
    total = len(ORIENTATIONS) + (len(SCALES) if with_scale else 0)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, total)

    for done, name in enumerate(ORIENTATIONS, start=1):
        places = reorient(part.positions, name)
        tried[name] = attempt(part, places, sweeps=sweeps, modes=modes, seed=seed)
        report(done)
    best_of_pair = [min(pair, key=lambda name: tried[name].r_held) for pair in _PAIRS]
    best, second = sorted(best_of_pair, key=lambda name: tried[name].r_held)[:2]
    twin = next(b if a == best else a for a, b in _PAIRS if best in (a, b))
    # where both of the pair fit alike nothing speaks for the other one
    if twin == "as_given" and tried[twin].r_held < 1.05 * tried[best].r_held:
        best, twin = twin, best
    sure, margin, sigma = _how_sure(tried[best], tried[second])
    scales: dict[float, float] = {}
    if with_scale and sure != "cannot tell":
        for number, factor in enumerate(SCALES, start=len(ORIENTATIONS) + 1):
            places = reorient(part.positions, best)
            centre = places.mean(axis=0)
            wide = replace(part, positions=centre + factor * (places - centre))
            scales[factor] = _on_shared_ground(wide, factor, sweeps, modes, seed)
            report(number)
    pairing = None
    if with_pairing:
        pairing = find_pairing(raw, part, tried["as_given"], sweeps=sweeps, modes=modes, seed=seed)
    rotation = None
    if with_rotation and not (pairing and pairing.words):
        rotation = find_rotation(raw, part, best, tried[best], sweeps=sweeps, modes=modes, seed=seed)
    return Orientation(
        best, twin, sure, {name: one.r_held for name, one in tried.items()}, scales, tried[best].flat, margin,
        sigma, rotation, pairing,
    )  # fmt: skip


def _on_shared_ground(part: Part, factor: float, sweeps: int, modes: int | None, seed: int) -> float:
    return attempt(part, sweeps=sweeps, modes=modes, seed=seed).r_held


def _how_sure(best: Attempt, second: Attempt) -> tuple[str, float, float]:
    """Words, relative lead in R, and lead in standard errors over the held-out patterns."""
    margin = (second.r_held - best.r_held) / max(second.r_held, 1e-30)
    lead = second.misfit - best.misfit
    spread = float(lead.std(ddof=1)) / np.sqrt(len(lead)) if len(lead) > 2 else float("inf")
    sigma = float(lead.mean()) / max(spread, 1e-30) if np.isfinite(spread) else 0.0
    beats_flat = best.r_held < 0.97 * best.flat
    if not beats_flat or sigma < 2 or margin < 0.02:
        return "cannot tell", margin, sigma
    return ("sure" if sigma > 4 and margin > 0.08 else "likely"), margin, sigma
