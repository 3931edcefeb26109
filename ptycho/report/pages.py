"""What the page shows of a run, ready to be drawn: words, numbers, panels, charts; no HTML here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.evaluation.frc import FIRST_RING, crossing, half_bit_threshold
from ptycho.report import figures
from ptycho.report.charts import Chart, Dots, line_chart, position_map
from ptycho.report.convergence import history_charts
from ptycho.report.evidence import Evidence
from ptycho.report.panels import MAX_SIDE, Panel, panel, spread
from ptycho.report.record import provenance_rows, seconds_of
from ptycho.report.verdict import Verdict, explained_share, judge_run, judge_training, judge_unfinished

_MAX_MODES = 6
_THUMBNAIL = 260


class Number(NamedTuple):
    """A figure by its key: label, value, how it is written, whether small or large is better ('' neither)."""

    key: str
    label: str
    value: float
    form: str
    better: str
    hint: str = ""

    @property
    def text(self) -> str:
        return self.form.format(self.value) if math.isfinite(self.value) else "not a number"


class Ruler(NamedTuple):
    """R between its two anchors, in per cent of the ruler's length."""

    noise: float | None
    here: float
    flat: float
    noise_text: str
    here_text: str
    flat_text: str


class Row(NamedTuple):
    """A label and what belongs to it; `mono` for paths, hashes and commands."""

    label: str
    text: str
    mono: bool = False


class Pictures(NamedTuple):
    """A titled row of panels."""

    title: str
    panels: list[Panel]
    caption: str = ""


@dataclass
class RunView:
    """One run, as the template draws it."""

    id: str
    name: str
    folder: str
    trained_in: str | None
    verdict: Verdict
    ruler: Ruler | None
    tiles: list[Number]
    numbers: list[Number]
    hero: list[Panel]
    thumbnails: list[Panel]
    scan: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    measured: list[Pictures] = field(default_factory=list)
    reconstructed: list[Pictures] = field(default_factory=list)
    errors: list[Pictures] = field(default_factory=list)
    r_map: Dots | None = None
    frc: Chart | None = None
    charts: list[Chart] = field(default_factory=list)
    config: str | None = None
    provenance: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Table(NamedTuple):
    """Numbers of several runs: one row a number, one cell (text, best?) a run."""

    rows: list[tuple[str, list[tuple[str, bool]]]]


def view_of(evidence: Evidence, id: str, pixel_size_m: float | None = None) -> RunView:
    """Everything that is known of a run, drawn."""
    run = evidence.run
    numbers = _numbers(evidence)
    by_key = {number.key: number for number in numbers}
    tiles = [by_key[key] for key in _TILES if key in by_key][:4]
    view = RunView(
        id=id,
        name=run.name,
        folder=str(run.folder),
        trained_in=None if run.trained_in is None else str(run.trained_in),
        verdict=_verdict(evidence),
        ruler=_ruler(evidence),
        tiles=tiles,
        numbers=numbers,
        hero=_hero(evidence, pixel_size_m),
        thumbnails=_hero(evidence, None, max_side=_THUMBNAIL),
        charts=history_charts(run.history),
        config=run.config_text,
        provenance=[Row(*row) for row in provenance_rows(run.provenance)],
        notes=evidence.notes,
    )
    _add_measured(view, evidence)
    _add_reconstructed(view, evidence, pixel_size_m)
    return view


def side_by_side(views: Sequence[RunView]) -> Table:
    """Every number that any of the runs has; the best of a row is marked where one is better."""
    labels: dict[str, Number] = {number.key: number for view in views for number in view.numbers}
    rows = []
    for key, sample in labels.items():
        values = [next((n for n in view.numbers if n.key == key), None) for view in views]
        finite = [n for n in values if n is not None and math.isfinite(n.value)]
        best = {"low": min, "high": max}.get(sample.better)
        # As written: a lead that the digits do not show is none.
        differ = len({n.text for n in finite}) > 1
        winner = best(finite, key=lambda n: n.value).text if best is not None and differ else None
        cells = [("–", False) if n is None else (n.text, n.text == winner) for n in values]
        rows.append((sample.label, cells))
    return Table(rows)


_TILES = (
    "r_factor",
    "nrmse",
    "frc50",
    "phase_ssim",
    "explained",
    "val_loss",
    "train_loss",
    "seconds",
    "epochs",
    "sweeps",
)


def _numbers(evidence: Evidence) -> list[Number]:
    run, found = evidence.run, []

    def add(key: str, label: str, value: Any, form: str, better: str, hint: str = "") -> None:
        if isinstance(value, (int, float)):
            found.append(Number(key, label, float(value), form, better, hint))

    add("r_factor", "R", evidence.r, "{:.4f}", "low", "misfit of the patterns")
    if evidence.r is not None and evidence.limits is not None and evidence.limits.flat > 0:
        limits = evidence.limits
        share = 100 * explained_share(evidence.r, limits.noise, limits.without_structure)
        add("explained", "structure explained", share, "{:.0f} %", "high", "of what is not noise")
    if evidence.evaluation is not None:
        judged = evidence.evaluation.as_dict()
        for key, label, form, better, hint in _JUDGED:
            add(key, label, judged.get(key), form, better, hint)
    for name in ("train_loss", "val_loss"):
        values = run.history.get(name)
        if values:
            add(name, figures._words(name), values[-1], "{:.4g}", "", "at the end")
    longest = max((len(values) for values in run.history.values()), default=0)
    if longest:
        step = "sweeps" if "r_loss" in run.history else "epochs"
        add(step, step, longest, "{:.0f}", "")
    add("groups_per_s", "speed", run.metrics.get("groups_per_s"), "{:.0f} groups/s", "high")
    add("seconds", "time", seconds_of(run.provenance), "{:.1f} s", "low", "from start to end")
    return found


_JUDGED = (
    ("nrmse", "complex NRMSE", "{:.4f}", "low", "against the truth"),
    ("frc50", "FRC 0.5", "{:.3f} Nyquist", "high", "resolution"),
    ("frc_half_bit", "FRC half-bit", "{:.3f} Nyquist", "high", ""),
    ("amplitude_psnr", "amplitude PSNR", "{:.2f} dB", "high", ""),
    ("amplitude_ssim", "amplitude SSIM", "{:.3f}", "high", ""),
    ("amplitude_ms_ssim", "amplitude MS-SSIM", "{:.3f}", "high", ""),
    ("amplitude_pearson", "amplitude correlation", "{:.3f}", "high", ""),
    ("phase_psnr", "phase PSNR", "{:.2f} dB", "high", ""),
    ("phase_ssim", "phase SSIM", "{:.3f}", "high", "against the truth"),
    ("phase_ms_ssim", "phase MS-SSIM", "{:.3f}", "high", ""),
    ("phase_pearson", "phase correlation", "{:.3f}", "high", ""),
)


def _verdict(evidence: Evidence) -> Verdict:
    run = evidence.run
    state = str((run.provenance or {}).get("state"))
    error = (run.provenance or {}).get("error")
    unfinished = judge_unfinished(state, None if error is None else str(error))
    if evidence.product is None:
        step = f"ptycho infer --model {run.folder} --data FILE -o OUT" if run.bundle is not None else None
        return unfinished or judge_training(run.history, step)
    limits = evidence.limits
    judged = judge_run(
        r=evidence.r,
        noise=None if limits is None else limits.noise,
        flat=None if limits is None else limits.without_structure,
        even_share=None if limits is None else limits.even,
        contrast_sigma=None if limits is None else limits.sigma,
        held_out=evidence.held_out,
        problems=evidence.problems,
        overlap=None if evidence.measured is None else evidence.measured.report.overlap,
        n_patterns=None if evidence.measured is None else evidence.measured.report.n_positions,
        pearsons=_pearsons(evidence),
        truth_name="" if evidence.truth is None else f"the scan's {evidence.truth.key}",
    )
    return (
        judged if unfinished is None else unfinished._replace(reason=f"{unfinished.reason} {judged.reason}")
    )


def _pearsons(evidence: Evidence) -> list[float]:
    """Correlations with the truth, of amplitude and phase where the truth has structure in it."""
    judged = evidence.evaluation
    # objectGuess may be no more than a guess: it is compared with, but decides nothing.
    if judged is None or evidence.truth is None or evidence.truth.key != "object_true":
        return []
    reference = judged.aligned.reference
    spreads = (
        np.std(np.abs(reference)) / np.abs(reference).mean(),
        np.std(np.angle(reference / reference.mean())),
    )
    values = (judged.amplitude_pearson, judged.phase_pearson)
    return [value for value, contrast in zip(values, spreads, strict=True) if contrast > 1e-3]


def _ruler(evidence: Evidence) -> Ruler | None:
    limits, r = evidence.limits, evidence.r
    if limits is None or r is None or limits.flat <= 0:
        return None
    flat = limits.without_structure
    end = 1.12 * max(flat, r)
    noise = limits.noise
    return Ruler(
        None if noise is None else round(100 * min(noise / end, 1), 1),
        round(100 * r / end, 1),
        round(100 * flat / end, 1),
        "" if noise is None else f"{noise:.3f}",
        f"{r:.4f}",
        f"{flat:.3f}",
    )


def _hero(evidence: Evidence, pixel_size_m: float | None, max_side: int = MAX_SIDE) -> list[Panel]:
    if evidence.product is None:
        return []
    product = evidence.product
    shown, lit = figures.levelled(figures._complex_image(product.object), product.coverage)
    size = _size(shown.shape, pixel_size_m)
    return [
        panel(
            values,
            title,
            colours,
            unit=unit,
            limits=figures.colour_limits(values, lit),
            caption=size,
            max_side=max_side,
        )
        for values, title, colours, unit in (
            (np.abs(shown), "amplitude", figures.AMPLITUDE_MAP, ""),
            (np.angle(shown), "phase", figures.PHASE_MAP, "rad"),
        )
    ]


def _add_measured(view: RunView, evidence: Evidence) -> None:
    measured = evidence.measured
    if measured is None:
        return
    report = measured.report
    overlap = (
        "one position only"
        if report.overlap is None
        else f"{report.overlap:.0%}, step {report.step_px:.1f} px"
    )
    lowest, highest = f"{report.counts_min:.4g}", f"{report.counts_max:.4g}"
    counts_text = f"{report.counts_mean:.4g} on average, {lowest} to {highest}"
    extent = f"{report.extent_px[0]:.0f} × {report.extent_px[1]:.0f} px"
    view.scan = [
        Row("file", str(report.path), mono=True),
        Row("patterns", f"{report.n_positions} of {report.N} × {report.N} px"),
        Row("unit", f"{report.unit} ({report.unit_reason})"),
        Row("counts a pattern", counts_text),
        Row("brightest pixel", f"{report.max_count:.4g} counts"),
        Row("extent", extent),
        Row("overlap", f"{overlap}, beam {report.probe_diameter_px:.1f} px"),
        Row("bad pixels", str(report.n_bad_pixels)),
        Row("probe modes", str(report.n_modes)),
    ]  # fmt: skip
    view.problems = [*report.problems, *(f"note: {note}" for note in report.notes)]
    counts = measured.mean_counts
    top = max(float(np.nanmax(counts)), 1e-6) if np.isfinite(counts).any() else 1.0
    known = counts[np.isfinite(counts) & (counts > 0)]
    low = max(float(known.min()), 1e-6 * top) if known.size else 1e-6
    mean = panel(
        np.maximum(counts, low), "mean pattern", figures.COUNT_MAP, limits=(low, top), unit="counts", log=True
    )
    view.measured = [Pictures("Mean pattern", [mean], "logarithmic")]
    if evidence.measured_shown is None or evidence.predicted_shown is None or evidence.shown is None:
        return
    seen, model = evidence.measured_shown, evidence.predicted_shown
    brightest = max(float((seen**2).max()), 2.0)
    reach = max(float(np.percentile(np.abs(model - seen), 99.8)), 1e-6)
    for number, a, b in zip(evidence.shown, seen, model, strict=True):
        r = "" if evidence.r_per_pattern is None else f", R {evidence.r_per_pattern[number]:.3f}"
        count = {"limits": (0.5, brightest), "log": True}
        panels = [
            panel(np.maximum(a**2, 0.5), "measured", figures.COUNT_MAP, **count),  # type: ignore[arg-type]
            panel(np.maximum(b**2, 0.5), "predicted", figures.COUNT_MAP, **count),  # type: ignore[arg-type]
            panel(b - a, "difference", figures.SIGNED_MAP, limits=(-reach, reach)),
        ]
        view.measured.append(Pictures(f"Pattern {number}{r}", panels))


def _add_reconstructed(view: RunView, evidence: Evidence, pixel_size_m: float | None) -> None:
    if evidence.product is None:
        return
    if evidence.probe is not None:
        view.reconstructed.append(_probe(evidence.probe))
    coverage = evidence.product.coverage
    if coverage is not None:
        shown = np.where(coverage > 0, coverage, np.nan)
        share = f"{np.mean(coverage > 0):.0%} of the canvas was reached"
        view.reconstructed.append(
            Pictures("Coverage", [panel(shown, "coverage", "cividis", unit="weight")], share)
        )
    if evidence.positions_xy is not None and evidence.r_per_pattern is not None:
        view.r_map = position_map(
            evidence.positions_xy, evidence.r_per_pattern, "R of every pattern", figures.PHASE_MAP
        )
    if evidence.evaluation is not None and evidence.truth is not None:
        view.errors = _errors(evidence, pixel_size_m)
        view.frc = _frc(evidence, pixel_size_m)


def _probe(modes: NDArray[Any]) -> Pictures:
    power = np.asarray(np.sum(np.abs(modes) ** 2, axis=(1, 2)), np.float64)
    share = power / max(float(power.sum()), 1e-300)
    panels = []
    for number, mode in enumerate(modes[:_MAX_MODES]):
        amplitude = np.abs(mode)
        lit = amplitude > 0.02 * max(float(amplitude.max()), 1e-30)
        name = "probe" if len(modes) == 1 else f"mode {number + 1}, {share[number]:.0%}"
        phase = np.where(lit, np.angle(mode), np.nan)
        top = max(float(amplitude.max()), 1e-30)
        panels.append(panel(amplitude, f"{name}: amplitude", figures.COUNT_MAP, limits=(0.0, top)))
        panels.append(panel(phase, f"{name}: phase", figures.CYCLIC_MAP, limits=(-np.pi, np.pi), unit="rad"))
    more = f"the first {_MAX_MODES} of {len(modes)} modes" if len(modes) > _MAX_MODES else ""
    return Pictures("Probe", panels, more)


def _errors(evidence: Evidence, pixel_size_m: float | None) -> list[Pictures]:
    """Reconstruction, truth and difference, in the truth's gauge and on the judged box."""
    assert evidence.evaluation is not None and evidence.truth is not None
    aligned = evidence.evaluation.aligned
    made, truth = aligned.recon, aligned.reference
    centre = np.exp(-1j * np.angle(truth.mean()))
    rows = []
    for what, unit, colours, ours, theirs, error in (
        ("amplitude", "", figures.AMPLITUDE_MAP, np.abs(made), np.abs(truth), np.abs(made) - np.abs(truth)),
        ("phase", "rad", figures.PHASE_MAP, np.angle(made * centre), np.angle(truth * centre),
         np.angle(made * truth.conj())),
    ):  # fmt: skip
        limits = spread(theirs)
        reach = max(float(np.percentile(np.abs(error), 99.5)), 1e-6)
        panels = [
            panel(ours, "reconstruction", colours, limits=limits, unit=unit),
            panel(theirs, evidence.truth.key, colours, limits=limits, unit=unit),
            panel(error, "difference", figures.SIGNED_MAP, limits=(-reach, reach), unit=unit),
        ]
        note = f"gauge removed; {_size(made.shape, pixel_size_m)}"
        rows.append(Pictures(f"Error of the {what}", panels, note))
    return rows


def _frc(evidence: Evidence, pixel_size_m: float | None) -> Chart | None:
    assert evidence.evaluation is not None
    curve = evidence.evaluation.frc_curve
    bit = half_bit_threshold(curve.pixels)
    # The first rings follow the fitted scale and ramp: no threshold looks at them, and they are not drawn.
    x, correlation, level = (
        np.asarray(v)[FIRST_RING:].tolist() for v in (curve.frequency, curve.correlation, bit)
    )

    def name(word: str, threshold: Any) -> str:
        where = crossing(curve, threshold)
        size = "" if pixel_size_m is None or where <= 0 else f", {figures._length(pixel_size_m / where)}"
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
