"""The images of several methods beside the truth, each with its error: one figure for one or more scans."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ptycho.evaluation.judge import Evaluation
from ptycho.report.fields import colour_limits
from ptycho.report.style import AMPLITUDE_MAP, PHASE_MAP, colour_bar, dress, extent_of, new_figure

__all__ = ["draw_methods"]


def draw_methods(judged: Mapping[str, Mapping[str, Evaluation]], title: str | None = None) -> Figure:
    """Amplitude above phase: the truth, then the image of each method with its complex NRMSE.

    judged: scan -> method -> its judgement; each scan takes two rows. All images are in the gauge of their
    truth and share its colour ranges; axes in pixels. Raises ValueError without a judgement.

    Example:
        >>> from ptycho.evaluation import evaluate
        >>> wave = np.exp(1j * np.random.default_rng(0).random((32, 32)))
        >>> figure = draw_methods({"a scan": {"engine": evaluate(wave, wave)}})
        >>> [axis.get_title("left") for axis in figure.axes[:2]]
        ['a scan: truth, amplitude', 'engine: cNRMSE 0.000']
    """
    if not judged or not all(judged.values()):
        raise ValueError("draw_methods: there is no judgement to draw")
    columns = 1 + max(len(methods) for methods in judged.values())
    figure = new_figure(3.3 * columns, 3.2 * 2 * len(judged) + 0.3, title)
    grid = figure.subplots(2 * len(judged), columns, squeeze=False)
    for number, (scan, methods) in enumerate(judged.items()):
        rows = grid[2 * number : 2 * number + 2]
        truth = next(iter(methods.values())).aligned.reference
        centre = np.angle(truth.mean())
        fields = [truth, *(one.aligned.recon for one in methods.values())]
        errors = [f"{method}: cNRMSE {one.nrmse:.3f}" for method, one in methods.items()]
        everywhere = np.ones(truth.shape, bool)
        pictures = (
            ([np.abs(field) for field in fields], AMPLITUDE_MAP, [f"{scan}: truth, amplitude", *errors]),
            (
                [np.angle(field * np.exp(-1j * centre)) + centre for field in fields],
                PHASE_MAP,
                [f"{scan}: truth, phase / rad", *(["phase / rad"] * len(errors))],
            ),
        )
        for axes, (images, colours, titles) in zip(rows, pictures, strict=True):
            low, high = colour_limits(images[0], everywhere)
            for axis, image, text in zip(axes, images, titles, strict=False):
                extent, unit = extent_of(image.shape, None)
                shown = axis.imshow(image, cmap=colours, vmin=low, vmax=high, extent=extent)
                dress(axis, text, f"x / {unit}" if axes is rows[-1] else "", "")
            axes[0].set_ylabel(f"y / {unit}")
            colour_bar(figure, axes[len(images) - 1], shown)
            for axis in axes[len(images) :]:
                axis.set_axis_off()
    return figure
