"""What a scan is and what is wrong with it, as numbers and sentences for `ptycho validate`.

Errors that make a scan unusable are raised when it is read; here stand the doubts that only a person can
settle.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptycho.io.lazy import Patterns
from ptycho.scan.grouping import nearest_neighbors
from ptycho.scan.normalization import DEFAULT_NPHOTONS, has_integer_squares
from ptycho.scan.probe import illuminated_diameter_px
from ptycho.scan.raw_data import RawData
from ptycho.scan.units import looks_like_counts

MIN_OVERLAP = 0.3
_METRES_EXTENT = 1e-2
_MAX_PROBE_POWER_RATIO = 4.0
# The zero frequency may wander with the object's gradients; beyond this share of N it stands elsewhere.
_MAX_CENTRE_SHIFT = 1 / 16
_CHUNK = 64


@dataclass
class ScanReport:
    """One screen about one scan; plain numbers, so that it can be written as JSON.

    Counts are squares of the amplitude, bad pixels left out; [x, y] for positions, (rows, columns) for
    shapes. `overlap` is 1 - step/diameter, with the median step to the nearest other position and the
    diameter that holds 90 % of the probe's power; both are None for a single position.
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
    problems: list[str] = field(default_factory=list)


def describe_scan(raw: RawData, path: str | os.PathLike[str] | None = None) -> ScanReport:
    """Measure a scan and list what looks wrong, each problem in one line with its remedy.

    Time O(M N^2 + M log M); memory one chunk.
    """
    amplitude = raw.amplitude_by_rows()
    counts, max_count, mean_pattern = _pattern_sums(amplitude, raw.bad_pixels)
    step_px, n_repeated = _steps(raw)
    diameter_px = illuminated_diameter_px(raw.probe_modes)
    extent_x, extent_y = float(np.ptp(raw.xcoords)), float(np.ptp(raw.ycoords))
    report = ScanReport(
        path=None if path is None else os.fspath(path),
        unit=raw.diffraction_unit,
        unit_reason=raw.unit_reason,
        dtype=str(raw.diff3d.dtype),
        n_positions=raw.n_positions,
        N=raw.N,
        counts_mean=float(counts.mean()),
        counts_min=float(counts.min()),
        counts_max=float(counts.max()),
        max_count=max_count,
        nphotons_known=raw.diffraction_unit == "counts" or has_integer_squares(amplitude),
        x_range_px=(float(raw.xcoords.min()), float(raw.xcoords.max())),
        y_range_px=(float(raw.ycoords.min()), float(raw.ycoords.max())),
        extent_px=(extent_x, extent_y),
        step_px=step_px,
        probe_diameter_px=diameter_px,
        overlap=None if step_px is None else 1 - step_px / diameter_px,
        n_bad_pixels=0 if raw.bad_pixels is None else int(raw.bad_pixels.sum()),
        n_modes=len(raw.probe_modes),
        mode_powers=[
            float(p) for p in np.sum(np.abs(raw.probe_modes.astype(np.complex128)) ** 2, axis=(1, 2))
        ],
        object_shape=None if raw.objectGuess is None else raw.objectGuess.shape,
        canvas_shape=(raw.N + math.ceil(extent_y), raw.N + math.ceil(extent_x)),
    )
    report.problems = [
        *_unit_problems(raw, report),
        *_pattern_problems(counts, mean_pattern),
        *_position_problems(raw, report, n_repeated),
        *_probe_problems(report),
    ]
    return report


def _pattern_sums(
    amplitude: Patterns, bad_pixels: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], float, NDArray[np.float64]]:
    """Counts of every pattern (M,), the largest count of a pixel, and the mean pattern (N,N)."""
    sums, largest, total = [], 0.0, np.zeros(amplitude.shape[1:])
    for begin in range(0, len(amplitude), _CHUNK):
        counts = np.square(amplitude[begin : begin + _CHUNK], dtype=np.float64)
        if bad_pixels is not None:
            counts[:, bad_pixels] = 0.0
        sums.append(counts.sum(axis=(1, 2)))
        largest = max(largest, float(counts.max()))
        total += counts.sum(axis=0)
    return np.concatenate(sums), largest, total / len(amplitude)


def _steps(raw: RawData) -> tuple[float | None, int]:
    """Median distance to the nearest position elsewhere, and how many positions repeat an earlier one."""
    places = np.unique(raw.positions_px, axis=0)
    repeated = raw.n_positions - len(places)
    if len(places) < 2:
        return None, repeated
    nearest = places[nearest_neighbors(places, 1)[:, 0]]
    return float(np.median(np.hypot(*(nearest - places).T))), repeated


def _unit_problems(raw: RawData, report: ScanReport) -> list[str]:
    if report.unit == "counts":
        return []
    if looks_like_counts(raw.diff3d):
        return [
            "the unit is read as amplitude but all values are whole numbers: if they are counts, store "
            "the key "
            "diffraction_unit='counts'"
        ]
    if not report.nphotons_known:
        return [
            f"squared amplitudes are not counts, so the photon number is unknown: set nphotons to the "
            f"mean counts "
            f"per pattern ({DEFAULT_NPHOTONS:.0e} is assumed)"
        ]
    return []


def _pattern_problems(counts: NDArray[np.float64], mean_pattern: NDArray[np.float64]) -> list[str]:
    problems = []
    dark = np.flatnonzero(counts == 0)
    if len(dark):
        problems.append(
            f"{len(dark)} of {len(counts)} patterns are zero, the first is {dark[0]}: remove them with "
            f"their positions"
        )
    N = mean_pattern.shape[0]
    row, column = _centre_of_light(mean_pattern)
    if math.hypot(row - N // 2, column - N // 2) > N * _MAX_CENTRE_SHIFT:
        problems.append(
            f"the zero frequency is not at ({N // 2}, {N // 2}): the light is centred on row {row:.1f}, "
            f"column "
            f"{column:.1f}; shift the patterns (np.fft.fftshift if they are corner-centred) or move the crop"
        )
    return problems


def _centre_of_light(mean_pattern: NDArray[np.float64]) -> tuple[float, float]:
    """Circular centre of mass (row, column): corner-centred light is found at the corner, not in the
    middle."""
    N = mean_pattern.shape[0]
    turn = np.exp(2j * np.pi * np.arange(N) / N)
    row, column = (np.angle(mean_pattern.sum(axis=axis) @ turn) * N / (2 * np.pi) % N for axis in (1, 0))
    return float(row), float(column)


def _position_problems(raw: RawData, report: ScanReport, n_repeated: int) -> list[str]:
    problems = []
    extent = max(report.extent_px)
    far = max(map(abs, (*report.x_range_px, *report.y_range_px)))
    if raw.n_positions > 1 and far < _METRES_EXTENT and extent > 0:
        problems.append(
            f"positions reach only {far:.2g}: they look like metres; divide them by the object pixel size"
        )
    elif raw.n_positions > 1 and extent < 1:
        problems.append(
            f"positions span less than a pixel ({extent:.2g} px): check their unit, object pixels are "
            f"expected"
        )
    elif report.overlap is not None and report.overlap < MIN_OVERLAP:
        problems.append(
            f"the overlap is {report.overlap:.0%} (step {report.step_px:.1f} px, beam "
            f"{report.probe_diameter_px:.1f} px): below {MIN_OVERLAP:.0%} neighbours hardly constrain "
            f"each other; "
            "check the pixel size, or use a wider beam"
        )
    if n_repeated:
        noun = "position repeats" if n_repeated == 1 else "positions repeat"
        problems.append(
            f"{n_repeated} {noun} an earlier one: merge or drop them unless they were measured twice"
        )
    if raw.objectGuess is not None:
        outside = _n_outside(raw)
        if outside:
            problems.append(
                f"{outside} of {raw.n_positions} positions are outside objectGuess "
                f"{raw.objectGuess.shape}: check "
                "origin and axis order (xcoords is the column)"
            )
    return problems


def _n_outside(raw: RawData) -> int:
    assert raw.objectGuess is not None
    height, width = raw.objectGuess.shape
    inside = (
        (raw.xcoords >= 0) & (raw.xcoords <= width - 1) & (raw.ycoords >= 0) & (raw.ycoords <= height - 1)
    )
    return int(np.count_nonzero(~inside))


def _probe_problems(report: ScanReport) -> list[str]:
    """By Parseval an object of amplitude at most one cannot scatter more than the probe brings."""
    if not report.nphotons_known or report.counts_mean == 0:
        return []
    ratio = sum(report.mode_powers) / report.counts_mean
    if 1 / _MAX_PROBE_POWER_RATIO <= ratio <= _MAX_PROBE_POWER_RATIO:
        return []
    return [
        f"the probe power is {ratio:.3g} times the mean counts of a pattern: harmless for training, which "
        f"normalises "
        "the probe, but absolute amplitudes of the object follow it"
    ]
