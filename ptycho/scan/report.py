"""The numbers and findings about a scan, for `ptycho validate` and the report page.

Errors in shapes and types are raised when a scan is read; its values are checked in `ptycho.scan.inspection`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.lazy import NotByRows
from ptycho.io.registry import read_scan
from ptycho.scan.checks import order_patterns
from ptycho.scan.detector import measure_detector
from ptycho.scan.findings import Finding, doubts
from ptycho.scan.inspection import Inspection, inspect_scan
from ptycho.scan.pixels import faulty_values, value_findings
from ptycho.scan.positions import MIN_OVERLAP
from ptycho.scan.raw_data import RawData
from ptycho.scan.units import explain_unit

__all__ = ["MIN_OVERLAP", "ScanReport", "by_rows", "describe_scan", "open_scan"]

Read = TypeVar("Read")


@dataclass
class ScanReport:
    """One screen about one scan; plain numbers, so that it can be written as JSON.

    Counts are squares of the amplitude, bad pixels left out; [x, y] for positions, (rows, columns) for
    shapes. `overlap` is 1 - step/diameter, with the median step to the nearest other position and the
    diameter that holds 90 % of the probe's power; both are None for a single position. area_step_px: side of
    the area that falls on one position. `findings`: errors, problems and notes; `problems`: errors and
    problems as sentences, what, then the remedy; `notes`: the rest. `geometry`: (name, value with its unit)
    of the known geometry of the scan; object_pixel_size_m, None if it does not follow from that.
    """

    path: str | None
    unit: str
    unit_reason: str
    dtype: str
    n_positions: int
    N: int
    counts_mean: float
    counts_min: float
    counts_max: float
    max_count: float
    nphotons_known: bool
    x_range_px: tuple[float, float]
    y_range_px: tuple[float, float]
    extent_px: tuple[float, float]
    step_px: float | None
    probe_diameter_px: float
    overlap: float | None
    n_bad_pixels: int
    n_modes: int
    mode_powers: list[float]
    object_shape: tuple[int, ...] | None
    canvas_shape: tuple[int, int]
    area_step_px: float | None = None
    findings: list[Finding] = field(default_factory=list)
    geometry: list[tuple[str, str]] = field(default_factory=list)
    object_pixel_size_m: float | None = None

    @property
    def problems(self) -> list[str]:
        """Errors and problems in one line each."""
        return [str(found) for found in doubts(self.findings)]

    @property
    def notes(self) -> list[str]:
        """The notes, harmless, in one line each."""
        return [str(found) for found in self.findings if found.severity == "note"]


def describe_scan(
    raw: RawData, path: str | os.PathLike[str] | None = None, inspection: Inspection | None = None
) -> ScanReport:
    """Measure a scan and list its findings; `inspection`: an earlier result, if any.

    Time and memory as `ptycho.scan.inspection.inspect_scan`.
    """
    seen = inspect_scan(raw) if inspection is None else inspection
    stats, way = seen.statistics, seen.path
    open_ = ~stats.ignored
    brightest = float(stats.highest[open_].max()) if open_.any() else 0.0
    return ScanReport(
        path=None if path is None else os.fspath(path),
        unit=raw.diffraction_unit,
        unit_reason=raw.unit_reason,
        dtype=str(raw.diff3d.dtype),
        n_positions=raw.n_positions,
        N=raw.N,
        counts_mean=float(stats.counts.mean()),
        counts_min=float(stats.counts.min()),
        counts_max=float(stats.counts.max()),
        max_count=brightest**2 if raw.diffraction_unit == "amplitude" else brightest,
        nphotons_known=seen.nphotons_known,
        x_range_px=(float(raw.xcoords.min()), float(raw.xcoords.max())),
        y_range_px=(float(raw.ycoords.min()), float(raw.ycoords.max())),
        extent_px=way.extent_px,
        step_px=way.step_px,
        probe_diameter_px=seen.probe_diameter_px,
        overlap=way.overlap,
        n_bad_pixels=0 if raw.bad_pixels is None else int(raw.bad_pixels.sum()),
        n_modes=len(raw.probe_modes),
        mode_powers=[
            float(p) for p in np.sum(np.abs(raw.probe_modes.astype(np.complex128)) ** 2, axis=(1, 2))
        ],
        object_shape=None if raw.objectGuess is None else raw.objectGuess.shape,
        canvas_shape=way.canvas_shape,
        area_step_px=way.area_step_px,
        findings=seen.findings,
        geometry=raw.geometry.rows(raw.N),
        object_pixel_size_m=raw.object_pixel_size_m,
    )


def open_scan(path: Path, bad_pixels: NDArray[np.bool_] | None = None) -> tuple[RawData, Inspection]:
    """Read a scan even if pixels hold NaN or codes, and inspect it.

    The patterns stay in the file and are read by rows, where its format lets them; a compressed NPZ file is
    unpacked into a scratch file. Memory: some chunks of 32 MiB, and about 16 kB a pattern.

    Invalid values become errors among the findings, and their pixels are added to the mask. Raises DataError
    for other wrong values, and for wrong shapes and types.
    """
    try:
        raw = by_rows(RawData.from_file, path, bad_pixels=bad_pixels, make_probe=True)
        return raw, inspect_scan(raw)
    except NotByRows:
        raise
    except DataError as refused:
        seen = _despite_values(path, bad_pixels)
        if seen is None:
            raise refused
        return seen


def by_rows(read: Callable[..., Read], path: Path, **options: Any) -> Read:
    """The result of `read` with patterns on disk, or wherever they fit if they cannot be read by rows."""
    try:
        return read(path, patterns="disk", **options)
    except NotByRows:
        return read(path, patterns="auto", **options)


def _despite_values(path: Path, bad_pixels: NDArray[np.bool_] | None) -> tuple[RawData, Inspection] | None:
    """The scan with its invalid pixels ignored, or None if something else is wrong too."""
    try:
        arrays = by_rows(read_scan, path, probe_required=False)
        patterns = order_patterns(arrays["diff3d"], len(arrays["xcoords"]), arrays.get("pattern_order"))
        known = [np.asarray(m, np.bool_) for m in (arrays.get("bad_pixels"), bad_pixels) if m is not None]
        mask = np.logical_or.reduce(known) if known else None
        unit, _ = explain_unit(patterns, arrays.get("diffraction_unit"), "bad_pixels" in arrays)
        stats = measure_detector(patterns, unit, mask, np.arange(0))
        wrong = faulty_values(stats)
        if not wrong.any():
            return None
        mask = wrong if mask is None else wrong | mask
        raw = by_rows(RawData.from_file, path, bad_pixels=mask, make_probe=True)
    except Exception:  # the arrays are not a scan: the first error describes the fault
        return None
    seen = inspect_scan(raw)
    return raw, replace(seen, findings=[*value_findings(stats, unit), *seen.findings])
