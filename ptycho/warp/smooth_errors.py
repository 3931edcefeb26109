"""A smooth model of position errors: splines over the scanned plane and over the order of measurement.

Each pattern tells its own error with its own uncertainty. Neighbours in space or in time share drift,
hysteresis and distortion. Held-out patterns choose how many splines there are; where neighbours share noise
as well, as that of a reference image, whole squares of patterns are held out together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import InputError
from ptycho.warp.splines import spline_basis

Floats = NDArray[np.float64]
AFFINE = 2
#: control points on a side of the plane (0: nothing, 2: an affine map), over the order of measurement, and
#: along each axis alone, as the axes of a scanner err by themselves
PLANE, ORDER, ALONG = (0, AFFINE, 4, 5, 7, 11, 17), (0, 4, 7, 13, 25, 49), (0, 4, 5, 7, 11, 17)
#: standard errors by which held-out patterns must be predicted better before more splines are taken
SURE = 3.0
_FOLDS = 5
#: patterns for each number of a model, at least
_PATTERNS = 4
_ROWS = 2048
_RIDGE = 1e-6
#: errors beyond this many times their expected size count less, as in Huber's estimate
_FAR = 2.5


class Model(NamedTuple):
    """Control points on a side of the plane, over the order of measurement, and along each axis alone (then
    `plane` is AFFINE, which these contain)."""

    plane: int
    order: int
    along: int = 0

    @property
    def size(self) -> int:
        """Numbers of the model for one axis."""
        if self.along:
            return 2 * self.along - 1 + self.order
        return (3 if self.plane == AFFINE else self.plane**2) + self.order

    @property
    def name(self) -> str:
        """In words."""
        if self.plane == 0:
            return "none"
        plane = "affine" if self.plane == AFFINE else f"plane {self.plane}"
        plane = f"axes {self.along}" if self.along else plane
        return plane if not self.order else f"{plane} and order {self.order}"


NONE = Model(0, 0)


class SmoothErrors(NamedTuple):
    """errors_px (M, 2): the smooth part; predicted_px (M, 2): that of each pattern as the others predict it;
    model: its name; rows: what was tried (model, kept, better: standard errors by which held-out patterns are
    predicted better)."""

    errors_px: Floats
    predicted_px: Floats
    model: str
    rows: list[dict[str, Any]]


def smooth_errors(
    errors_px: ArrayLike,
    information: ArrayLike,
    positions_px: ArrayLike,
    *,
    seed: int = 0,
    sure: float = SURE,
    shared_px: float = 0.0,
) -> SmoothErrors:
    """The smooth part of noisy position errors, by weighted least squares; zero if nothing is significant.

    errors_px (M, 2) [x, y] in the order of measurement; information (M, 2, 2) px^-2, inverse covariance of
    each, 0 for a pattern without a say; positions_px (M, 2). shared_px: length over which errors share noise,
    the side of the squares that are held out; 0: patterns alone. The seed determines the held-out fifths.
    Raises InputError on shapes. Time O(M P^2) for P splines (at most 338), memory O(M + P^2): by rows.

    >>> t = np.linspace(-1, 1, 400)
    >>> places = np.stack([np.tile(np.arange(20.0), 20), np.repeat(np.arange(20.0), 20)], 1)
    >>> noise = 0.1 * np.random.default_rng(0).standard_normal((400, 2))
    >>> found = smooth_errors(np.stack([t, t**2], 1) + noise, np.tile(100 * np.eye(2), (400, 1, 1)), places)
    >>> off = found.errors_px - np.stack([t, t**2], 1)
    >>> bool(np.sqrt((off**2).sum(1).mean()) < 0.04)
    True
    """
    errors, known = np.asarray(errors_px, np.float64), np.asarray(information, np.float64)
    places = np.asarray(positions_px, np.float64)
    count = len(errors)
    if errors.shape != (count, 2) or known.shape != (count, 2, 2) or places.shape != (count, 2):
        raise InputError(
            f"errors {errors.shape}, information {known.shape} and positions {places.shape} do not belong"
            " together"
        )
    square = _squares(places, shared_px)
    fold = (np.random.default_rng([seed, 11]).permutation(int(square.max(initial=-1)) + 1) % _FOLDS)[square]
    told = np.trace(known, axis1=1, axis2=2) > 0
    predicted: dict[Model, Floats] = {NONE: np.zeros((count, 2))}
    losses: dict[Model, Floats] = {NONE: misfit(errors, known)[told]}
    rows: list[dict[str, Any]] = []

    def gain(old: Model, new: Model) -> float:
        """Standard errors by which held-out patterns are predicted better by `new`."""
        if new not in losses:
            predicted[new] = _predictions(errors, known, places, fold, new)
            losses[new] = misfit(errors - predicted[new], known)[told]
        return standard_errors(np.bincount(square[told], losses[old] - losses[new])[np.unique(square[told])])

    best = NONE
    while True:
        near = [model for model in _richer(best) if model.size * _PATTERNS <= told.sum()]
        gains = {model: gain(best, model) for model in near}
        better = {model: value for model, value in gains.items() if value > sure}
        chosen = min(better, key=lambda model: losses[model].sum(), default=None)
        if chosen is not None:  # the fewest numbers among those that are not surely worse
            level = [model for model in better if model == chosen or gain(model, chosen) <= sure]
            chosen = min(level, key=lambda model: (model.size, losses[model].sum()))
        rows += [{"model": m.name, "kept": m == chosen, "better": value} for m, value in gains.items()]
        if chosen is None:
            break
        best = chosen
    made = np.zeros((count, 2)) if best == NONE else _predictions(errors, known, places, None, best)
    return SmoothErrors(made, predicted[best], best.name, rows)


def _squares(places: Floats, side_px: float) -> NDArray[np.int64]:
    """Number of the square that each pattern lies in, (M,); without a side each pattern is one."""
    if not side_px > 0:
        return np.arange(len(places))
    cells = np.floor((places - places.min(0)) / side_px).astype(np.int64)
    return np.asarray(np.unique(cells, axis=0, return_inverse=True)[1]).reshape(-1)


def standard_errors(gains: ArrayLike) -> float:
    """The mean of independent gains in units of its standard error.

    >>> round(standard_errors([1.0, 2.0, 3.0, 2.0]), 6)
    5.656854
    """
    values = np.asarray(gains, np.float64)
    return float(values.mean() / max(values.std() / np.sqrt(len(values)), 1e-30)) if len(values) else 0.0


def _richer(model: Model) -> list[Model]:
    """A model with the next one or two numbers of splines over the plane, the order, or along each axis."""
    plane, order, along = PLANE.index(model.plane), ORDER.index(model.order), ALONG.index(model.along)
    made = [Model(k, model.order) for k in PLANE[plane + 1 : plane + 3]]
    made += [Model(max(model.plane, AFFINE), k, model.along) for k in ORDER[order + 1 : order + 3]]
    if model.plane <= AFFINE:
        made += [Model(AFFINE, model.order, k) for k in ALONG[along + 1 : along + 3]]
    return made


def misfit(errors_px: Floats, information: Floats) -> Floats:
    """Huber's loss of each error (M, 2) px under its information (M, 2, 2) px^-2: half its square in standard
    errors, linear beyond 2.5 of them; (M,).

    >>> misfit(np.array([[0.1, 0.0]]), 400 * np.eye(2)[None]).round(6).tolist()
    [2.0]
    """
    size = np.sqrt(np.maximum(np.einsum("ma,mab,mb->m", errors_px, information, errors_px), 0.0))
    return np.asarray(np.where(size < _FAR, 0.5 * size**2, _FAR * (size - 0.5 * _FAR)))


def _predictions(
    errors: Floats, known: Floats, places: Floats, fold: NDArray[Any] | None, model: Model
) -> Floats:
    """The model at every pattern (M, 2); with folds, fitted to the patterns of the other folds."""
    low, span = places.min(0), np.maximum(np.ptp(places, axis=0), 1e-9)
    count = len(errors)

    def rows() -> Iterator[tuple[slice, Floats]]:
        for start in range(0, count, _ROWS):
            part = slice(start, min(start + _ROWS, count))
            yield part, _design(part, (places[part] - low) / span, count, model)

    folds = np.zeros(count, int) if fold is None else fold
    number = int(folds.max()) + 1
    made = np.zeros((count, 2))
    weights = np.ones(count)
    for _ in range(3):
        weighed = known * weights[:, None, None]
        sums = [_sums(rows, errors, weighed, folds == k) for k in range(number)]
        for k in range(number):
            used = [n for n in range(number) if n != k or fold is None]
            normal, right = (np.sum([sums[n][i] for n in used], axis=0) for i in (0, 1))
            ridge = _RIDGE * np.trace(normal) / len(right)
            solved = np.linalg.solve(normal + ridge * np.eye(len(right)), right).reshape(2, -1)
            for part, design in rows():
                here = folds[part] == k
                made[part][here] = design[here] @ solved.T
        away = np.sqrt(np.maximum(np.einsum("ma,mab,mb->m", errors - made, known, errors - made), 1e-30))
        weights = np.minimum(1.0, _FAR / away)
    return made


def _design(part: slice, share: Floats, count: int, model: Model) -> Floats:
    """Values (B, P) of the model's functions at patterns; share (B, 2): positions over the scan's extent."""
    if model.along:
        functions = [spline_basis(share[:, axis], model.along, 1.0) for axis in (0, 1)]
    elif model.plane == AFFINE:
        functions = [np.concatenate([share - 0.5, np.ones((len(share), 1))], 1)]
    else:
        columns, rows = (spline_basis(share[:, axis], model.plane, 1.0) for axis in (0, 1))
        functions = [(rows[:, :, None] * columns[:, None, :]).reshape(len(share), -1)]
    if model.order:
        functions.append(spline_basis(np.arange(part.start, part.stop), model.order, max(count - 1, 1)))
    return np.concatenate(functions, 1)


def _sums(
    rows: Callable[[], Iterator[tuple[slice, Floats]]], errors: Floats, known: Floats, used: NDArray[Any]
) -> tuple[Floats, Floats]:
    """Normal matrix (2P, 2P) and right side (2P,) of the patterns that are used."""
    normal: Any = 0.0
    right: Any = 0.0
    for part, design in rows():
        d, k = design[used[part]], known[part][used[part]]
        e = np.einsum("mab,mb->ma", k, errors[part][used[part]])
        blocks = [[d.T @ (k[:, a, b, None] * d) for b in (0, 1)] for a in (0, 1)]
        normal = normal + np.block(blocks)
        right = right + (e.T @ d).reshape(-1)
    return normal, right
