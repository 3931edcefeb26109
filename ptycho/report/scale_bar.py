"""A scale bar on an image: micrometres or nanometres where the pixel size is known, else pixels."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes


def bar_length(width: float) -> float:
    """A round length, 1, 2 or 5 times a power of ten: the longest that is at most a quarter of `width`.

    >>> bar_length(2.8), bar_length(130)
    (0.5, 20.0)
    """
    power = 10.0 ** np.floor(np.log10(width / 4))
    return float(power * max(step for step in (1, 2, 5) if step * power <= width / 4 * (1 + 1e-9)))


def bar_label(length: float, unit: str) -> str:
    """A length as text, in `unit` 'µm' or 'px'; below 0.1 µm in nm."""
    return f"{length * 1e3:g} nm" if unit == "µm" and length < 0.1 else f"{length:g} {unit}"


def scale_bar(axis: Axes, width: float, unit: str = "µm", step: float = 1.0) -> None:
    """A bar of a round length, about a quarter of an image that is `width` wide, in µm or px.

    `step`: length of one axis unit, in this unit: 1 if the axis has the unit.
    """
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    length = bar_length(width)
    bar = AnchoredSizeBar(
        axis.transData, length / step, bar_label(length, unit), "lower right", pad=0.35, sep=3, frameon=True,
        size_vertical=width / step / 100, color="#222222", fontproperties={"size": 8.0},
    )  # fmt: skip
    bar.patch.set(alpha=0.75, linewidth=0)
    axis.add_artist(bar)
