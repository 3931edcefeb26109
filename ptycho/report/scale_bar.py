"""A scale bar on an image of known pixel size."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes


def scale_bar(axis: Axes, width_um: float, unit_um: float) -> None:
    """A bar of a round length, about a quarter of an image that is `width_um` wide.

    `unit_um`: micrometres in one unit of the axis: 1 where the axis is in micrometres.
    """
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    power = 10.0 ** np.floor(np.log10(width_um / 4))
    length = float(power * max(step for step in (1, 2, 5) if step * power <= width_um / 4))
    label = f"{length:g} µm" if length >= 0.1 else f"{length * 1e3:g} nm"
    bar = AnchoredSizeBar(
        axis.transData, length / unit_um, label, "lower right", pad=0.35, sep=3, frameon=True,
        size_vertical=length / unit_um / 25, color="#222222", fontproperties={"size": 8.0},
    )  # fmt: skip
    bar.patch.set(alpha=0.75, linewidth=0)
    axis.add_artist(bar)
