"""Figures of a registration: images before and after, and the displacement as arrows over its length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptycho.report import style
from ptycho.report.panels import spread
from ptycho.warp.prepare import Pair, warp_image
from ptycho.warp.score import Score
from ptycho.warp.warp import Warp

Floats = NDArray[np.float64]
_ARROWS = 14
#: weight above which a pixel's difference is drawn
_SEEN = 0.3


def draw_registration(pair: Pair, warp: Warp, before: Score, after: Score, names: Sequence[str]) -> Figure:
    """Fixed image, moving image before and after, both differences, and the displacement.

    names: of the moving and of the fixed image. The part with more variation, amplitude or phase, is shown;
    each image without its mean, in units of its own spread, because the factor between them is not
    determined.
    """
    flat = Pair(**{**vars(pair), "corner_xy": (0, 0)})
    moved = warp_image(pair.moving, flat, warp)
    fixed, first, last = (_shown(image, pair) for image in (pair.fixed, pair.moving, moved))
    for image in (first, last):
        if pair.part != "complex" and (image * fixed).mean() < 0:
            image *= -1
    tall = float(np.clip(fixed.shape[0] / fixed.shape[1], 0.4, 2.0))
    line = f"score {before.total:.2f} before, {after.total:.2f} after"
    figure = style.new_figure(11.4, 2 * (3.0 * tall + 0.4) + 0.6, None, line)
    axes = figure.subplots(2, 3, squeeze=False)
    low, high = spread(fixed)
    reach = max(float(np.percentile(np.abs(first - fixed), 99.5)), 1e-9)
    for axis, image, head in (
        (axes[0, 0], fixed, f"{names[1]} (fixed)"),
        (axes[0, 1], first, f"{names[0]}, before"),
        (axes[0, 2], last, f"{names[0]}, after"),
    ):
        style.colour_bar(figure, axis, axis.imshow(image, cmap=style.AMPLITUDE_MAP, vmin=low, vmax=high))
        style.dress(axis, head.replace("$", r"\$"), "x / px", "y / px")
    seen = np.minimum(pair.fixed_weight, warp_image(pair.moving_weight, flat, warp, order=1)) > _SEEN
    for axis, image, head in (
        (axes[1, 1], first - fixed, "before less fixed"),
        (axes[1, 2], np.where(seen, last - fixed, 0.0), "after less fixed"),
    ):
        style.colour_bar(figure, axis, axis.imshow(image, cmap=style.SIGNED_MAP, vmin=-reach, vmax=reach))
        style.dress(axis, head, "x / px", "y / px")
    shown = draw_field(axes[1, 0], warp.field())
    style.colour_bar(figure, axes[1, 0], shown)
    style.dress(axes[1, 0], "displacement / px", "x / px", "y / px")
    return figure


def draw_field(axis: Axes, field: Floats, longest: float | None = None) -> Any:
    """The length of a displacement field (H, W, 2) px as colour, and arrows from fixed to moving; the
    picture."""
    length = np.hypot(field[..., 0], field[..., 1])
    top = max(float(length.max()), 1e-3) if longest is None else longest
    shown = axis.imshow(length, cmap=style.PHASE_MAP, vmin=0, vmax=top)
    step = max(1, max(length.shape) // _ARROWS)
    y, x = np.mgrid[step // 2 : length.shape[0] : step, step // 2 : length.shape[1] : step]
    arrows = field[step // 2 :: step, step // 2 :: step]
    axis.quiver(
        x, y, arrows[..., 0], arrows[..., 1], color="white", angles="xy", scale_units="xy",
        scale=top / step * 0.9 if top > 0 else 1.0, width=0.005,
    )  # fmt: skip
    return shown


def draw_fields(rows: Sequence[tuple[Floats, Floats, Floats, Floats]]) -> Figure:
    """One row a pair: fixed and moving details (H, W), the true and the predicted displacement (h, w, 2)
    px."""
    figure = style.new_figure(11.4, 2.7 * len(rows) + 0.3)
    axes = figure.subplots(len(rows), 4, squeeze=False)
    heads = ("fixed", "moving", "true / px", "predicted / px")
    for line, (fixed, moving, true, made) in zip(axes, rows, strict=True):
        for axis, image in zip(line[:2], (fixed, moving), strict=True):
            axis.imshow(image, cmap=style.AMPLITUDE_MAP, vmin=-2, vmax=2)
        longest = max(float(np.hypot(true[..., 0], true[..., 1]).max()), 1e-3)
        for axis, field in zip(line[2:], (true, made), strict=True):
            style.colour_bar(figure, axis, draw_field(axis, field, longest))
        for axis, head in zip(line, heads, strict=True):
            style.dress(axis, head if line is axes[0] else "", "", "")
    return figure


def _shown(image: NDArray[Any], pair: Pair) -> Floats:
    """The shown part, minus its mean, divided by its spread in the common area."""
    seen = np.minimum(pair.fixed_weight, pair.moving_weight) > _SEEN
    seen = seen if seen.any() else np.ones(pair.shape, bool)
    if pair.part != "complex":
        part = image.real
    else:
        mean = pair.fixed[seen].mean()
        spreads = np.abs(pair.fixed)[seen].std(), np.angle(pair.fixed * np.conj(mean))[seen].std()
        part = (
            np.abs(image) if spreads[0] * 2 >= spreads[1] else np.angle(image * np.conj(image[seen].mean()))
        )
    return np.asarray((part - part[seen].mean()) / max(float(part[seen].std()), 1e-30))
