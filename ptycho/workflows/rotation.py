"""By how many degrees the scan's axes are turned against the detector's, beyond the eight orientations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.orientation import reorient
from ptycho.workflows.trials import Attempt, Part, attempt, take_part

Floats = NDArray[np.float64]

#: the eight orientations hold the turns by 90 degrees, so that 45 to either side are left
_COARSE_DEG = tuple(float(degrees) for degrees in range(-40, 41, 8))
_FEW, _FEW_SWEEPS, _FEW_PX, _KEPT = 40, 5, 64, 3
_FINE_DEG = (-4.0, -2.0, 2.0, 4.0)
#: share of the structure that the best orientation must predict for a fine search to do
_NEAR = 0.85
#: R of held-out patterns must fall to this share, and by so many standard errors
_BETTER, _SIGMA = 0.9, 3.0


class Rotation(NamedTuple):
    """degrees: turn of the positions, from x towards y, after the orientation `name`; 0 where none fits
    better. r_held: R of held-out patterns by it; tried: number of reconstructions."""

    name: str
    degrees: float
    r_held: float
    tried: int


def turned(positions: Floats, degrees: float) -> Floats:
    """Positions (M,2) [x, y] turned about their mean, from x towards y.

    >>> turned(np.array([[0.0, 0.0], [2.0, 0.0]]), 90.0).round(6).tolist()
    [[1.0, -1.0], [1.0, 1.0]]
    """
    angle, centre = np.radians(degrees), positions.mean(axis=0)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(centre + (positions - centre) @ matrix)


def find_rotation(
    raw: Any, part: Part, name: str, best: Attempt, *, sweeps: int, modes: int | None, seed: int
) -> Rotation:
    """Search around the best orientation of a part, and through all angles where that fits badly.

    name, best: the best of the eight and its attempt. Time: six reconstructions of the part; where the best
    predicts less than 0.85 of the structure, 44 more of 40 patterns of at most 64 px.
    """
    centres = [(name, 0.0, best)]
    tried = 0
    if best.explained < _NEAR:
        small = take_part(raw, _FEW, seed, largest=_FEW_PX)
        coarse = []
        # mirrored and not: the eight orientations are the turns of these two by 90 degrees
        for base in ("as_given", "x_negated"):
            for coarse_deg in _COARSE_DEG:
                for quarter in (0.0, 90.0):
                    places = turned(reorient(small.positions, base), coarse_deg + quarter)
                    there = replace(small, positions=places)
                    made = attempt(there, sweeps=_FEW_SWEEPS, modes=modes, seed=seed)
                    coarse.append((made.r_held, base, coarse_deg + quarter))
        tried += len(coarse)
        for _, base, degrees in sorted(coarse)[:_KEPT]:
            centres.append((base, degrees, _at(part, base, degrees, sweeps, modes, seed)))
            tried += 1
    name, degrees, found = min(centres, key=lambda one: one[2].r_held)
    for steps in (_FINE_DEG, (-1.0, 1.0)):
        around = [(degrees + step, _at(part, name, degrees + step, sweeps, modes, seed)) for step in steps]
        tried += len(around)
        degrees, found = min([(degrees, found), *around], key=lambda one: one[1].r_held)
    lead = best.misfit - found.misfit
    spread = float(lead.std(ddof=1)) / np.sqrt(len(lead)) if len(lead) > 2 else float("inf")
    sure = found.r_held < _BETTER * best.r_held and float(lead.mean()) > _SIGMA * spread
    return Rotation(name, degrees, found.r_held, tried) if sure else Rotation(name, 0.0, best.r_held, tried)


def _at(part: Part, name: str, degrees: float, sweeps: int, modes: int | None, seed: int) -> Attempt:
    places = turned(reorient(part.positions, name), degrees)
    return attempt(replace(part, positions=places), sweeps=sweeps, modes=modes, seed=seed)
