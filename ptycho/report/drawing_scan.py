"""Figures of a scan, by position; every function returns a Figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import InputError
from ptycho.report.fields import range_of
from ptycho.report.movement import stretch
from ptycho.report.style import (
    COUNT_MAP,
    FAINT,
    PHASE_MAP,
    SIGNED_MAP,
    colour_bar,
    dress,
    new_figure,
)

#: positions above which they are not drawn one by one
MOST_DOTS = 20_000
_MOST_ARROWS = 2_000


def draw_r_map(
    positions_xy: ArrayLike,
    r: ArrayLike,
    whole: float | None = None,
    title: str | None = None,
    pixel_size_m: float | None = None,
) -> Figure:
    """R of every pattern at its position: positions (M, 2) [x, y] object px, r (M,); y down as in images.

    For more than 20,000 positions, means over square areas are drawn. Axes are in micrometres when
    pixel_size_m is given.
    """
    positions, values = np.asarray(positions_xy, np.float64), np.asarray(r, np.float64)
    if positions.ndim != 2 or positions.shape[1:] != (2,) or values.shape != positions.shape[:1]:
        raise InputError(f"positions {positions.shape} and R {values.shape}; expected (M, 2) and (M,)")
    step, unit = (1.0, "px") if pixel_size_m is None else (pixel_size_m * 1e6, "µm")
    positions = positions * step
    figure = new_figure(6.0, 5.2, title or ("" if whole is None else f"R = {whole:.4f} over the whole scan"))
    axis = figure.subplots()
    width, height = np.ptp(positions, axis=0) + 1e-9
    # A dot covers about the area of one position, in points of a picture 4 in wide.
    size = float(np.clip((4 * 72) ** 2 * min(width, height) / max(width, height) / len(values) * 0.6, 2, 400))
    if len(values) > MOST_DOTS:
        means, extent = _means(positions, values)
        low, high = range_of(means, 1.0)
        dots: Any = axis.imshow(means, extent=extent, cmap=PHASE_MAP, vmin=low, vmax=high)
    else:
        low, high = range_of(values, 1.0)
        x, y = positions.T
        dots = axis.scatter(x, y, c=values, s=size, cmap=PHASE_MAP, vmin=low, vmax=high, linewidths=0)
        axis.invert_yaxis()
    axis.set_aspect("equal")
    dress(axis, "", f"x / {unit}", f"y / {unit}")
    colour_bar(figure, axis, dots, "R of the pattern")
    return figure


def few(count: int, most: int = MOST_DOTS) -> slice:
    """The positions, of `count`, that are drawn one by one: all, or every k-th."""
    return slice(None, None, max(1, -(-count // most)))


def _means(
    positions: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[float, float, float, float]]:
    """Means (h, w) of values (M,) over squares, some ten positions in each, NaN in empty ones; the extent of
    the picture, y down."""
    low, high = positions.min(0), positions.max(0)
    side = max(float(np.sqrt(np.prod(high - low) * 10 / len(values))), float((high - low).max()) / 400)
    columns, rows = (max(1, int(n)) for n in np.ceil((high - low) / side))
    across, down = np.minimum(((positions - low) / side).astype(np.int64), [columns - 1, rows - 1]).T
    cell = down * columns + across
    known = np.isfinite(values)
    number = np.bincount(cell[known], minlength=rows * columns)
    total = np.bincount(cell[known], values[known], minlength=rows * columns)
    means = np.divide(total, number, out=np.full(rows * columns, np.nan), where=number > 0)
    right, bottom = low + np.array([columns, rows]) * side
    return means.reshape(rows, columns), (float(low[0]), float(right), float(bottom), float(low[1]))


def draw_patterns(
    measured: ArrayLike,
    predicted: ArrayLike,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Measured and predicted counts on one log scale, and predicted - measured amplitude (noise is 0.5).

    Shapes: measured and predicted (K, N, N) amplitude (square root of counts), at most the first sixteen
    are shown.
    """
    seen, model = np.asarray(measured, np.float64), np.asarray(predicted, np.float64)
    if seen.ndim != 3 or seen.shape != model.shape:
        raise InputError(f"patterns of shapes {seen.shape} and {model.shape}; expected both (K, N, N)")
    rows = min(len(seen), 16)
    figure = new_figure(9.0, 2.5 * rows + 0.4 + 0.3 * bool(title), title)
    axes = figure.subplots(rows, 3, squeeze=False)
    top = max(float((seen[:rows] ** 2).max()), 10.0)
    error = (model - seen)[:rows]
    reach = max(float(np.percentile(np.abs(error), 99.8)), 1e-6)
    for row in range(rows):
        counts = LogNorm(0.5, top, clip=True)
        panels = ((seen[row] ** 2, counts, COUNT_MAP), (model[row] ** 2, counts, COUNT_MAP),
                  (error[row], Normalize(-reach, reach), SIGNED_MAP))  # fmt: skip
        heads = (
            ("measured / counts", "predicted / counts", "difference of amplitudes") if row == 0 else ("",) * 3
        )
        side = names[row] if names else f"pattern {row}"
        for axis, (values, norm, colours), head in zip(axes[row], panels, heads, strict=True):
            picture = axis.imshow(values, norm=norm, cmap=colours)
            dress(axis, head, "", side if axis is axes[row, 0] else "")
            axis.set_xticks([])
            axis.set_yticks([])
            colour_bar(figure, axis, picture)
    return figure


def draw_moved(
    start_xy: ArrayLike,
    end_xy: ArrayLike,
    pixel_size_m: float | None = None,
    title: str | None = None,
) -> Figure:
    """The movement of every position, as an arrow from its start: both (M, 2) [x, y] object px, y down.

    Of more than 2,000 positions every k-th is drawn.
    The common movement is removed, because the image has no fixed origin. The scale of the arrows is written
    above them. Axes are in micrometres when pixel_size_m is given.

    >>> places = np.stack(np.meshgrid([0, 9, 18], [0, 9, 18]), -1).reshape(9, 2)
    >>> draw_moved(places, places + 0.1).get_axes()[0].get_xlabel()
    'x / px'
    """
    start, end = np.asarray(start_xy, np.float64), np.asarray(end_xy, np.float64)
    if start.ndim != 2 or start.shape[1:] != (2,) or end.shape != start.shape or not len(start):
        raise InputError(f"positions {start.shape} and {end.shape}; expected both (M, 2)")
    moved = end - start
    moved = moved - np.median(moved, axis=0)
    length = np.hypot(*moved.T)
    step, unit = (1.0, "px") if pixel_size_m is None else (pixel_size_m * 1e6, "µm")
    still = length.max() < 0.01
    some = few(len(start), _MOST_ARROWS)
    times = 1.0 if still else stretch(start[some], moved[some])
    rms = float(np.sqrt(np.mean(length**2)))
    words = f"moved by {rms:.2f} px (rms), at most {length.max():.2f} px; arrows {times:g} times as long"
    figure = new_figure(6.4, 5.6, title or ("no position was moved by 0.01 px" if still else words))
    axis = figure.subplots()
    axis.plot(*(start[some] * step).T, ".", color=FAINT, ms=2.5, zorder=1)
    arrows = axis.quiver(
        *(start[some] * step).T, *(moved[some] * step * times).T, length[some], angles="xy", scale_units="xy",
        scale=1, cmap=PHASE_MAP, clim=(0.0, max(float(length.max()), 0.01)), width=0.004, zorder=2,
    )  # fmt: skip
    axis.set_aspect("equal", adjustable="datalim")
    axis.invert_yaxis()
    dress(axis, "", f"x / {unit}", f"y / {unit}")
    colour_bar(figure, axis, arrows, "moved by / px")
    return figure
