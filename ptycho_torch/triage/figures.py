"""The confusion matrix of triage as a figure, with its numbers."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ptycho.report.style import INK, LABEL_PT, TICK_PT, dress, new_figure
from ptycho.triage.labels import LABELS
from ptycho.triage.precision import Judged


def confusion_figure(judged: Judged, title: str) -> Figure:
    """Rows are true labels, columns called labels; colour is the share of the row."""
    matrix = judged.confusion
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = new_figure(6.4, 5.6, title)
    axis = figure.add_subplot()
    axis.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    for row in range(len(LABELS)):
        for column in range(len(LABELS)):
            ink = "white" if share[row, column] > 0.5 else INK
            axis.text(
                column, row, str(matrix[row, column]), ha="center", va="center", fontsize=TICK_PT, color=ink
            )
    dress(axis, f"mean average precision {judged.mean:.3f}", "called", "is")
    ticks = range(len(LABELS))
    axis.set_xticks(ticks, LABELS, rotation=40, ha="right")
    axis.set_yticks(ticks, [f"{name}  AP {judged.average_precision[name]:.3f}" for name in LABELS])
    axis.tick_params(length=0)
    axis.yaxis.label.set_fontsize(LABEL_PT)
    return figure
