"""The contents of the report page of a run: text, numbers, verdict; no HTML here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ptycho.report import style
from ptycho.report.charts import moved_map, position_map
from ptycho.report.convergence import history_charts
from ptycho.report.evidence import Evidence
from ptycho.report.fields import lit_field
from ptycho.report.pictures import (
    error_pictures,
    frc_chart,
    measured_pictures,
    object_panels,
    reconstructed_pictures,
)
from ptycho.report.record import provenance_rows, seconds_of, skipped_lines
from ptycho.report.verdict import Verdict, explained_share, judge_run, judge_training, judge_unfinished
from ptycho.report.view import Extent, Number, Row, Ruler, RunView, Slide, Table
from ptycho.report.wording import words
from ptycho.scan.report import ScanReport

_THUMBNAIL = 260


def view_of(evidence: Evidence, id: str, pixel_size_m: float | None = None) -> RunView:
    """The view of a run with all its figures."""
    run = evidence.run
    if pixel_size_m is None and evidence.product is not None:
        pixel_size_m = evidence.product.pixel_size_m
    numbers = _numbers(evidence)
    by_key = {number.key: number for number in numbers}
    tiles = [by_key[key] for key in _TILES if key in by_key][:4]
    size = _pixel_size(evidence) if pixel_size_m is None else pixel_size_m
    view = RunView(
        id=id,
        name=run.name,
        folder=str(run.folder),
        trained_in=None if run.trained_in is None else str(run.trained_in),
        verdict=_verdict(evidence),
        ruler=_ruler(evidence),
        tiles=tiles,
        numbers=numbers,
        hero=object_panels(evidence, size),
        thumbnails=object_panels(evidence, size, max_side=_THUMBNAIL)[:2],
        measured=measured_pictures(evidence),
        reconstructed=reconstructed_pictures(evidence, size),
        charts=history_charts(run.history),
        config=run.config_text,
        provenance=[Row(*row) for row in provenance_rows(run.provenance)],
        notes=evidence.notes,
        scan_id=_scan_id(evidence),
        extent=_extent(evidence),
    )
    if evidence.measured is not None:
        view.scan, view.problems = _scan_rows(evidence.measured.report), _open(evidence.measured.report)
        view.scan += [Row("frames left out", line) for line in skipped_lines(run.provenance)]
    if evidence.product is None:
        return view
    if evidence.positions_xy is not None and evidence.r_per_pattern is not None:
        view.r_map = position_map(
            evidence.positions_xy, evidence.r_per_pattern, "R of every pattern", style.PHASE_MAP
        )
    if evidence.measured is not None and evidence.positions_xy is not None:
        view.moved = moved_map(
            evidence.measured.positions_xy, evidence.positions_xy, "Positions moved", style.PHASE_MAP
        )
    if evidence.evaluation is not None and evidence.truth is not None:
        view.errors = error_pictures(evidence, size)
        view.slides = [
            Slide(f"{what}: reconstruction and truth", *row.panels[:2])
            for what, row in zip(("Amplitude", "Phase"), view.errors, strict=True)
        ]
        view.frc = frc_chart(evidence, size)
    return view


def side_by_side(views: Sequence[RunView]) -> Table:
    """Every number of any run; the best value of a row is marked.

    R and the other numbers depend on the scan as well as on the image: if the runs have different scans,
    nothing is marked.
    """
    one_scan = len({view.scan_id for view in views}) == 1
    labels: dict[str, Number] = {number.key: number for view in views for number in view.numbers}
    rows = []
    for key, sample in labels.items():
        values = [next((n for n in view.numbers if n.key == key), None) for view in views]
        finite = [n for n in values if n is not None and math.isfinite(n.value)]
        best = {"low": min, "high": max}.get(sample.better)
        # Values with equal written digits count as equal.
        differ = one_scan and len({n.text for n in finite}) > 1
        winner = best(finite, key=lambda n: n.value).text if best is not None and differ else None
        cells = [("–", False) if n is None else (n.text, n.text == winner) for n in values]
        rows.append((sample.label, cells))
    return Table(rows, one_scan)


def _extent(evidence: Evidence) -> Extent | None:
    """The position of the shown part of the image, in object pixels of the scan."""
    product = evidence.product
    if product is None:
        return None
    x, y = product.origin_xy or (0.0, 0.0)
    shown, _, (top, left) = lit_field(product.object, product.coverage)
    return Extent(x + left, y + top, shown.shape[1], shown.shape[0], product.origin_xy is not None)


def _scan_id(evidence: Evidence) -> str:
    """The recorded digest of the scan, else its path, else ''."""
    path = evidence.run.scan
    for given in (evidence.run.provenance or {}).get("inputs") or ():
        if isinstance(given, dict) and path is not None and given.get("path") == str(path.resolve()):
            return str(given.get("sha256") or path.resolve())
    return "" if path is None else str(path.resolve())


def _pixel_size(evidence: Evidence) -> float | None:
    """Side of an object pixel from product or scan, m."""
    if evidence.product is not None and evidence.product.pixel_size_m is not None:
        return evidence.product.pixel_size_m
    return None if evidence.measured is None else evidence.measured.object_pixel_size_m


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
            add(name, words(name), values[-1], "{:.4g}", "", "at the end")
    longest = max((len(values) for values in run.history.values()), default=0)
    if longest:
        step = "sweeps" if "r_factor" in run.history else "epochs"
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
        step = f"ptycho infer SCAN --model {run.folder} -o OUT" if run.bundle is not None else None
        return unfinished or judge_training(run.history, step)
    limits = evidence.limits
    judged = judge_run(
        r=evidence.r,
        r_before_prior=run.metrics.get("r_before_prior"),
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
    """Correlations with the truth, for amplitude and phase if the truth has structure there."""
    judged = evidence.evaluation
    # objectGuess may be only a guess: the comparison is shown but does not decide.
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


def _scan_rows(report: ScanReport) -> list[Row]:
    overlap = (
        "one position only"
        if report.overlap is None
        else f"{report.overlap:.0%}, step {report.step_px:.1f} px"
    )
    lowest, highest = f"{report.counts_min:.4g}", f"{report.counts_max:.4g}"
    counts_text = f"{report.counts_mean:.4g} on average, {lowest} to {highest}"
    extent = f"{report.extent_px[0]:.0f} × {report.extent_px[1]:.0f} px"
    return [
        Row("file", str(report.path), mono=True),
        Row("patterns", f"{report.n_positions} of {report.N} × {report.N} px"),
        Row("unit", f"{report.unit} ({report.unit_reason})"),
        Row("counts a pattern", counts_text),
        Row("brightest pixel", f"{report.max_count:.4g} counts"),
        Row("extent", extent),
        Row("overlap", f"{overlap}, beam {report.probe_diameter_px:.1f} px"),
        Row("bad pixels", str(report.n_bad_pixels)),
        Row("probe modes", str(report.n_modes)),
        *(Row(*row) for row in report.geometry),
    ]  # fmt: skip


def _open(report: ScanReport) -> list[str]:
    """Errors and problems of the scan, then its notes."""
    return [*report.problems, *(f"note: {note}" for note in report.notes)]
