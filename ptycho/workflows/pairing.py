"""Whether patterns and positions are off by one or two: tried, by patterns held out.

On a raster whose lines run to and fro such a shift moves every second line the other way; where all lines run
one way it moves the image as a whole and spoils the ends of the lines only, which is not found here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ptycho.workflows.trials import Attempt, Part, attempt

_SHIFTS = (-2, -1, 1, 2)
#: R of held-out patterns must fall to this share, and by so many standard errors
_BETTER, _SIGMA = 0.85, 3.0


class Pairing(NamedTuple):
    """shift: pattern i belongs to position i + shift; 0 where the order given is the best. reversed: the last
    pattern belongs to the first position. r_held: R of held-out patterns."""

    shift: int
    reversed: bool
    r_held: float

    @property
    def words(self) -> str | None:
        """What is wrong and the remedy, or None."""
        if self.reversed:
            return "patterns fit the positions better in reversed order: reverse one of the two"
        if not self.shift:
            return None
        ahead = "later" if self.shift > 0 else "earlier"
        return (
            f"patterns fit better at the position {abs(self.shift)} {ahead} (R of held-out patterns"
            f" {self.r_held:.3f}): drop the first or last entries of one of the two"
        )


def find_pairing(
    raw: Any, part: Part, given: Attempt, *, sweeps: int, modes: int | None, seed: int
) -> Pairing:
    """Try neighbouring positions, and the reversed order, for the patterns of a part.

    given: the attempt with the positions as they are. Time: five reconstructions of the part.
    """
    positions = raw.positions_px
    last = len(positions) - 1
    orders = {(shift, False): np.clip(part.rows + shift, 0, last) for shift in _SHIFTS}
    orders[0, True] = last - part.rows
    tried = {
        key: attempt(
            replace(part, positions=positions[rows] * part.scale), sweeps=sweeps, modes=modes, seed=seed
        )
        for key, rows in orders.items()
    }
    key = min(tried, key=lambda one: tried[one].r_held)
    lead = given.misfit - tried[key].misfit
    spread = float(lead.std(ddof=1)) / np.sqrt(len(lead)) if len(lead) > 2 else float("inf")
    if tried[key].r_held < _BETTER * given.r_held and float(lead.mean()) > _SIGMA * spread:
        return Pairing(*key, tried[key].r_held)
    return Pairing(0, False, given.r_held)
