"""A warp: ten global parameters and a smooth flow. Values in NumPy float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import ConfigError, DataError
from ptycho.warp.formula import BOUNDS, NAMES, global_displacement
from ptycho.warp.splines import spline_basis

Floats = NDArray[np.float64]
_ROUNDS = 60
_CLOSE_PX = 1e-6


@dataclass(frozen=True)
class Warp:
    """Maps each pixel of the fixed image to the moving one: moving(p + u(p)) = fixed(p).

    shape (H, W) of the fixed image; values (10,) in the order of `NAMES`; points (2, h, w) px or None,
    control points [x, y] of the flow that is added. Displacements u are [x, y] px, p [x, y] px of the fixed
    image.
    """

    shape: tuple[int, int]
    values: Floats
    points: Floats | None = None

    @property
    def centre_xy(self) -> Floats:
        """The middle of the image, (2,) px."""
        return np.array([(self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2])

    @property
    def radius_px(self) -> float:
        """The unit radius: half the longer side."""
        return max(max(self.shape) - 1, 1) / 2

    def displacement(self, places_xy: ArrayLike) -> Floats:
        """u (K, 2) px at points (K, 2) [x, y] px of the fixed image; constant flow beyond the image."""
        places = np.asarray(places_xy, np.float64)
        x, y = ((places - self.centre_xy) / self.radius_px).T
        found = np.stack(global_displacement(self.values, x, y), -1) * self.radius_px
        if self.points is not None:
            rows = spline_basis(places[:, 1], self.points.shape[1], max(self.shape[0] - 1, 1))
            columns = spline_basis(places[:, 0], self.points.shape[2], max(self.shape[1] - 1, 1))
            found = found + np.einsum("kr,arc,kc->ka", rows, self.points, columns)
        return np.asarray(found)

    def field(self) -> Floats:
        """u at every pixel: (H, W, 2) px, [x, y]."""
        y, x = np.mgrid[: self.shape[0], : self.shape[1]].astype(np.float64)
        x, y = ((v - c) / self.radius_px for v, c in zip((x, y), self.centre_xy, strict=True))
        found = np.stack(global_displacement(self.values, x, y), -1) * self.radius_px
        if self.points is not None:
            rows, columns = (
                spline_basis(np.arange(side), count, max(side - 1, 1))
                for side, count in zip(self.shape, self.points.shape[1:], strict=True)
            )
            found = found + np.moveaxis(rows @ self.points @ columns.T, 0, -1)
        return np.asarray(found)

    def to_fixed(self, places_xy: ArrayLike) -> Floats:
        """Maps points (K, 2) px of the moving image to the fixed one: the inverse, by fixed-point iteration.

        Raises DataError if the iteration does not converge; it converges for a warp with small slopes and
        without folds.

        >>> warp = identity((64, 64)).replaced(scale=0.1)
        >>> there = warp.to_fixed([[40.0, 10.0]])
        >>> bool(np.allclose(there + warp.displacement(there), [[40, 10]]))
        True
        """
        places = np.asarray(places_xy, np.float64)
        found = places.copy()
        for _ in range(_ROUNDS):
            step = places - self.displacement(found) - found
            found = found + step
            if not len(step) or np.abs(step).max() < _CLOSE_PX:
                return found
        raise DataError("the warp is too steep to be inverted; use a weaker kind of warp")

    def determinant(self) -> Floats:
        """Area of each cell of four pixels after the warp, (4, H-1, W-1), at each of its corners.

        If all are positive, the warp, bilinear between pixels, has no fold.
        """
        return np.asarray(determinants(self.field()))

    def replaced(self, **changes: float) -> Warp:
        """The same with other values, by the names of `NAMES`."""
        unknown = sorted(set(changes) - set(NAMES))
        if unknown:
            raise ConfigError(f"a warp has no {unknown[0]!r}; it has {', '.join(NAMES)}")
        values = np.array([changes.get(name, now) for name, now in zip(NAMES, self.values, strict=True)])
        return Warp(self.shape, values, self.points)

    def as_dict(self) -> dict[str, Any]:
        """Names and values of the global part, and the size of the displacement, ready for JSON."""
        length = np.hypot(*np.moveaxis(self.field(), -1, 0))
        made: dict[str, Any] = {name: float(v) for name, v in zip(NAMES, self.values, strict=True)}
        made["rms_px"] = float(np.sqrt((length**2).mean()))
        made["largest_px"] = float(length.max())
        made["smallest_area"] = float(self.determinant().min())
        made["flow_points"] = None if self.points is None else list(self.points.shape[1:])
        return made


def identity(shape: tuple[int, int], shift_xy: tuple[float, float] = (0.0, 0.0)) -> Warp:
    """The warp of an image (H, W) that moves all of it by shift_xy px; raises ConfigError beyond an
    eighth of the longer side.

    >>> identity((32, 48), (2.0, -1.0)).displacement([[5.0, 5.0]]).round(9).tolist()
    [[2.0, -1.0]]
    """
    warp = Warp((int(shape[0]), int(shape[1])), np.zeros(len(NAMES)))
    values = warp.values.copy()
    values[:2] = np.array(shift_xy) / warp.radius_px
    if (np.abs(values[:2]) >= BOUNDS[0]).any():
        raise ConfigError(
            f"a shift of {tuple(shift_xy)} px is more than an eighth of the image; give its place first"
        )
    return Warp(warp.shape, values)


def determinants(field: Any) -> Any:
    """Area of each cell after a displacement field (H, W, 2) px at its four corners, (4, H-1, W-1).

    >>> determinants(np.zeros((3, 4, 2))).shape, float(determinants(np.zeros((3, 4, 2))).min())
    ((4, 2, 3), 1.0)
    """
    return np.stack(corner_areas(field))


def corner_areas(field: Any) -> list[Any]:
    """The area of each cell at each of its corners, four of (H-1, W-1); NumPy or torch."""
    right, down = corner_slopes(field)
    return [
        (1 + right[i][..., 0]) * (1 + down[j][..., 1]) - right[i][..., 1] * down[j][..., 0]
        for i in (0, 1)
        for j in (0, 1)
    ]


class Slopes(NamedTuple):
    """Differences of a field (H, W, 2) along x on the upper and lower edge of each cell, along y left and
    right."""

    right: tuple[Any, Any]
    down: tuple[Any, Any]


def corner_slopes(field: Any) -> Slopes:
    """The four differences of each cell, each (H-1, W-1, 2); NumPy or torch."""
    right = field[:, 1:] - field[:, :-1]
    down = field[1:] - field[:-1]
    return Slopes((right[:-1], right[1:]), (down[:, :-1], down[:, 1:]))
