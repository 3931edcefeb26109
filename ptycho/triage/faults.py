"""Adds faults of single frames to measured or simulated counts.

A fault that would hardly change the counts is not added: a label must be visible in the frame. Each function
returns the new frame, or None in this case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

#: least counts that a fault must add or remove, and their share of the frame
FEWEST_CHANGED, SHARE_CHANGED = 20.0, 0.1
_FEWEST_CLIPPED, _LOWEST_CLIP = 4, 8


class Setting(NamedTuple):
    """The data to which a fault is added.

    frame (N,N) int64 counts; light (N,N) float64, the expected counts (the frame itself if they are unknown);
    dark: counts of a pixel without light; live (N,N) bool: working pixels.
    """

    frame: Counts
    light: Floats
    dark: float
    live: NDArray[np.bool_]


Fault = Callable[[Setting, np.random.Generator], Counts | None]


def empty(there: Setting, rng: np.random.Generator) -> Counts | None:
    """No light: Poisson counts of the dark level."""
    if there.frame.sum() < FEWEST_CHANGED:
        return None
    return np.where(there.live, rng.poisson(there.dark, there.frame.shape), 0).astype(np.int64)


def dim(there: Setting, rng: np.random.Generator) -> Counts | None:
    """Each count is kept with probability f, log-uniform from 0.05 to 0.5; this is exact for photons."""
    f = float(np.exp(rng.uniform(np.log(0.05), np.log(0.5))))
    total = float(there.frame.sum())
    if total * (1 - f) < max(FEWEST_CHANGED, 6 * np.sqrt(total)):
        return None
    made = rng.binomial(there.frame, f).astype(np.int64)
    return made if made.any() else None


def saturated(there: Setting, rng: np.random.Generator) -> Counts | None:
    """Up to 20 times longer exposure, or none, then cut at a level of at least 8 counts that four or more
    pixels exceed.

    The cut removes at least a third of the largest value.
    """
    factor = 1.0 if rng.random() < 0.3 else float(np.exp(rng.uniform(np.log(1.5), np.log(20.0))))
    made = there.frame + rng.poisson((factor - 1.0) * there.light) if factor > 1 else there.frame
    rank = int(np.exp(rng.uniform(np.log(_FEWEST_CLIPPED), np.log(max(made.size // 64, 8)))))
    limit = int(np.partition(made.ravel(), -rank)[-rank])
    if limit < _LOWEST_CLIP or made.max() < 1.5 * limit:
        return None
    return np.minimum(made, limit)


def shifted(there: Setting, rng: np.random.Generator) -> Counts | None:
    """A shift by whole pixels, 5 to 20 % of the side; pixels that enter at the edge are dark."""
    N = len(there.frame)
    length, angle = rng.uniform(0.05, 0.2) * N, rng.uniform(0, 2 * np.pi)
    rows, columns = round(length * np.sin(angle)), round(length * np.cos(angle))
    if there.frame.sum() < 2 * FEWEST_CHANGED:
        return None
    made = moved(there.frame, rows, columns)
    dark = rng.poisson(there.dark, made.shape) if there.dark else 0
    return np.where(there.live, np.where(moved(np.ones_like(made), rows, columns) > 0, made, dark), 0)


def module(there: Setting, rng: np.random.Generator) -> Counts | None:
    """A rectangle, an eighth to a half of the side, that is dead, or hot by a level without structure.

    A dead one takes 10 to 80 % of the frame's light away, a hot one adds 10 to 300 %.
    """
    N = len(there.frame)
    height, width = (int(rng.uniform(N / 8, N / 2)) for _ in range(2))
    total = float(there.light.sum())
    hot = rng.random() < 0.5
    least = max(FEWEST_CHANGED, SHARE_CHANGED * total)
    for _ in range(8):  # a dead rectangle must lie in the lit area
        top, left = int(rng.integers(0, N - height + 1)), int(rng.integers(0, N - width + 1))
        part = (slice(top, top + height), slice(left, left + width))
        here = float(there.light[part].sum())
        if hot or least <= here <= 0.8 * total:
            break
    else:
        return None
    made = there.frame.copy()
    live = there.live[part]
    if not hot:
        made[part] = 0
        return made
    added = float(np.exp(rng.uniform(np.log(max(0.1 * total, least)), np.log(3 * total + 2 * least))))
    level = added / max(int(live.sum()), 1)
    # a stuck module reports one value, a noisy one counts of a level
    extra = (
        np.full(live.shape, max(round(level), 1)) if rng.random() < 0.3 else rng.poisson(level, live.shape)
    )
    made[part] += np.where(live, extra, 0).astype(np.int64)
    return made


def ring(there: Setting, rng: np.random.Generator) -> Counts | None:
    """Adds a ring around the beam, uniform or of grains, with 15 to 100 % of the frame's light."""
    N = len(there.frame)
    total = float(there.light.sum())
    rows, columns = np.indices(there.frame.shape) - N // 2
    radius, angle = np.hypot(rows, columns), np.arctan2(rows, columns)
    at, width = rng.uniform(0.15, 0.45) * N, rng.uniform(0.6, 2.0) * max(N / 64, 1.0)
    grains = int(rng.integers(8, 72))
    texture = rng.gamma(rng.choice([0.3, 1.0, 20.0]), size=grains) + 1e-3
    shape = np.exp(-0.5 * ((radius - at) / width) ** 2)
    shape = shape * texture[np.floor((angle + np.pi) / (2 * np.pi) * grains).astype(int) % grains]
    shape = shape * there.live
    whole = float(shape.sum())
    added = float(np.exp(rng.uniform(np.log(0.15), 0.0))) * total
    if whole <= 0 or added < max(FEWEST_CHANGED, SHARE_CHANGED * total):
        return None
    extra = rng.poisson(shape * (added / whole))
    return np.asarray(there.frame + extra, np.int64)


#: faults of the light, in this order, and faults of the detector, which act after the noise
OPTICAL: dict[str, Fault] = {"empty": empty, "ring": ring, "shifted": shifted, "dim": dim}
DETECTOR: dict[str, Fault] = {"saturated": saturated, "module": module}
#: pairs of faults that may occur together
PAIRS: tuple[tuple[str, str], ...] = (
    ("dim", "shifted"), ("dim", "module"), ("ring", "dim"), ("ring", "shifted"), ("ring", "saturated"),
    ("saturated", "shifted"), ("saturated", "module"), ("ring", "module"), ("shifted", "module"),
)  # fmt: skip


def moved(frame: Counts, rows: int, columns: int) -> Counts:
    """The frame moved down and right by whole pixels; zeros enter.

    >>> moved(np.arange(4).reshape(2, 2), 1, 0).tolist()
    [[0, 0], [0, 1]]
    """
    made = np.zeros_like(frame)
    height, width = frame.shape

    def parts(step: int, side: int) -> tuple[slice, slice]:
        return slice(max(step, 0), side + min(step, 0)), slice(max(-step, 0), side + min(-step, 0))

    (to_rows, from_rows), (to_columns, from_columns) = parts(rows, height), parts(columns, width)
    made[to_rows, to_columns] = frame[from_rows, from_columns]
    return made
