"""Geometry of line charts and position maps for inline SVG; the template draws, so that the page's colours
apply and every name is escaped with the rest of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ptycho.report.movement import stretch
from ptycho.report.panels import Panel, colour_of, panel, spread

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 42
_MAX_DOTS = 12_000
_MAX_POINTS = 1_500

Series = tuple[Sequence[float], Sequence[float]]


class Tick(NamedTuple):
    """A mark on an axis: position in px, and text."""

    at: float
    label: str


class Line(NamedTuple):
    """One series: its name, polylines of 'x,y' points, single points to be drawn as dots, its style."""

    name: str
    pieces: list[str]
    dots: list[tuple[float, float]]
    style: str


class Chart(NamedTuple):
    """A chart in a box of WIDTH x HEIGHT px."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


class Dots(NamedTuple):
    """Positions as circles (x, y, colour) of one radius in a box of width x height px; a colour strip."""

    title: str
    width: float
    height: float
    radius: float
    circles: list[tuple[float, float, str]]
    strip: Panel
    caption: str


class Arrows(NamedTuple):
    """Movements as lines (x1, y1, x2, y2, colour) with a dot at each start; other fields as in Dots."""

    title: str
    width: float
    height: float
    radius: float
    lines: list[tuple[float, float, float, float, str]]
    strip: Panel
    caption: str


def line_chart(
    series: Mapping[str, Series],
    x_label: str,
    y_label: str,
    *,
    title: str = "",
    log: bool = False,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    styles: Mapping[str, str] | None = None,
) -> Chart | None:
    """Lines (x, y) by name; a value that is not finite breaks its line. None if nothing can be drawn.

    log asks for a logarithmic y axis, taken where all values are positive. styles: name -> CSS class.
    """
    clean = {name: _thinned(np.asarray(x, float), np.asarray(y, float)) for name, (x, y) in series.items()}
    finite = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in clean.values()]
    xs, ys = (np.concatenate([pair[i] for pair in finite] or [np.empty(0)]) for i in (0, 1))
    if not ys.size:
        return None
    log = log and bool(ys.min() > 0)
    x0, x1 = x_limits or _widened(float(xs.min()), float(xs.max()), 0.0, False)
    y0, y1 = y_limits or _widened(float(ys.min()), float(ys.max()), 0.05, log)

    def place_x(value: float) -> float:
        return LEFT + (value - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def place_y(value: float) -> float:
        share = math.log(value / y0) / math.log(y1 / y0) if log else (value - y0) / (y1 - y0)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    lines = []
    for number, (name, (x, y)) in enumerate(clean.items()):
        points = [(place_x(a), place_y(b)) if math.isfinite(b) else None for a, b in zip(x, y, strict=True)]
        pieces, dots = _pieces(points)
        lines.append(Line(name, pieces, dots, (styles or {}).get(name, f"s{number % 6}")))
    whole = all(float(x).is_integer() for x in (xs.min(), xs.max())) and x_limits is None
    x_ticks = [t for t in ticks(x0, x1) if not whole or float(t).is_integer()]
    return Chart(
        title,
        x_label,
        y_label,
        [Tick(round(place_x(t), 1), _label(t)) for t in x_ticks],
        [Tick(round(place_y(t), 1), _label(t)) for t in ticks(y0, y1, log)],
        lines,
    )


def position_map(
    positions_xy: ArrayLike, values: ArrayLike, title: str, colours: str, unit: str = "", side: float = 420.0
) -> Dots | None:
    """Values (M,) at positions (M, 2) [x, y] px, y down; at most 12,000 dots are drawn, evenly chosen."""
    places, numbers = np.asarray(positions_xy, np.float64), np.asarray(values, np.float64)
    if places.ndim != 2 or places.shape[1:] != (2,) or numbers.shape != places.shape[:1] or not len(places):
        return None
    step = -(-len(places) // _MAX_DOTS)
    low, high = spread(numbers, 1.0)
    kept = np.isfinite(numbers) & np.isfinite(places).all(axis=1)
    places, numbers = places[kept][::step], numbers[kept][::step]
    if not len(places):
        return None
    extent = np.ptp(places, axis=0)
    scale = side / max(float(extent.max()), 1e-9)
    area = max(float(extent[0]), extent.max() / 50) * max(float(extent[1]), extent.max() / 50) * scale**2
    radius = float(np.clip(0.5 * math.sqrt(area / len(places)), 1.2, 14))
    shown = (places - places.min(axis=0)) * scale + radius + 1
    width, height = (float(v) for v in extent * scale + 2 * radius + 2)
    tints = colour_of(numbers, (low, high), colours)
    circles = [(round(float(x), 1), round(float(y), 1), t) for (x, y), t in zip(shown, tints, strict=True)]
    strip = panel(np.array([[low, high]]), "", colours, limits=(low, high), unit=unit)
    more = f"every {step}th position" if step > 1 else f"{len(places)} positions"
    return Dots(title, round(width, 1), round(height, 1), round(radius, 2), circles, strip, more)


def moved_map(
    start_xy: ArrayLike, end_xy: ArrayLike, title: str, colours: str, side: float = 420.0
) -> Arrows | None:
    """Movements between two sets of positions (M, 2) [x, y] px without their common movement, y down.

    None if the sets differ in length, or if no position moved by a hundredth of a pixel. At most 12,000
    arrows are drawn, evenly chosen.
    """
    start, end = np.asarray(start_xy, np.float64), np.asarray(end_xy, np.float64)
    if start.ndim != 2 or start.shape[1:] != (2,) or end.shape != start.shape or len(start) < 2:
        return None
    moved = end - start
    moved = moved - np.median(moved, axis=0)
    length = np.hypot(*moved.T)
    if not np.isfinite(length).all() or length.max() < 0.01:
        return None
    extent = np.ptp(start, axis=0)
    step = -(-len(start) // _MAX_DOTS)
    scale, times = side / max(float(extent.max()), 1e-9), stretch(start[::step], moved[::step])
    margin = float(length.max()) * times * scale + 3
    tails = (start - start.min(axis=0)) * scale + margin
    heads = tails + moved * times * scale
    limits = (0.0, max(float(length.max()), 1e-9))
    tints = colour_of(length[::step], limits, colours)
    lines = [
        (*(round(float(v), 1) for v in (*tail, *head)), tint)
        for tail, head, tint in zip(tails[::step], heads[::step], tints, strict=True)
    ]
    strip = panel(np.array([limits]), "", colours, limits=limits, unit="px")
    width, height = (float(v) for v in extent * scale + 2 * margin)
    rms = float(np.sqrt(np.mean(length**2)))
    words = f"{rms:.2f} px rms, at most {length.max():.2f} px; lines {times:g} times as long"
    return Arrows(title, round(width, 1), round(height, 1), 1.6, lines, strip, words)  # type: ignore[arg-type]


def ticks(low: float, high: float, log: bool = False) -> list[float]:
    """Round numbers within [low, high]: steps of 1, 2 or 5; on a log axis powers of ten first."""
    if log:
        decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for heads in ((1,), (1, 2, 5), range(1, 10)):
            found = [head * 10.0**decade for decade in decades for head in heads]
            found = [t for t in found if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]
            if len(found) >= 3:
                return found[:: -(-len(found) // 8)]
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(head * power for head in (1, 2, 5, 10) if head * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _label(value: float) -> str:
    return "0" if abs(value) < 1e-300 else f"{value:.6g}".replace("-", "−")


def _widened(low: float, high: float, margin: float, log: bool) -> tuple[float, float]:
    if log:
        ratio = max(high / low, 1.02) ** margin
        return low / ratio, high * ratio
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        half = 0.5 * abs(low) or 0.5
        return low - half, high + half
    extra = margin * (high - low)
    return low - extra, high + extra


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 1,500 points, always with the last one: a screen cannot show more."""
    length = min(len(x), len(y))
    keep = np.unique(np.round(np.linspace(0, length - 1, min(length, _MAX_POINTS))).astype(int))
    return x[keep], y[keep]


def _pieces(points: Sequence[tuple[float, float] | None]) -> tuple[list[str], list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    lines = [" ".join(f"{x:.1f},{y:.1f}" for x, y in run) for run in runs if len(run) > 1]
    return lines, [(round(x, 1), round(y, 1)) for run in runs if len(run) == 1 for x, y in run]
