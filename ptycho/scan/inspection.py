"""All checks of a scan before work starts, in one pass over its patterns.

With an error the scan cannot give an image; with a problem an image cannot be trusted. Faults that only a
reconstruction can show, such as swapped axes, are not checked here: see `ptycho.workflows.orientation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho.io.resources import available_memory_bytes
from ptycho.scan.detector import DetectorStatistics, measure_detector
from ptycho.scan.findings import Finding, doubts
from ptycho.scan.frames import flux_findings, frame_findings, mark_findings, order_findings
from ptycho.scan.illumination import beam_of, match, probe_findings
from ptycho.scan.likeness import likeness, sample_of
from ptycho.scan.normalization import DEFAULT_NPHOTONS, has_integer_squares
from ptycho.scan.pixels import light, pixel_findings, value_findings
from ptycho.scan.positions import ScanPath, measure_path, position_findings
from ptycho.scan.probe import illuminated_diameter_px
from ptycho.scan.units import looks_like_counts


class Scan(Protocol):
    """What is asked of a scan here; `ptycho.scan.raw_data.RawData` has it."""

    diff3d: Any
    diffraction_unit: Any
    unit_reason: str
    bad_pixels: NDArray[np.bool_] | None
    objectGuess: NDArray[Any] | None
    probe_made: bool
    bad_frames: NDArray[np.bool_] | None
    frame_numbers: NDArray[np.int64] | None
    source: Path | None

    @property
    def N(self) -> int:
        """Side of a pattern, px."""

    @property
    def positions_px(self) -> NDArray[np.float64]:
        """(M,2) [x, y] px."""

    @property
    def probe_modes(self) -> NDArray[np.complex64]:
        """(P,N,N)."""

    def amplitude_by_rows(self) -> Any:
        """(M,N,N) float32, 0 in bad pixels, read by rows."""


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found, errors first; the mask (N,N) bool with the pixels at fault added to those ignored; the
    numbers behind it."""

    findings: list[Finding]
    mask: NDArray[np.bool_]
    statistics: DetectorStatistics
    path: ScanPath
    nphotons_known: bool
    probe_diameter_px: float


def inspect_scan(scan: Scan, available_bytes: int | None = None) -> Inspection:
    """Check detector, patterns, positions and probe of a scan.

    available_bytes: memory available for the canvas, None: what this process can allocate now. Time one
    pass over the patterns and O(M log M); memory one chunk, some hundred bytes a pattern, and at most
    8 kB for each of 20,000 patterns. 10,000 patterns of 128 x 128 take about ten seconds on one core.
    """
    probe, positions, N = scan.probe_modes, scan.positions_px, scan.N
    sample = sample_of(positions)
    rows = None if sample is None else sample.rows(len(positions))
    stats = measure_detector(scan.diff3d, scan.diffraction_unit, scan.bad_pixels, rows)
    diameter = illuminated_diameter_px(probe)
    path = measure_path(positions, N, diameter)
    at_fault, proposed = pixel_findings(stats, beam_of(probe))
    mean_pattern, good = light(stats, proposed)
    counts_mean = float(mean_pattern.sum())
    known = scan.diffraction_unit == "counts" or has_integer_squares(scan.amplitude_by_rows())
    if available_bytes is None:
        available_bytes = available_memory_bytes()
    shape = None if scan.objectGuess is None else scan.objectGuess.shape
    found = [
        *value_findings(stats, scan.diffraction_unit),
        *at_fault,
        *frame_findings(stats, positions),
        *mark_findings(scan.bad_frames, scan.frame_numbers),
        *unit_findings(scan, stats, good, known),
        *position_findings(positions, path, N, diameter, shape, available_bytes),
        *(_NO_PROBE if scan.probe_made else probe_findings(probe, mean_pattern, good, counts_mean, known)),
        *key_findings(scan.source, stats),
    ]
    kinds = {one.kind for one in found}
    if not kinds & {"position_unit", "line_scan", "identical_patterns", "position_axis_unit"}:
        clean = stats if not proposed.any() else measure_detector(
            scan.diff3d, scan.diffraction_unit, stats.ignored | proposed, rows
        )  # fmt: skip
        power = np.sum(np.abs(probe).astype(np.float64) ** 2, axis=0)
        found += order_findings(likeness(clean, positions, diameter, sample), path.overlap)
        found += flux_findings(clean, positions, power, path.overlap)
    notes = [one for one in found if one.severity == "note"]
    return Inspection([*doubts(found), *notes], stats.ignored | proposed, stats, path, known, diameter)


_NO_PROBE = [
    Finding(
        "no_probe", "note", "probeGuess", "the scan has no probeGuess: one is made of the mean pattern",
        "nothing to do: ptycho reconstruct tries several; a measured probe would be better",
    )
]  # fmt: skip


def unit_findings(
    scan: Scan, stats: DetectorStatistics, good: NDArray[np.bool_], nphotons_known: bool
) -> list[Finding]:
    """Whether values read as amplitude are in fact counts."""
    if scan.diffraction_unit == "counts":
        return []
    declared = scan.unit_reason.startswith("declared")
    remedy = "if they are counts, store the key diffraction_unit='counts'"
    if not declared and looks_like_counts(scan.diff3d):
        return [
            Finding("counts_as_amplitude", "problem", "diffraction_unit",
                    "the unit is read as amplitude but all values are whole numbers", remedy)
        ]  # fmt: skip
    if not declared and not nphotons_known and not scan.probe_made and _fits_counts(scan, stats, good):
        return [
            Finding(
                "counts_as_amplitude", "problem", "diffraction_unit",
                "float values without a unit are read as amplitude, but the mean pattern fits the probe"
                " better"
                " when they are counts (flat-fielded, perhaps)", remedy,
            )
        ]  # fmt: skip
    if not nphotons_known:
        return [
            Finding(
                "unknown_dose", "note", "diffraction_unit",
                "squared amplitudes are not counts, so the photon number is unknown",
                f"set nphotons to the mean counts per pattern ({DEFAULT_NPHOTONS:.0e} is assumed)",
            )
        ]  # fmt: skip
    return []


def _fits_counts(scan: Scan, stats: DetectorStatistics, good: NDArray[np.bool_]) -> bool:
    """Whether the values themselves, and not their squares, fit the probe in shape and power."""
    some = np.unique(np.linspace(0, stats.n_patterns - 1, min(stats.n_patterns, 64)).round().astype(int))
    values = np.where(good, np.nan_to_num(np.asarray(scan.diff3d[some], np.float64)), 0.0)
    beam = beam_of(scan.probe_modes)
    model = np.sqrt(beam)
    as_counts = match(np.sqrt(np.maximum(values.mean(axis=0), 0)), good, model).best
    as_amplitude = match(np.sqrt((values**2).mean(axis=0)), good, model).best
    power = float(beam.sum())
    ratios = [abs(np.log(max(power, 1e-300) / max(total, 1e-300))) for total in (
        float(values.sum(axis=(1, 2)).mean()), float((values**2).sum(axis=(1, 2)).mean()))]  # fmt: skip
    fits_power = ratios[0] < np.log(3) and ratios[1] > np.log(10)
    return (as_counts > as_amplitude + 0.05) or (fits_power and as_counts > as_amplitude - 0.1)


#: names in other programs for the keys of a scan file
_OTHER_NAMES = {
    "mask": "bad_pixels", "masks": "bad_pixels", "badpixels": "bad_pixels", "bad_pixel_mask": "bad_pixels",
    "pixel_mask": "bad_pixels", "mask_bad": "bad_pixels", "valid": "bad_pixels", "good_pixels": "bad_pixels",
    "valid_pixels": "bad_pixels", "unit": "diffraction_unit", "units": "diffraction_unit",
    "data_unit": "diffraction_unit", "order": "pattern_order", "probe": "probeGuess", "object": "objectGuess",
    "x": "xcoords", "y": "ycoords", "patterns": "diff3d", "obj": "objectGuess",
}  # fmt: skip


def key_findings(source: Path | None, stats: DetectorStatistics) -> list[Finding]:
    """Keys of the file that are not read, each with the known key that was probably meant."""
    from ptycho.io.npz import KNOWN_KEYS, open_npz, read_array, unread_keys

    if source is None or source.suffix.lower() != ".npz" or not source.is_file():
        return []
    found, others = [], []
    known = [key for key in KNOWN_KEYS if key != "Y"]
    unread = unread_keys(source)
    with open_npz(source) as archive:
        present = set(archive.files)
        for key in unread:
            near = _OTHER_NAMES.get(key.lower()) or next(
                iter(get_close_matches(key, known, n=1, cutoff=0.75)), None
            )
            # coordinate keys of other programs may stand beside the known ones with another meaning
            if near is None or (near in present and near != "bad_pixels" and key.lower() in _OTHER_NAMES):
                others.append(key)
                continue
            remedy = f"did you mean {near}? Rename it if so"
            if near == "bad_pixels":
                remedy = _sense(read_array(archive, key, source), key, stats)
            found.append(
                Finding("unread_key", "problem", key, f"the key {key!r} of the file is not read", remedy)
            )
    if others:
        found.append(
            Finding("other_keys", "note", ", ".join(others), f"not read: {', '.join(others)}",
                    "nothing to do, unless the scan needs them")
        )  # fmt: skip
    return found


def _sense(mask: NDArray[Any], key: str, stats: DetectorStatistics) -> str:
    """How to convert another program's mask: which of its two values marks the pixels without light."""
    general = "did you mean bad_pixels (True = ignore)?"
    if mask.shape != (stats.N, stats.N) or mask.dtype.kind not in "buif":
        return f"{general} That needs shape ({stats.N}, {stats.N}), this has {mask.shape}"
    on = mask.astype(bool)
    if not on.any() or on.all():
        return f"{general} Rename it if so"
    bright = stats.mean[on].mean() > stats.mean[~on].mean() or on.mean() > 0.6
    if bright:
        return f"{general} Its True pixels hold the light, so store ~{key} as bad_pixels"
    return f"{general} Its True pixels hold less light than the others, so rename it to bad_pixels"
