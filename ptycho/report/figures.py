"""Figures in one style: dark on white, large images, colour bars as high as their image.

Built on `matplotlib.figure.Figure` alone, so that no window, backend or global style is changed. Every
function writes one PNG, whole or not at all, and returns its path.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import InputError
from ptycho.evaluation.frc import RingCorrelation, crossing, half_bit_threshold
from ptycho.evaluation.judge import Evaluation, evaluate
from ptycho.image.cropping import covered_box
from ptycho.image.registration import fit_phase_ramp, phase_ramp
from ptycho.report.scale_bar import scale_bar
from ptycho.report.wording import length_text, metrics_line, words

PathLike = str | os.PathLike[str]

INK, FAINT = "#222222", "#9a9a9a"
COLOURS = ("#1b6ca8", "#d1603d", "#3c8d5a", "#7b5ea7", "#b8860b", "#5f6b73")
AMPLITUDE_MAP, PHASE_MAP, CYCLIC_MAP, COUNT_MAP, SIGNED_MAP = "gray", "viridis", "twilight", "magma", "RdBu_r"
_TITLE, _LABEL, _TICK = 11.0, 9.0, 8.0
_DPI = 160
_WELL_LIT = 0.2


def reconstruction_figure(
    path: PathLike,
    obj: ArrayLike,
    truth: ArrayLike | None = None,
    coverage: ArrayLike | None = None,
    title: str | None = None,
    metrics: Evaluation | Mapping[str, Any] | None = None,
    pixel_size_m: float | None = None,
    origin_xy: tuple[float, float] | None = None,
) -> Path:
    """Amplitude and phase of a reconstruction, the truth beside it when it is known.

    Shapes: obj (H, W) complex; truth (H', W') complex; coverage (H, W), pixels above 0 are shown; origin_xy
    as in `evaluate`. With a truth the reconstruction is shown in its gauge, on the judged box, both with
    the colours of the truth's range; without, the covered area is shown less its global phase and ramp, in
    the colours of what is well lit.
    `metrics`, an Evaluation or its dictionary, is written under the title. Axes are in um when pixel_size_m
    is given.
    """
    image = complex_image(obj)
    if truth is None:
        field, lit = without_ramp(image, coverage)
        shown = [("", field)]
    else:
        if isinstance(metrics, Evaluation):
            verdict = metrics
        else:
            roi = metrics.get("roi") if metrics is not None else None
            verdict = evaluate(image, truth, roi, origin_xy=origin_xy, coverage=coverage)
        shown = [("reconstruction", verdict.aligned.recon), ("truth", verdict.aligned.reference)]
        lit = np.ones(verdict.aligned.reference.shape, bool)
    reference = shown[-1][1]
    amplitude_range = colour_limits(np.abs(reference), lit)
    centre = np.angle(reference.mean()) if truth is not None else 0.0
    phases = [np.angle(field * np.exp(-1j * centre)) + centre for _, field in shown]
    phase_range = colour_limits(phases[-1], lit)

    rows = len(shown)
    tall = min(max(reference.shape[0] / reference.shape[1], 0.4), 2.0)
    line = metrics_line(metrics)
    height = rows * (3.3 * tall + 0.35) + 0.25 + 0.25 * bool(title) + 0.25 * bool(line)
    figure = new_figure(8.6, height, title, line)
    axes = figure.subplots(rows, 2, squeeze=False)
    for row, (name, field) in enumerate(shown):
        extent, unit = _extent(field.shape, pixel_size_m)
        prefix = f"{name}: " if name else ""
        for column, (values, what, colours, limits) in enumerate(
            (
                (np.abs(field), "amplitude", AMPLITUDE_MAP, amplitude_range),
                (phases[row], "phase / rad", PHASE_MAP, phase_range),
            )
        ):
            axis = axes[row, column]
            picture = axis.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent)
            below, beside = row == rows - 1, column == 0
            dress(axis, prefix + what, f"x / {unit}" if below else "", f"y / {unit}" if beside else "")
            colour_bar(figure, axis, picture)
            if pixel_size_m is not None:
                scale_bar(axis, field.shape[1] * pixel_size_m * 1e6, 1.0)
    return save(figure, path)


def probe_figure(
    path: PathLike,
    probe: ArrayLike,
    guess: ArrayLike | None = None,
    title: str | None = None,
    pixel_size_m: float | None = None,
) -> Path:
    """Amplitude over phase of every probe mode (at most six), the starting guess in front when given.

    Shapes: probe and guess (N, N) or (P, N, N) complex. Phase is faded where there is no light. With
    pixel_size_m each amplitude has a scale bar.
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
        if pixel_size_m is not None:
            scale_bar(top, amplitude.shape[-1] * pixel_size_m * 1e6, pixel_size_m * 1e6)
        light = np.clip(amplitude / max(float(amplitude.max()), 1e-30) * 4, 0, 1)
        picture = bottom.imshow(np.angle(mode), cmap=CYCLIC_MAP, vmin=-np.pi, vmax=np.pi, alpha=light)
        dress(bottom, "", "", "phase / rad" if column == 0 else "")
        bar = colour_bar(figure, bottom, picture)
        bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])
        bar.solids.set_alpha(1)
        for axis in (top, bottom):
            axis.set_xticks([])
            axis.set_yticks([])
    return save(figure, path)


def history_figure(path: PathLike, history: Mapping[str, Sequence[float]], title: str | None = None) -> Path:
    """Losses over epochs, the learning rate below when it was kept; log axes where all values are positive.

    history: name -> one value an epoch; names that hold 'loss' or 'nll' are losses, 'lr' or 'learning_rate'
    rates.
    """
    series = {
        name: np.asarray(values, np.float64) for name, values in history.items() if np.ndim(values) == 1
    }
    rates = {
        name: v for name, v in series.items() if name in ("lr", "learning_rate") or name.startswith("lr-")
    }
    losses = {name: v for name, v in series.items() if ("loss" in name or "nll" in name) and len(v)}
    if not losses:
        raise InputError(f"history holds no loss to draw; its names are {', '.join(history) or 'none'}")
    figure = new_figure(7.0, 5.2 if rates else 4.0, title)
    rows = [3, 1] if rates else [1]
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=rows)
    for axis, lines, label in zip(axes[:, 0], (losses, rates), ("loss", "learning rate"), strict=False):
        for colour, (name, values) in zip(COLOURS * 3, lines.items(), strict=False):
            epochs = np.arange(1, len(values) + 1)
            alone = len(values) == 1
            axis.plot(epochs, values, color=colour, lw=1.6, marker="o" if alone else None, label=words(name))
        if all(np.all(v[np.isfinite(v)] > 0) for v in lines.values()):
            axis.set_yscale("log")
            _plain_log_labels(axis, lines.values())
        _plain(axis, "epoch" if axis is axes[-1, 0] else "", label)
        if len(lines) > 1:
            axis.legend(frameon=False, fontsize=_LABEL, labelcolor=INK)
    return save(figure, path)


def frc_figure(
    path: PathLike, curve: RingCorrelation, pixel_size_m: float | None = None, title: str | None = None
) -> Path:
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
    axis.legend(frameon=False, fontsize=_TICK, labelcolor=INK, loc="lower left")
    axis.set_xlim(0, 1)
    axis.set_ylim(min(-0.05, float(curve.correlation.min())), 1.05)
    _plain(axis, "spatial frequency / Nyquist", "Fourier ring correlation")
    return save(figure, path)


def r_map_figure(
    path: PathLike,
    positions_xy: ArrayLike,
    r: ArrayLike,
    whole: float | None = None,
    title: str | None = None,
) -> Path:
    """R of every pattern at its place: positions (M, 2) [x, y] object px, r (M,); y down as in images."""
    positions, values = np.asarray(positions_xy, np.float64), np.asarray(r, np.float64)
    if positions.ndim != 2 or positions.shape[1:] != (2,) or values.shape != positions.shape[:1]:
        raise InputError(f"positions {positions.shape} and R {values.shape}; expected (M, 2) and (M,)")
    figure = new_figure(6.0, 5.2, title or ("" if whole is None else f"R = {whole:.4f} over the whole scan"))
    axis = figure.subplots()
    width, height = np.ptp(positions, axis=0) + 1e-9
    # A dot covers about the area that belongs to one position, in points of a picture 4 in wide.
    size = float(np.clip((4 * 72) ** 2 * min(width, height) / max(width, height) / len(values) * 0.6, 2, 400))
    low, high = _spread(values, 1.0)
    dots = axis.scatter(
        positions[:, 0], positions[:, 1], c=values, s=size, cmap=PHASE_MAP, vmin=low, vmax=high, linewidths=0
    )
    axis.set_aspect("equal")
    axis.invert_yaxis()
    dress(axis, "", "x / px", "y / px")
    colour_bar(figure, axis, dots, "R of the pattern")
    return save(figure, path)


def patterns_figure(
    path: PathLike,
    measured: ArrayLike,
    predicted: ArrayLike,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> Path:
    """Measured and predicted counts on one log scale, and predicted - measured amplitude (noise is 0.5).

    Shapes: measured and predicted (K, N, N) amplitude (square root of counts), at most the first sixteen
    are shown.
    """
    seen, model = np.asarray(measured, np.float64), np.asarray(predicted, np.float64)
    if seen.ndim != 3 or seen.shape != model.shape:
        raise InputError(f"patterns of shapes {seen.shape} and {model.shape}; expected both (K, N, N)")
    rows = min(len(seen), 16)
    figure = new_figure(9.0, 2.5 * rows + 0.4 + 0.3 * bool(title), title)
    axes = figure.subplots(rows, 3, squeeze=False)
    top = max(float((seen[:rows] ** 2).max()), 10.0)
    error = (model - seen)[:rows]
    reach = max(float(np.percentile(np.abs(error), 99.8)), 1e-6)
    for row in range(rows):
        counts = LogNorm(0.5, top, clip=True)
        panels = ((seen[row] ** 2, counts, COUNT_MAP), (model[row] ** 2, counts, COUNT_MAP),
                  (error[row], Normalize(-reach, reach), SIGNED_MAP))  # fmt: skip
        heads = (
            ("measured / counts", "predicted / counts", "difference of amplitudes") if row == 0 else ("",) * 3
        )
        side = names[row] if names else f"pattern {row}"
        for axis, (values, norm, colours), head in zip(axes[row], panels, heads, strict=True):
            picture = axis.imshow(values, norm=norm, cmap=colours)
            dress(axis, head, "", side if axis is axes[row, 0] else "")
            axis.set_xticks([])
            axis.set_yticks([])
            colour_bar(figure, axis, picture)
    return save(figure, path)


def new_figure(
    width_in: float, height_in: float, title: str | None = None, subtitle: str | None = None
) -> Figure:
    """An empty white figure of this size, its layout done when it is saved."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
    lines = [line for line in (title, subtitle) if line]
    if lines:
        figure.suptitle("\n".join(lines), fontsize=_TITLE, color=INK)
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
    axis.set_title(title, fontsize=_LABEL + 1, color=INK, loc="left")
    axis.set_xlabel(xlabel, fontsize=_LABEL, color=INK)
    axis.set_ylabel(ylabel, fontsize=_LABEL, color=INK)
    axis.tick_params(which="both", labelsize=_TICK, colors=INK, length=3, width=0.6)
    for spine in axis.spines.values():
        spine.set_linewidth(0.6)
        spine.set_color(FAINT)


def _plain(axis: Axes, xlabel: str, ylabel: str) -> None:
    dress(axis, "", xlabel, ylabel)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, color="#e6e6e6", lw=0.6)
    axis.set_axisbelow(True)


def _plain_log_labels(axis: Axes, lines: Iterable[NDArray[np.float64]]) -> None:
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
    bar.ax.tick_params(labelsize=_TICK, colors=INK, length=2, width=0.6)
    bar.outline.set_linewidth(0.0)
    if label:
        bar.set_label(label, fontsize=_LABEL, color=INK)
    return bar


def complex_image(obj: ArrayLike) -> NDArray[np.complex128]:
    """One image (H, W) complex128; InputError for any other shape."""
    image = np.asarray(obj)
    if image.ndim != 2 or image.size == 0 or image.dtype.kind not in "buifc":
        raise InputError(
            f"cannot draw an object of shape {image.shape}, dtype {image.dtype}; expected (H, W)"
        )
    return image.astype(np.complex128)


def without_ramp(
    image: NDArray[np.complex128], coverage: ArrayLike | None
) -> tuple[NDArray[np.complex128], NDArray[np.bool_]]:
    """The covered box less its global phase and ramp, uncovered pixels NaN; and which of its pixels are well
    lit: at least a fifth of the coverage that the best tenth reaches.
    """
    seen = np.isfinite(image) if coverage is None else (np.asarray(coverage) > 0) & np.isfinite(image)
    y0, y1, x0, x1 = covered_box(seen, share=0.5)
    cut, mask = image[y0:y1, x0:x1], seen[y0:y1, x0:x1]
    filled = np.where(mask, cut, 0)
    flat = cut * phase_ramp(cut.shape, fit_phase_ramp(filled, np.ones_like(filled))).conj()
    flat = flat * np.exp(-1j * np.angle(flat[mask].sum()))
    light = np.where(mask, 1.0 if coverage is None else np.asarray(coverage, np.float64)[y0:y1, x0:x1], 0.0)
    lit = mask & (light >= _WELL_LIT * np.percentile(light[mask], 90))
    return np.asarray(np.where(mask, flat, np.nan)), lit


def colour_limits(values: NDArray[np.float64], where: NDArray[np.bool_]) -> tuple[float, float]:
    """Ends of the colours of an image (H, W) that neither a few outliers nor pixels outside `where` move."""
    return _spread(values[where])


def _spread(values: NDArray[np.float64], percent: float = 0.2) -> tuple[float, float]:
    """Colour limits that a few outliers do not move."""
    low, high = np.nanpercentile(values, (percent, 100 - percent))
    return (float(low), float(high)) if high - low > 1e-9 else (float(low) - 0.5, float(high) + 0.5)


def _extent(
    shape: tuple[int, ...], pixel_size_m: float | None
) -> tuple[tuple[float, float, float, float], str]:
    scale, unit = (1.0, "px") if pixel_size_m is None else (pixel_size_m * 1e6, "µm")
    return (0.0, shape[1] * scale, shape[0] * scale, 0.0), unit
