"""A pixel compared with its surroundings: the brightest neighbours, and the light on opposite sides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def rank_of_neighbours(image: Floats, rank: int) -> Floats:
    """The `rank`-th brightest of the 24 pixels around each, NaN left out; inf where there are fewer."""
    N = len(image)
    padded = np.pad(np.where(np.isfinite(image), image, -np.inf), 2, constant_values=-np.inf)
    around = np.stack(
        [
            padded[2 + dy : 2 + dy + N, 2 + dx : 2 + dx + N]
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if (dy, dx) != (0, 0)
        ]
    )
    found = -np.partition(-around, rank - 1, axis=0)[rank - 1]
    return np.where(np.isfinite(found), found, np.inf)


def between(image: Floats, known: Mask, reach: int) -> Floats:
    """The lesser of two known pixels on opposite sides within `reach` px, the greatest over four
    directions."""
    N = len(image)
    best = np.zeros_like(image)
    padded = np.pad(np.where(known, image, np.nan), reach, constant_values=np.nan)

    def side(dy: int, dx: int) -> Floats:
        nearest = np.full((N, N), np.nan)
        for step in range(reach, 0, -1):
            y, x = reach + dy * step, reach + dx * step
            there = padded[y : y + N, x : x + N]
            nearest = np.where(np.isfinite(there), there, nearest)
        return nearest

    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        both = np.minimum(side(dy, dx), side(-dy, -dx))
        best = np.fmax(best, both)
    return best
