"""Figures (matplotlib) and short HTML of a scan, an image and a trained model.

Every `draw_...` returns a `matplotlib.figure.Figure`, which a notebook shows and `savefig` writes; pyplot and
its global state are not used. Every `..._html` is a fragment for a notebook: a thumbnail and a few numbers,
without style sheets, scripts or anything fetched; every text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ptycho.config.settings import TrainingConfig
from ptycho.report.drawing import draw_probe, draw_reconstruction
from ptycho.report.drawing_history import draw_history
from ptycho.report.drawing_scan import few
from ptycho.report.fields import colour_limits, lit_field
from ptycho.report.panels import Panel, bar_of, complex_panel, panel
from ptycho.report.scale_bar import scale_bar
from ptycho.report.style import (
    AMPLITUDE_MAP,
    COUNT_MAP,
    PHASE_MAP,
    colour_bar,
    dress,
    new_figure,
)
from ptycho.scan.raw_data import RawData

__all__ = [
    "draw_history", "draw_probe", "draw_reconstruction", "draw_scan", "image_html", "model_html", "scan_html",
]  # fmt: skip

_SAMPLE = 256
_THUMBNAIL_PX = 180


def draw_scan(raw: RawData, title: str | None = None) -> Figure:
    """A scan: the counts of every pattern at its position, the mean pattern, the amplitude of the probe
    guess.

    Lengths are in micrometres if the scan gives the size of an object pixel, else in pixels. At most 256
    patterns, evenly chosen, are read for the mean. Counts are squares of the amplitude.

    >>> from ptycho.simulation import Scenario, simulate
    >>> scan = simulate(Scenario(N=32, n_positions=16)).raw
    >>> [axis.get_title("left") for axis in draw_scan(scan).axes[:3]]
    ['16 positions', 'mean pattern', 'probe']
    """
    rows, mean, counts = _sampled(raw)
    size = raw.object_pixel_size_m
    step, unit = (1.0, "px") if size is None else (size * 1e6, "µm")
    figure = new_figure(12.6, 3.9 + 0.3 * bool(title), title)
    places, pattern, probe = figure.subplots(1, 3)
    points = raw.positions_px * step
    places.plot(*points[few(len(points))].T, ".", color="#c9c9c9", ms=3, zorder=0)
    dots = places.scatter(*points[rows].T, c=counts, s=16, cmap=PHASE_MAP, linewidths=0)
    places.set_aspect("equal", adjustable="datalim")
    places.invert_yaxis()
    dress(places, f"{raw.n_positions} positions", f"x / {unit}", f"y / {unit}")
    colour_bar(figure, places, dots, "counts of a pattern")

    low, high = _decades(mean)
    shown = pattern.imshow(np.clip(mean, low, None), norm=LogNorm(low, high), cmap=COUNT_MAP)
    dress(pattern, "mean pattern", "detector px", "")
    colour_bar(figure, pattern, shown, "counts")

    modes = raw.probe_modes
    amplitude = np.sqrt(np.sum(np.abs(modes) ** 2, axis=0))
    shown = probe.imshow(amplitude, cmap=COUNT_MAP, vmin=0)
    name = "probe" + (f", {len(modes)} modes" if len(modes) > 1 else "")
    dress(probe, name + (", made from the patterns" if raw.probe_made else ""), "object px", "")
    colour_bar(figure, probe, shown)
    scale_bar(probe, raw.N * step, unit, step)
    return figure


def scan_html(raw: RawData, name: str = "Scan") -> str:
    """A scan in a notebook: mean pattern and probe as thumbnails, number and side of patterns, unit, extent.

    At most 256 patterns are read.
    """
    _, mean, counts = _sampled(raw)
    low, high = _decades(mean)
    amplitude = np.abs(raw.probe_modes[0])
    size = raw.object_pixel_size_m
    pictures = [
        panel(np.maximum(mean, low), "mean pattern", COUNT_MAP, limits=(low, high), log=True),
        panel(amplitude, "probe", COUNT_MAP, limits=(0.0, max(float(amplitude.max()), 1e-30))),
    ]
    width, height = np.ptp(raw.positions_px, axis=0)
    extent = f"{width:.0f} × {height:.0f} px"
    if size is not None:
        extent = f"{width * size * 1e6:.3g} × {height * size * 1e6:.3g} µm ({extent})"
    numbers = {
        "patterns": f"{raw.n_positions} of {raw.N} × {raw.N} px",
        "unit": raw.diffraction_unit,
        "counts a pattern": f"{np.mean(counts):.4g}",
        "extent": extent,
        "object pixel": "not known" if size is None else f"{size * 1e9:.4g} nm",
        "file": "" if raw.source is None else str(raw.source),
    }
    return _fragment(name, pictures, numbers)


def image_html(
    obj: ArrayLike,
    coverage: ArrayLike | None = None,
    *,
    pixel_size_m: float | None = None,
    numbers: Mapping[str, str] = {},
    name: str = "Reconstruction",
) -> str:
    """An image in a notebook: amplitude, phase and both as one colour, in the well lit area, and numbers.

    obj (H, W) complex, coverage (H, W) or None; numbers: label -> text.

    >>> fragment = image_html(np.ones((8, 8), complex), numbers={"R": "0.031"})
    >>> fragment.count("<img"), "0.031" in fragment
    (3, True)
    """
    field, lit, _ = lit_field(obj, coverage)
    limits, bar = colour_limits(np.abs(field), lit), bar_of(field.shape[1], pixel_size_m)
    phase = np.angle(field)
    pictures = [
        panel(np.abs(field), "amplitude", AMPLITUDE_MAP, limits=limits, bar=bar, max_side=512),
        panel(phase, "phase", PHASE_MAP, limits=colour_limits(phase, lit), unit="rad", bar=bar, max_side=512),
        complex_panel(field, "complex", limits, bar=bar, max_side=512),
    ]
    height, width = field.shape
    size = f"{width} × {height} px"
    if pixel_size_m is not None:
        size = f"{width * pixel_size_m * 1e6:.3g} × {height * pixel_size_m * 1e6:.3g} µm ({size})"
    return _fragment(name, pictures, {"size": size, **numbers})


def model_html(
    config: TrainingConfig,
    *,
    history: Mapping[str, Sequence[float]] | None = None,
    probe: ArrayLike | None = None,
    name: str = "Trained model",
) -> str:
    """A trained model in a notebook: its properties, final losses and probe (P, N, N)."""
    model = config.model
    numbers = {
        "network": model.architecture,
        "patterns": f"{model.N} × {model.N} px, groups of {model.gridsize**2}",
        "backend": config.backend,
    }
    for label, series in (("training loss", "train_loss"), ("validation loss", "val_loss")):
        values = (history or {}).get(series)
        if values is not None and len(values):
            numbers[label] = f"{float(values[-1]):.5g} after {len(values)} epochs"
    pictures = []
    if probe is not None:
        amplitude = np.abs(np.asarray(probe).reshape(-1, model.N, model.N)[0])
        pictures.append(panel(amplitude, "probe", COUNT_MAP, limits=(0.0, float(amplitude.max()) or 1.0)))
    return _fragment(name, pictures, numbers)


def _sampled(raw: RawData) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Rows (K,) that were read, their mean pattern (N, N) and the counts (K,) of each; bad pixels are 0."""
    rows = np.unique(np.linspace(0, raw.n_positions - 1, min(raw.n_positions, _SAMPLE)).astype(np.int64))
    amplitude = raw.amplitude_by_rows()
    mean, counts = np.zeros((raw.N, raw.N)), np.empty(len(rows))
    for number, row in enumerate(rows):
        seen = np.square(np.asarray(amplitude[row : row + 1][0]), dtype=np.float64)
        mean += seen / len(rows)
        counts[number] = seen.sum()
    return rows, mean, counts


def _decades(mean: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of a logarithmic scale of a mean pattern: at most six decades under its brightest pixel."""
    high = max(float(mean.max()), 1e-12)
    lit = mean[mean > 0]
    return max(float(lit.min()) if lit.size else 0.0, 1e-6 * high), max(high, 1.000001e-6 * high)


def _fragment(name: str, pictures: Sequence[Panel], numbers: Mapping[str, str]) -> str:
    """Thumbnails in a row over a table of numbers."""
    shown = "".join(
        f'<figure style="margin:0"><img src="{p.uri}" alt="{escape(p.title)}" '
        f'style="height:{_THUMBNAIL_PX}px;image-rendering:{"pixelated" if p.width < 300 else "auto"}">'
        f'<figcaption style="font-size:85%">{escape(p.title)}{_ends(p)}</figcaption></figure>'
        for p in pictures
    )
    cell = '<td style="text-align:left">'
    rows = "".join(
        f"<tr>{cell}{escape(label)}</td>{cell}{escape(text)}</td></tr>"
        for label, text in numbers.items()
        if text
    )
    row = "display:flex;gap:14px;flex-wrap:wrap;margin:4px 0"
    return f'<div><b>{escape(name)}</b><div style="{row}">{shown}</div><table>{rows}</table></div>'


def _ends(p: Panel) -> str:
    """The colour limits of a picture as text."""
    return f" {escape(p.low)} … {escape(p.high)}{' ' + escape(p.unit) if p.unit else ''}"
