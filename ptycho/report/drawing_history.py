"""Losses over epochs as a Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptycho.errors import InputError
from ptycho.report.style import (
    COLOURS,
    INK,
    LABEL_PT,
    new_figure,
    plain,
    plain_log_labels,
)
from ptycho.report.wording import words


def draw_history(history: Mapping[str, Sequence[float]], title: str | None = None) -> Figure:
    """Total and validation loss over epochs, the terms of the loss below them, then the learning rate.

    history: name -> one value an epoch. `train_loss`, `val_loss`, `loss`, `r_factor` are totals; other names
    that hold 'loss' or 'nll' are terms, solid for training and dashed for validation; a term that equals a
    total, or is zero throughout, is left out. 'lr' and 'learning_rate' are rates. An axis is logarithmic
    where all its values are positive. Raises InputError where there is no loss.

    >>> [axis.get_ylabel() for axis in draw_history({"train_loss": [2.0, 1.0], "val_loss": [3.0, 2.0]}).axes]
    ['loss']
    """
    series = {
        name: np.asarray(values, np.float64)
        for name, values in history.items()
        if np.ndim(values) == 1 and len(values)
    }
    losses = {name: v for name, v in series.items() if "loss" in name or "nll" in name or name == "r_factor"}
    if not losses:
        raise InputError(f"history holds no loss to draw; its names are {', '.join(history) or 'none'}")
    totals = {name: v for name, v in losses.items() if _quantity(name) in _TOTALS}
    terms = {name: v for name, v in losses.items() if name not in totals and _tells(v, totals)}
    panels = [("loss", totals or terms)]
    if totals and terms:
        panels.append(("terms of the loss", terms))
    rates = {
        name: v for name, v in series.items() if name in ("lr", "learning_rate") or name.startswith("lr-")
    }
    if rates:
        panels.append(("learning rate", rates))
    heights = [1 if label == "learning rate" else 3 for label, _ in panels]
    figure = new_figure(7.0, 1.0 + 1.0 * sum(heights), title)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (label, lines) in zip(axes, panels, strict=True):
        _lines(axis, lines)
        sweeps = "r_factor" in lines and label == "loss"
        plain(axis, _epochs(history) if axis is axes[-1] else "", "R" if sweeps else label)
    return figure


_TOTALS = ("loss", "r_factor")


def _epochs(history: Mapping[str, Any]) -> str:
    return "sweep" if "r_factor" in history else "epoch"


def _quantity(name: str) -> str:
    """The quantity of a series, for training and validation alike."""
    for side in ("val/", "val_", "train/", "train_"):
        name = name.removeprefix(side)
    return name


def _tells(values: NDArray[np.float64], totals: Mapping[str, NDArray[np.float64]]) -> bool:
    """Whether a term differs from the totals."""
    alike = (v for v in totals.values() if v.shape == values.shape)
    return bool(np.any(values != 0)) and not any(np.allclose(values, v, equal_nan=True) for v in alike)


def _lines(axis: Axes, lines: Mapping[str, NDArray[np.float64]]) -> None:
    """Every series in the colour of its quantity; validation is dashed."""
    quantities = list(dict.fromkeys(map(_quantity, lines)))
    single = len(quantities) == 1
    for number, (name, values) in enumerate(lines.items()):
        validates = name.startswith(("val/", "val_"))
        place = number if single else quantities.index(_quantity(name))
        axis.plot(
            np.arange(1, len(values) + 1),
            values,
            color=COLOURS[place % len(COLOURS)],
            lw=1.6,
            ls="--" if validates and not single else "-",
            marker="o" if len(values) == 1 else None,
            label=words(name.replace("/", " ")),
        )
    if all(np.all(v[np.isfinite(v)] > 0) for v in lines.values()):
        axis.set_yscale("log")
        plain_log_labels(axis, lines.values())
    if len(lines) > 1:
        axis.legend(frameon=False, fontsize=LABEL_PT, labelcolor=INK)
