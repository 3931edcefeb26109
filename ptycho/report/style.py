"""One style for all figures: dark on white, thin lines, colour bars as high as their image.

Built on `matplotlib.figure.Figure` alone, so that no window, backend or global style is changed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from ptycho.report.hues import phase_colours

PathLike = str | os.PathLike[str]

INK, FAINT = "#222222", "#9a9a9a"
COLOURS = ("#1b6ca8", "#d1603d", "#3c8d5a", "#7b5ea7", "#b8860b", "#5f6b73")
AMPLITUDE_MAP, PHASE_MAP, COUNT_MAP, SIGNED_MAP = "gray", "viridis", "magma", "RdBu_r"
TITLE_PT, LABEL_PT, TICK_PT = 11.0, 9.0, 8.0
_DPI = 160
_NOTEBOOK_DPI = 80
#: phase around the circle, equally bright everywhere: the hues of `complex_colours`
PHASE_CIRCLE = ListedColormap(phase_colours(np.linspace(-np.pi, np.pi, 256)), "phase circle")


class Picture(Figure):
    """A matplotlib Figure that a notebook can show without pyplot and its backends."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=_NOTEBOOK_DPI)
        return stream.getvalue()


def new_figure(
    width_in: float, height_in: float, title: str | None = None, subtitle: str | None = None
) -> Figure:
    """An empty white figure of this size; the layout is computed when it is saved."""
    figure = Picture(figsize=(width_in, height_in), layout="constrained", facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
    lines = [line for line in (title, subtitle) if line]
    if lines:
        figure.suptitle("\n".join(lines), fontsize=TITLE_PT, color=INK)
    return figure


def save(figure: Figure, path: PathLike) -> Path:
    """Write the figure as a PNG, whole or not at all, and return its path."""
    from ptycho.io.atomic import atomic_write

    with atomic_write(path) as temporary:
        # No date and no version inside, so that the same result is the same file.
        figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})
    return Path(path)


def dress(axis: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Title, labels and thin lines of one plot."""
    axis.set_title(title, fontsize=LABEL_PT + 1, color=INK, loc="left")
    axis.set_xlabel(xlabel, fontsize=LABEL_PT, color=INK)
    axis.set_ylabel(ylabel, fontsize=LABEL_PT, color=INK)
    axis.tick_params(which="both", labelsize=TICK_PT, colors=INK, length=3, width=0.6)
    for spine in axis.spines.values():
        spine.set_linewidth(0.6)
        spine.set_color(FAINT)


def plain(axis: Axes, xlabel: str, ylabel: str) -> None:
    """A line plot: two spines, a faint grid."""
    dress(axis, "", xlabel, ylabel)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, color="#e6e6e6", lw=0.6)
    axis.set_axisbelow(True)


def plain_log_labels(axis: Axes, lines: Iterable[NDArray[np.float64]]) -> None:
    """Plain numbers on a log axis; 2, 3 and 5 are labelled too where the values span under two decades."""
    values = np.concatenate([line[np.isfinite(line)] for line in lines])
    narrow = len(values) > 0 and values.max() < 100 * values.min()

    def short(value: float, _: float) -> str:
        return f"{value:g}" if f"{value:e}"[0] in "235" else ""

    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(FuncFormatter(short) if narrow else NullFormatter())


def colour_bar(figure: Figure, axis: Axes, picture: Any, label: str = "") -> Any:
    """A narrow colour bar on the right of an axis."""
    bar = figure.colorbar(picture, cax=axis.inset_axes((1.03, 0.0, 0.045, 1.0)))
    bar.ax.tick_params(labelsize=TICK_PT, colors=INK, length=2, width=0.6)
    bar.outline.set_linewidth(0.0)
    if label:
        bar.set_label(label, fontsize=LABEL_PT, color=INK)
    return bar


def extent_of(
    shape: tuple[int, ...], pixel_size_m: float | None
) -> tuple[tuple[float, float, float, float], str]:
    """The extent for `imshow`, in micrometres or pixels, and its unit."""
    scale, unit = (1.0, "px") if pixel_size_m is None else (pixel_size_m * 1e6, "µm")
    return (0.0, shape[1] * scale, shape[0] * scale, 0.0), unit
