"""The figure of a comparison of backends: every error beside its tolerance, and both images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho.report.style import AMPLITUDE_MAP, COLOURS, FAINT, INK, SIGNED_MAP, dress, new_figure, save


def parity_figure(
    path: Path,
    sections: Mapping[str, Sequence[tuple[float, float]]],
    first: NDArray[np.complex64],
    second: NDArray[np.complex64],
) -> Path:
    """Draw errors (value, tolerance) by section on a log axis, and below the images and their difference.

    Images (H, W) complex: PyTorch's and TensorFlow's. Errors of zero stand at the left edge.
    """
    figure = new_figure(9.0, 0.32 * len(sections) + 4.6, "TensorFlow against PyTorch")
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=(0.32 * len(sections) + 1.0, 3.4))
    axis, bottom = halves[0, 0].subplots(), halves[1, 0]
    names = list(sections)
    for place, name in enumerate(names):
        errors, allowed = np.array(sections[name]).T
        jitter = np.linspace(-0.22, 0.22, len(errors)) if len(errors) > 1 else np.zeros(1)
        far = errors > np.where(allowed > 0, allowed, 0) * (1 + 1e-12)
        far &= ~((allowed == 0) & (errors <= 1e-17))
        axis.plot(errors[~far], place + jitter[~far], ".", ms=4, color=COLOURS[0])
        axis.plot(errors[far], place + jitter[far], "x", ms=5, color=COLOURS[1])
        if allowed.max() > 0:
            axis.plot([allowed.max()] * 2, [place - 0.4, place + 0.4], "-", lw=1.4, color=INK)
    axis.set_xscale("log")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.grid(axis="x", color=FAINT, lw=0.3, alpha=0.6)
    dress(axis, "every compared quantity; bars: what is allowed", "difference / largest magnitude", "")
    modulus = [np.abs(image) for image in (first, second)]
    top_value = max(float(image.max()) for image in modulus)
    difference = np.abs(second) - np.abs(first)
    reach = max(float(np.abs(difference).max()), 1e-12)
    axes = bottom.subplots(1, 3)
    panels = (
        ("PyTorch, amplitude", modulus[0], 0.0, top_value, AMPLITUDE_MAP),
        ("TensorFlow, amplitude", modulus[1], 0.0, top_value, AMPLITUDE_MAP),
        ("difference", difference, -reach, reach, SIGNED_MAP),
    )
    for one, (title, image, low, high, colours) in zip(axes, panels, strict=True):
        shown = one.imshow(image, vmin=low, vmax=high, cmap=colours, interpolation="nearest")
        one.set_title(title, fontsize=10, color=INK, loc="left")
        one.set_xticks([])
        one.set_yticks([])
        bottom.colorbar(shown, ax=one, shrink=0.75).ax.tick_params(labelsize=8, colors=INK)
    return save(figure, path)
