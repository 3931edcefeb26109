"""The picture of a training of the positions network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ptycho.report.style import new_figure
from ptycho_torch.positions.pairs import Pairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_beliefs(pairs: Pairs, formula: Tensor, network: Tensor) -> Figure:
    """Misfit, the formula's distribution and the network's (B, S^2) of some maps; a cross at the truth."""
    figure = new_figure(2.2 * len(pairs), 6.6)
    axes = figure.subplots(3, len(pairs), squeeze=False)
    side = pairs.misfits.shape[-1]
    rows = (("misfit", pairs.misfits), ("formula", formula), ("network", network))
    for line, (name, every) in zip(axes, rows, strict=True):
        for axis, values, step, true in zip(line, every, pairs.step_px, pairs.true_xy, strict=True):
            reach = float(step) * side / 2
            image = values.reshape(side, side)
            image = torch.where(image.isfinite(), image, torch.nan).numpy()
            axis.imshow(
                image, cmap="gray" if name == "misfit" else "gray_r", extent=(-reach, reach, reach, -reach)
            )
            axis.plot(*true.tolist(), "+", color="C3", ms=9)
            axis.set(title=name, xlim=(-reach, reach), ylim=(reach, -reach))
    for axis in axes[-1]:
        axis.set_xlabel("shift x / px")
    return figure
