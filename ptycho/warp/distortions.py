"""Simulated distortions: position errors of stages and piezos, and random warps of a given size."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import InputError
from ptycho.warp.formula import NAMES
from ptycho.warp.splines import refine_points
from ptycho.warp.warp import Warp

Floats = NDArray[np.float64]
Rng = np.random.Generator


def drift_and_hysteresis(
    positions_xy: ArrayLike,
    drift_xy_px: tuple[float, float] = (0.0, 0.0),
    hysteresis_xy_px: tuple[float, float] = (0.0, 0.0),
    *,
    settle: float = 0.5,
) -> Floats:
    """Errors (M, 2) [x, y] px of positions (M, 2) in the order of measurement: recorded less true position.

    Drift over the scan's time t from 0 to 1 falls off as 1 - exp(-t / settle), scaled to drift_xy_px at the
    end, like a stage that warms up. Hysteresis of a piezo driven one way bows each line: h (1 - s^2), s from
    -1 to 1 along the axis. The mean is zero. The caller should print the longest error.

    >>> way = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), -1).reshape(-1, 2)
    >>> errors = drift_and_hysteresis(way, (0.0, 4.0))
    >>> bool(np.allclose(errors.mean(0), 0)), round(float(np.ptp(errors[:, 1])), 6)
    (True, 4.0)
    """
    places = np.asarray(positions_xy, np.float64)
    if places.ndim != 2 or places.shape[1] != 2 or len(places) < 2 or not settle > 0:
        raise InputError(f"positions of shape {places.shape}; two or more [x, y] and settle > 0 are needed")
    time = np.linspace(0.0, 1.0, len(places))
    course = (1 - np.exp(-time / settle)) / (1 - np.exp(-1 / settle))
    low, span = places.min(0), np.maximum(np.ptp(places, axis=0), 1e-30)
    along = 2 * (places - low) / span - 1
    errors = course[:, None] * np.array(drift_xy_px) + (1 - along**2) * np.array(hysteresis_xy_px)
    return np.asarray(errors - errors.mean(0))


def random_warp(shape: tuple[int, int], largest_px: float, rng: Rng, *, flow: bool = True) -> Warp:
    """A warp whose longest displacement is `largest_px` px, without folds: rotation, scale, shear, lens, and
    a smooth flow of 3 to 5 bumps across for `flow`. Shape (H, W).

    >>> warp = random_warp((96, 96), 4.0, np.random.default_rng(0))
    >>> round(warp.as_dict()["largest_px"], 6), warp.as_dict()["smallest_area"] > 0
    (4.0, True)
    """
    sizes = dict(
        shift_x=1.0, shift_y=1.0, rotation=1.0, scale=1.0, shear=0.6, skew=0.6, lens=1.0, lens_high=0.4
    )
    values = np.array([sizes.get(name, 0.0) for name in NAMES]) * rng.standard_normal(len(NAMES))
    values[8:] = rng.uniform(-0.3, 0.3, 2)
    straight = Warp(shape, values)
    lengths = np.hypot(*np.moveaxis(straight.field(), -1, 0))
    share = rng.uniform(0.3, 1.0) if flow else 1.0
    points = None
    if flow:
        count = int(rng.integers(6, 9))
        points = refine_points(rng.standard_normal((2, count, count)), (count, count))
        bumps = np.hypot(*np.moveaxis(Warp(shape, np.zeros(len(NAMES)), points).field(), -1, 0)).max()
        points = points * ((1 - share) * largest_px / bumps)
    values[:8] *= share * largest_px / max(float(lengths.max()), 1e-30)
    made = Warp(shape, values, points)
    longest = float(np.hypot(*np.moveaxis(made.field(), -1, 0)).max())
    values[:8] *= largest_px / longest
    made = Warp(shape, values, None if points is None else points * (largest_px / longest))
    return made if float(made.determinant().min()) > 0.2 else random_warp(shape, largest_px, rng, flow=flow)
