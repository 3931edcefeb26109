"""Smooth fields from few numbers: uniform cubic B-splines (de Boor, A Practical Guide to Splines, 1978)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import ConfigError

Floats = NDArray[np.float64]
#: least control points on a side: one interval of a cubic spline
FEWEST = 4


def spline_basis(at: ArrayLike, count: int, span: float) -> Floats:
    """Weights (K, count) of `count` control points, spread evenly over [0, span], at coordinates (K,).

    Every row is non-negative and has the sum 1, so that a field is never larger than its largest control
    point. Beyond the ends the field is constant. Raises ConfigError for fewer than 4 points.

    >>> basis = spline_basis([0.0, 2.5, 10.0], 5, 10.0)
    >>> basis.shape, bool(np.allclose(basis.sum(1), 1)), bool((basis >= 0).all())
    ((3, 5), True, True)
    """
    if count < FEWEST or not span > 0:
        raise ConfigError(f"a spline of {count} points over {span} px: at least {FEWEST} and a length > 0")
    t = np.clip(np.asarray(at, np.float64) / span, 0.0, 1.0) * (count - 3)
    first = np.minimum(np.floor(t).astype(int), count - 4)
    s = t - first
    weights = np.stack([(1 - s) ** 3, 3 * s**3 - 6 * s**2 + 4, -3 * s**3 + 3 * s**2 + 3 * s + 1, s**3], 1) / 6
    made = np.zeros((len(t), count))
    np.put_along_axis(made, first[:, None] + np.arange(4), weights, 1)
    return made


def refine_points(points: Floats, shape: tuple[int, int]) -> Floats:
    """The least-squares approximation of the field of control points (2, h, w) by (h', w') points.

    Exact where every interval is halved: h' - 3 = 2 (h - 3).
    """
    rows, columns = (
        np.linalg.lstsq(spline_basis(line, new, 1.0), spline_basis(line, old, 1.0), rcond=None)[0]
        for old, new in zip(points.shape[1:], shape, strict=True)
        for line in (np.linspace(0, 1, 8 * max(old, new)),)
    )
    return np.asarray(rows @ points @ columns.T)
