"""Figures of a reconstruction: object, probe, resolution; every function returns a Figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import InputError
from ptycho.evaluation.frc import RingCorrelation, crossing, half_bit_threshold
from ptycho.evaluation.judge import Evaluation, evaluate
from ptycho.report.fields import colour_limits, complex_image, lit_field, thinned
from ptycho.report.hues import complex_colours, wheel
from ptycho.report.scale_bar import scale_bar
from ptycho.report.style import (
    AMPLITUDE_MAP,
    COLOURS,
    COUNT_MAP,
    FAINT,
    INK,
    PHASE_CIRCLE,
    PHASE_MAP,
    TICK_PT,
    colour_bar,
    dress,
    extent_of,
    new_figure,
    plain,
)
from ptycho.report.wording import length_text, metrics_line


def draw_reconstruction(
    obj: ArrayLike,
    truth: ArrayLike | None = None,
    coverage: ArrayLike | None = None,
    title: str | None = None,
    metrics: Evaluation | Mapping[str, Any] | None = None,
    pixel_size_m: float | None = None,
    origin_xy: tuple[float, float] | None = None,
) -> Figure:
    """Amplitude, phase and both as one colour of a reconstruction; below it the truth when it is known.

    Shapes: obj (H, W) complex; truth (H', W') complex; coverage (H, W), pixels above 0 are covered; origin_xy
    as in `evaluate`. With a truth the reconstruction is shown in the truth's gauge, on the judged box, both
    with the colour range of the truth. Without a truth, the well lit part (`lit_field`) is shown without
    phase and ramp.
    `metrics`, an Evaluation or its dictionary, is written under the title. Axes and bars are in micrometres
    when pixel_size_m is given, else in pixels.

    >>> wave = np.exp(1j * np.linspace(0, 1, 1024)).reshape(32, 32)
    >>> [axis.get_title("left") for axis in draw_reconstruction(wave).axes[:3]]
    ['amplitude', 'phase / rad', 'complex']
    """
    side = 1
    if truth is None:
        obj, coverage, side = thinned(obj, coverage)
    image = complex_image(obj)
    if truth is None:
        field, lit, _ = lit_field(image, coverage)
        shown = [("", field)]
    else:
        verdict = _judged(image, truth, coverage, metrics, origin_xy)
        shown = [("reconstruction", verdict.aligned.recon), ("truth", verdict.aligned.reference)]
        lit = np.ones(verdict.aligned.reference.shape, bool)
    reference = shown[-1][1]
    limits = colour_limits(np.abs(reference), lit)
    centre = np.angle(reference.mean()) if truth is not None else 0.0
    phases = [np.angle(field * np.exp(-1j * centre)) + centre for _, field in shown]
    phase_range = colour_limits(phases[-1], lit)

    rows = len(shown)
    tall = min(max(reference.shape[0] / reference.shape[1], 0.4), 2.0)
    line = metrics_line(metrics)
    height = rows * (3.3 * tall + 0.35) + 0.25 + 0.25 * bool(title) + 0.25 * bool(line)
    figure = new_figure(12.6, height, title, line)
    axes = figure.subplots(rows, 3, squeeze=False)
    for row, (name, field) in enumerate(shown):
        extent, unit = extent_of(tuple(side * n for n in field.shape), pixel_size_m)
        prefix = f"{name}: " if name else ""
        below = f"x / {unit}" if row == rows - 1 else ""
        pictures = (
            axes[row, 0].imshow(
                np.abs(field), cmap=AMPLITUDE_MAP, vmin=limits[0], vmax=limits[1], extent=extent
            ),
            axes[row, 1].imshow(
                phases[row], cmap=PHASE_MAP, vmin=phase_range[0], vmax=phase_range[1], extent=extent
            ),
            axes[row, 2].imshow(complex_colours(field, limits), extent=extent),
        )
        for axis, picture, what in zip(
            axes[row], pictures, ("amplitude", "phase / rad", "complex"), strict=True
        ):
            dress(axis, prefix + what, below, f"y / {unit}" if axis is axes[row, 0] else "")
            scale_bar(axis, extent[1], unit)
            if axis is not axes[row, 2]:
                colour_bar(figure, axis, picture)
        _legend(axes[row, 2])
    return figure


def _judged(
    image: NDArray[Any],
    truth: ArrayLike,
    coverage: ArrayLike | None,
    metrics: Evaluation | Mapping[str, Any] | None,
    origin_xy: tuple[float, float] | None,
) -> Evaluation:
    """The given judgement, or one in the box of the metrics."""
    if isinstance(metrics, Evaluation):
        return metrics
    roi = metrics.get("roi") if metrics is not None else None
    return evaluate(image, truth, roi, origin_xy=origin_xy, coverage=coverage)


def _legend(axis: Axes) -> None:
    """The disc of colours beside a complex picture: phase around, amplitude from the centre outwards."""
    side = axis.inset_axes((1.12, 0.74, 0.26, 0.26))
    side.imshow(wheel(96), extent=(-1, 1, -1, 1))
    for x, y, text, across, up in ((1.1, 0, "0", "left", "center"), (0, 1.1, "π/2", "center", "bottom"),
                                   (-1.1, 0, "π", "right", "center")):  # fmt: skip
        side.text(x, y, text, fontsize=TICK_PT, color=INK, ha=across, va=up)
    side.set_axis_off()


def draw_probe(
    probe: ArrayLike,
    guess: ArrayLike | None = None,
    title: str | None = None,
    pixel_size_m: float | None = None,
) -> Figure:
    """Amplitude over phase of every probe mode (at most six) with its share of the power, the starting guess
    in front when given.

    Shapes: probe and guess (N, N) or (P, N, N) complex. Phase is faded in dark areas. Bars are in
    micrometres with pixel_size_m, else in pixels.
    """
    columns = []
    for name, waves in (("guess", guess), ("mode", probe)):
        if waves is None:
            continue
        modes = np.asarray(waves)
        modes = modes[None] if modes.ndim == 2 else modes
        if modes.ndim != 3:
            raise InputError(f"probe has shape {np.shape(waves)}; expected (N, N) or (P, N, N)")
        power = np.sum(np.abs(modes) ** 2, axis=(1, 2))
        share = power / power.sum() if power.sum() > 0 else power
        for p, mode in enumerate(modes[:1] if name == "guess" else modes[:6]):
            single = len(modes) == 1
            label = name if name == "guess" else "probe" if single else f"mode {p + 1}"
            columns.append((label + ("" if single else f" ({share[p]:.0%})"), mode))
    figure = new_figure(2.9 * len(columns) + 0.4, 5.2 + 0.3 * bool(title), title)
    axes = figure.subplots(2, len(columns), squeeze=False)
    for column, (label, mode) in enumerate(columns):
        amplitude = np.abs(mode)
        top, bottom = axes[:, column]
        picture = top.imshow(amplitude, cmap=COUNT_MAP, vmin=0)
        dress(top, label, "", "amplitude" if column == 0 else "")
        colour_bar(figure, top, picture)
        step, unit = (1.0, "px") if pixel_size_m is None else (pixel_size_m * 1e6, "µm")
        scale_bar(top, amplitude.shape[-1] * step, unit, step)
        light = np.clip(amplitude / max(float(amplitude.max()), 1e-30) * 4, 0, 1)
        picture = bottom.imshow(np.angle(mode), cmap=PHASE_CIRCLE, vmin=-np.pi, vmax=np.pi, alpha=light)
        dress(bottom, "", "", "phase / rad" if column == 0 else "")
        bar = colour_bar(figure, bottom, picture)
        bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])
        bar.solids.set_alpha(1)
        for axis in (top, bottom):
            axis.set_xticks([])
            axis.set_yticks([])
    return figure


def draw_frc(curve: RingCorrelation, pixel_size_m: float | None = None, title: str | None = None) -> Figure:
    """Fourier ring correlation with the 0.5 and the half-bit threshold and where the curve crosses them."""
    figure = new_figure(6.4, 4.2, title)
    axis = figure.subplots()
    half_bit = half_bit_threshold(curve.pixels)
    axis.plot(curve.frequency, curve.correlation, color=COLOURS[0], lw=1.8)
    for threshold, name, style in ((0.5, "0.5", ":"), (half_bit, "half-bit", "--")):
        where = crossing(curve, threshold)
        size = (
            "" if pixel_size_m is None or where <= 0 else f", {length_text(pixel_size_m / where)} half period"
        )
        end = "never crossed" if where >= 1.0 else f"{where:.2f} Nyquist{size}"
        level = np.broadcast_to(threshold, curve.frequency.shape)
        axis.plot(curve.frequency, level, color=FAINT, lw=1.2, ls=style, label=f"{name}: {end}")
        at = float(np.interp(where, curve.frequency, level))
        axis.plot([where], [at], "o", color=COLOURS[1], ms=5, zorder=5)
    axis.legend(frameon=False, fontsize=TICK_PT, labelcolor=INK, loc="lower left")
    axis.set_xlim(0, 1)
    axis.set_ylim(min(-0.05, float(curve.correlation.min())), 1.05)
    plain(axis, "spatial frequency / Nyquist", "Fourier ring correlation")
    return figure
