"""The pictures and charts of one run for the report page: object, patterns, probe, errors, resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.evaluation.frc import FIRST_RING, crossing, half_bit_threshold
from ptycho.report import fields, style
from ptycho.report.charts import Chart, line_chart
from ptycho.report.evidence import Evidence
from ptycho.report.panels import MAX_SIDE, Panel, bar_of, complex_panel, panel, spread
from ptycho.report.view import Pictures
from ptycho.report.wording import length_text

_MAX_MODES = 6


def object_panels(evidence: Evidence, pixel_size_m: float | None, max_side: int = MAX_SIDE) -> list[Panel]:
    """Amplitude, phase and both as colours, in the well lit area; none without a product."""
    if evidence.product is None:
        return []
    product = evidence.product
    image, coverage, side = fields.thinned(product.object, product.coverage)
    shown, lit, _ = fields.lit_field(image, coverage)
    shape = tuple(side * n for n in shown.shape)
    size, bar = _size(shape, pixel_size_m), bar_of(shape[1], pixel_size_m)
    limits = fields.colour_limits(np.abs(shown), lit)
    panels = [
        panel(
            values,
            title,
            colours,
            unit=unit,
            limits=fields.colour_limits(values, lit),
            caption=size,
            max_side=max_side,
            bar=bar,
        )
        for values, title, colours, unit in (
            (np.abs(shown), "amplitude", style.AMPLITUDE_MAP, ""),
            (np.angle(shown), "phase", style.PHASE_MAP, "rad"),
        )
    ]
    return [*panels, complex_panel(shown, "complex", limits, caption=size, max_side=max_side, bar=bar)]


def measured_pictures(evidence: Evidence) -> list[Pictures]:
    """The mean pattern, and examples of measured beside predicted patterns."""
    if evidence.measured is None:
        return []
    counts = evidence.measured.mean_counts
    top = max(float(np.nanmax(counts)), 1e-6) if np.isfinite(counts).any() else 1.0
    known = counts[np.isfinite(counts) & (counts > 0)]
    low = max(float(known.min()), 1e-6 * top) if known.size else 1e-6
    mean = panel(
        np.maximum(counts, low), "mean pattern", style.COUNT_MAP, limits=(low, top), unit="counts", log=True
    )
    made = [Pictures("Mean pattern", [mean], "logarithmic")]
    if evidence.measured_shown is None or evidence.predicted_shown is None or evidence.shown is None:
        return made
    seen, model = evidence.measured_shown, evidence.predicted_shown
    brightest = max(float((seen**2).max()), 2.0)
    reach = max(float(np.percentile(np.abs(model - seen), 99.8)), 1e-6)
    for number, a, b in zip(evidence.shown, seen, model, strict=True):
        r = "" if evidence.r_per_pattern is None else f", R {evidence.r_per_pattern[number]:.3f}"
        count = {"limits": (0.5, brightest), "log": True}
        panels = [
            panel(np.maximum(a**2, 0.5), "measured", style.COUNT_MAP, **count),  # type: ignore[arg-type]
            panel(np.maximum(b**2, 0.5), "predicted", style.COUNT_MAP, **count),  # type: ignore[arg-type]
            panel(b - a, "difference", style.SIGNED_MAP, limits=(-reach, reach)),
        ]
        made.append(Pictures(f"Pattern {number}{r}", panels))
    return made


def reconstructed_pictures(evidence: Evidence, pixel_size_m: float | None) -> list[Pictures]:
    """The probe and the coverage of the canvas."""
    if evidence.product is None:
        return []
    made = [] if evidence.probe is None else [_probe(evidence.probe, pixel_size_m)]
    coverage = evidence.product.coverage
    if coverage is not None:
        shown = np.where(coverage > 0, coverage, np.nan)
        share = f"{np.mean(coverage > 0):.0%} of the canvas was reached"
        made.append(Pictures("Coverage", [panel(shown, "coverage", "cividis", unit="weight")], share))
    return made


def _probe(modes: NDArray[Any], pixel_size_m: float | None) -> Pictures:
    bar = bar_of(modes.shape[-1], pixel_size_m)
    power = np.asarray(np.sum(np.abs(modes) ** 2, axis=(1, 2)), np.float64)
    share = power / max(float(power.sum()), 1e-300)
    panels = []
    for number, mode in enumerate(modes[:_MAX_MODES]):
        amplitude = np.abs(mode)
        lit = amplitude > 0.02 * max(float(amplitude.max()), 1e-30)
        name = "probe" if len(modes) == 1 else f"mode {number + 1}, {share[number]:.0%}"
        phase = np.where(lit, np.angle(mode), np.nan)
        top = max(float(amplitude.max()), 1e-30)
        panels.append(panel(amplitude, f"{name}: amplitude", style.COUNT_MAP, limits=(0.0, top), bar=bar))
        panels.append(panel(phase, f"{name}: phase", style.PHASE_CIRCLE, limits=(-np.pi, np.pi), unit="rad"))
    more = f"the first {_MAX_MODES} of {len(modes)} modes" if len(modes) > _MAX_MODES else ""
    return Pictures("Probe", panels, more)


def error_pictures(evidence: Evidence, pixel_size_m: float | None) -> list[Pictures]:
    """Reconstruction, truth and difference, in the truth's gauge and on the judged box."""
    assert evidence.evaluation is not None and evidence.truth is not None
    aligned = evidence.evaluation.aligned
    made, truth = aligned.recon, aligned.reference
    centre = np.exp(-1j * np.angle(truth.mean()))
    bar = bar_of(made.shape[1], pixel_size_m)
    rows = []
    for what, unit, colours, ours, theirs, error in (
        ("amplitude", "", style.AMPLITUDE_MAP, np.abs(made), np.abs(truth), np.abs(made) - np.abs(truth)),
        ("phase", "rad", style.PHASE_MAP, np.angle(made * centre), np.angle(truth * centre),
         np.angle(made * truth.conj())),
    ):  # fmt: skip
        limits = spread(theirs)
        reach = max(float(np.percentile(np.abs(error), 99.5)), 1e-6)
        panels = [
            panel(ours, "reconstruction", colours, limits=limits, unit=unit, bar=bar),
            panel(theirs, evidence.truth.key, colours, limits=limits, unit=unit, bar=bar),
            panel(error, "difference", style.SIGNED_MAP, limits=(-reach, reach), unit=unit),
        ]
        note = f"gauge removed; {_size(made.shape, pixel_size_m)}"
        rows.append(Pictures(f"Error of the {what}", panels, note))
    return rows


def frc_chart(evidence: Evidence, pixel_size_m: float | None) -> Chart | None:
    """Fourier ring correlation with the truth, and its crossings of the two thresholds."""
    assert evidence.evaluation is not None
    curve = evidence.evaluation.frc_curve
    bit = half_bit_threshold(curve.pixels)
    # The fitted scale and ramp determine the first rings: thresholds ignore them, and they are not drawn.
    x, correlation, level = (
        np.asarray(v)[FIRST_RING:].tolist() for v in (curve.frequency, curve.correlation, bit)
    )

    def name(word: str, threshold: Any) -> str:
        where = crossing(curve, threshold)
        size = "" if pixel_size_m is None or where <= 0 else f", {length_text(pixel_size_m / where)}"
        return f"{word}: " + ("never crossed" if where >= 1 else f"crossed at {where:.2f} Nyquist{size}")

    half, half_bit = name("0.5", 0.5), name("half-bit", bit)
    series = {
        "correlation with the truth": (x, correlation),
        half: (x, [0.5] * len(x)),
        half_bit: (x, level),
    }
    low = min(-0.05, *correlation)
    return line_chart(
        series, "spatial frequency / Nyquist", "correlation", title="Fourier ring correlation",
        x_limits=(0.0, 1.0), y_limits=(low, 1.05), styles={half: "faint dotted", half_bit: "faint dashed"},
    )  # fmt: skip


def _size(shape: tuple[int, ...], pixel_size_m: float | None) -> str:
    pixels = f"{shape[1]} × {shape[0]} px"
    if pixel_size_m is None:
        return pixels
    return f"{shape[1] * pixel_size_m * 1e6:.3g} × {shape[0] * pixel_size_m * 1e6:.3g} µm ({pixels})"
