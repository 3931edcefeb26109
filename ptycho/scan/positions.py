"""Checks positions in object pixels: unit, axes, outliers, links, memory."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.findings import Finding, Severity, name_numbers
from ptycho.scan.grouping import nearest_neighbors

Floats = NDArray[np.float64]

MIN_OVERLAP = 0.3
#: least number of patterns for judging an image
FEWEST_PATTERNS = 20
_METRES = 1e-2
#: canvases and sums of the canvas' size that a reconstruction holds: object, light, numerator, copies
_CANVASES = 6
_UNIT_RATIO = 6.0


class ScanPath(NamedTuple):
    """The scan in numbers: step_px the median distance to the nearest other place (None for one place),
    area_step_px the side of the area that falls on one place, n_repeated positions that repeat a place."""

    step_px: float | None
    area_step_px: float | None
    n_repeated: int
    extent_px: tuple[float, float]
    canvas_shape: tuple[int, int]
    groups: int
    overlap: float | None


def measure_path(positions: Floats, N: int, diameter_px: float) -> ScanPath:
    """Steps, extent, links and canvas of positions (M, 2) [x, y]. Time O(M log M), memory O(M)."""
    places = np.unique(positions, axis=0)
    extent = (float(np.ptp(positions[:, 0])), float(np.ptp(positions[:, 1])))
    canvas = (N + math.ceil(extent[1]), N + math.ceil(extent[0]))
    repeated = len(positions) - len(places)
    if len(places) < 2:
        return ScanPath(None, None, repeated, extent, canvas, 1, None)
    nearest = places[nearest_neighbors(places, 1)[:, 0]]
    step = float(np.median(np.hypot(*(nearest - places).T)))
    area = math.sqrt(max(extent[0], step) * max(extent[1], step) / len(places))
    groups = len(_groups(places, (1 - MIN_OVERLAP) * diameter_px))
    return ScanPath(step, area, repeated, extent, canvas, groups, 1 - step / diameter_px)


def position_findings(
    positions: Floats,
    path: ScanPath,
    N: int,
    diameter_px: float,
    object_shape: tuple[int, int] | None,
    available_bytes: int | None,
) -> list[Finding]:
    """All findings about these positions, errors first."""
    M = len(positions)
    found = [
        *_few(M),
        *_unit(positions, path, N, diameter_px),
        *_axes(positions, path, diameter_px),
        *_outliers(positions, path, N, diameter_px, available_bytes),
        *_links(path, M, diameter_px),
        *_repeats(path),
    ]
    if object_shape is not None:
        found += _outside(positions, object_shape)
    kinds = {one.kind for one in found}
    if kinds & {"position_unit", "position_outlier"}:
        # a wrong unit explains the other findings
        found = [one for one in found if one.kind not in ("low_overlap", "unlinked_positions")]
    if "position_axis_unit" in kinds:
        found = [one for one in found if one.kind not in ("low_overlap", "unlinked_positions")]
    return found


def _few(M: int) -> list[Finding]:
    if M >= FEWEST_PATTERNS:
        return []
    return [
        Finding(
            "few_patterns", "problem", "scan",
            f"there {'is 1 pattern' if M == 1 else f'are {M} patterns'}: too few to tell a right image from a"
            " wrong one",
            f"measure at least {FEWEST_PATTERNS} overlapping patterns",
        )
    ]  # fmt: skip


def _unit(positions: Floats, path: ScanPath, N: int, diameter_px: float) -> list[Finding]:
    M, extent = len(positions), max(path.extent_px)
    if M < 2:
        return []
    remedy = "store object pixels: divide lengths by the object pixel size"
    if extent == 0 or (path.step_px is None):
        return [
            Finding("position_unit", "error", "positions", 
                    f"all {M} positions are at one place: they span less"
                    " than a pixel (0 px)", "check their unit, and whether they were recorded")
        ]  # fmt: skip
    far = float(np.abs(positions).max())
    if far < _METRES:
        return [
            Finding("position_unit", "error", "positions", f"positions reach only {far:.2g}: they look like"
                    " metres", remedy)
        ]  # fmt: skip
    overlap = "" if path.overlap is None else f", an overlap of {path.overlap:.0%}"
    if extent < 1 or (M >= 9 and extent < max(2.0, 0.1 * diameter_px)):
        less = f"less than a pixel ({extent:.2g} px)" if extent < 1 else f"only {extent:.2g} px"
        return [
            Finding(
                "position_unit", "error", "positions",
                f"{M} positions span {less} under a probe {diameter_px:.3g} px wide{overlap}:"
                " they are in another unit (micrometres?)", remedy,
            )
        ]  # fmt: skip
    if path.area_step_px is not None and path.step_px is not None:
        if M >= 25 and path.area_step_px < 0.02 * diameter_px and extent < diameter_px:
            return [
                Finding(
                    "position_unit", "problem", "positions",
                    f"{M} positions span only {extent:.3g} px, less than the probe of {diameter_px:.3g} px"
                    f"{overlap}: is their unit the object pixel?", remedy,
                )
            ]  # fmt: skip
        if path.step_px > 2 * N and M >= 4:
            return [
                Finding(
                    "position_unit", "error", "positions",
                    f"positions lie {path.step_px:.3g} px apart, more than two windows of {N} px{overlap}:"
                    " they are in another unit (nanometres?)", remedy,
                )
            ]  # fmt: skip
    return []


def _axes(positions: Floats, path: ScanPath, diameter_px: float) -> list[Finding]:
    """An axis that does not move, or has another unit than the other axis."""
    M, (x, y) = len(positions), path.extent_px
    longest, shortest = max(x, y), min(x, y)
    if M < 5 or longest == 0:
        return []
    still, other = ("x", "y") if x < y else ("y", "x")
    if shortest < 1e-6 * longest or (shortest < 0.5 and len(np.unique(positions[:, int(y < x)])) <= 2):
        value = positions[0, 0 if still == "x" else 1]
        return [
            Finding(
                "line_scan", "problem", f"{still}coords",
                f"all positions have one {still} ({value:.6g}): a line scan, or a motor that was not"
                f" recorded",
                f"check {still}coords; a single line cannot be reconstructed in two dimensions",
            )
        ]  # fmt: skip
    turned = _line(positions)
    if turned is not None:
        return [
            Finding(
                "line_scan", "problem", "positions",
                f"all positions lie on one line, at {turned:.0f} degrees to x: a line scan, or one motor"
                " recorded twice",
                "check xcoords and ycoords; a single line cannot be reconstructed in two dimensions",
            )
        ]  # fmt: skip
    ratio = longest / shortest
    if M < 9 or ratio < _UNIT_RATIO:
        return []
    # both axes of a real strip have equal steps; after scaling to equal extents the steps differ
    scaled = (positions - positions.min(0)) / np.array([x, y])
    places = np.unique(scaled, axis=0)
    if len(places) < 9:
        return []
    near = nearest_neighbors(places, min(8, len(places) - 1))
    moves = np.abs(places[near] - places[:, None]).reshape(-1, 2).mean(axis=0)
    if max(moves) > 2.5 * max(min(moves), 1e-12):
        return []
    return [
        Finding(
            "position_axis_unit", "error" if shortest < 1 else "problem", f"{still}coords",
            f"{other} spans {longest:.4g} px and {still} {shortest:.4g} px, with as many rows as columns:"
            f" {still}coords or {other}coords is in another unit",
            "store both in object pixels",
        )
    ]  # fmt: skip


def _line(positions: Floats) -> float | None:
    """Angle in degrees of the line that all positions lie on, or None."""
    centred = positions - positions.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    if len(positions) < 5 or sizes[1] > 1e-3 * sizes[0]:
        return None
    return float(np.degrees(np.arctan2(axes[0, 1], axes[0, 0])) % 180)


def _outliers(
    positions: Floats, path: ScanPath, N: int, diameter_px: float, available_bytes: int | None
) -> list[Finding]:
    M = len(positions)
    found: list[Finding] = []
    stray, gap = np.zeros(0, np.int64), 0.0
    if M >= 5 and path.step_px is not None:
        reach = max(2 * diameter_px, 10 * path.step_px)
        groups = _groups(positions, reach)
        largest = max(groups, key=len)
        if len(largest) >= 0.8 * M:
            stray = np.sort(np.concatenate([g for g in groups if g is not largest] or [stray]))
    needed = canvas_bytes(path.canvas_shape)
    if len(stray):
        kept = np.delete(positions, stray, axis=0)
        low, high = kept.min(0), kept.max(0)
        away = np.maximum(np.maximum(low - positions[stray], positions[stray] - high), 0.0)
        gap = float(np.hypot(*away.T).max())
        inner = float(np.prod(np.ptp(kept, axis=0) + N))
        swollen = path.canvas_shape[0] * path.canvas_shape[1] > 4 * inner
        severity: Severity = "error" if swollen else "problem"
        lies = "lies" if len(stray) == 1 else "lie up to"
        names = name_numbers("position", stray)
        found.append(
            Finding(
                "position_outlier", severity, names,
                f"{names} {lies} {gap:.6g} px from the others, and the canvas would be"
                f" {path.canvas_shape[0]} x {path.canvas_shape[1]} px ({_size(needed)})",
                f"remove {'it' if len(stray) == 1 else 'them'} with"
                f" {'its pattern' if len(stray) == 1 else 'their patterns'}, or correct"
                f" {'it' if len(stray) == 1 else 'them'}",
            )
        )  # fmt: skip
    if available_bytes is not None and needed > available_bytes:
        found.append(
            Finding(
                "canvas_memory", "error", "positions",
                f"the canvas of {path.canvas_shape[0]} x {path.canvas_shape[1]} px needs about"
                f" {_size(needed)},"
                f" and {_size(available_bytes)} are available",
                "check the unit of the positions and stray ones, or reconstruct parts of the scan",
            )
        )  # fmt: skip
    return found


def canvas_bytes(shape: tuple[int, int]) -> int:
    """Memory of a reconstruction on a canvas of this shape, bytes."""
    return _CANVASES * 8 * shape[0] * shape[1]


def _links(path: ScanPath, M: int, diameter_px: float) -> list[Finding]:
    if path.overlap is None or path.step_px is None:
        return []
    if path.overlap < MIN_OVERLAP:
        none = "neighbours share no light" if path.overlap <= 0 else "neighbours hardly constrain each other"
        return [
            Finding(
                "low_overlap", "problem", "positions",
                f"the overlap is {path.overlap:.0%} (step {path.step_px:.1f} px, beam {diameter_px:.1f} px):"
                f" below {MIN_OVERLAP:.0%} {none}",
                "check the pixel size and the unit of the positions, or use a wider beam",
            )
        ]  # fmt: skip
    if path.groups > 1 and M >= 5:
        return [
            Finding(
                "unlinked_positions", "problem", "positions",
                f"the positions fall into {path.groups} groups that do not overlap"
                f" (less than {MIN_OVERLAP:.0%} of a beam of {diameter_px:.1f} px)",
                "check the step between lines; groups that are not linked have phases of their own",
            )
        ]  # fmt: skip
    return []


def _groups(positions: Floats, reach: float) -> list[NDArray[np.int64]]:
    """Positions that are linked by steps of at most `reach`, group by group."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    M = len(positions)
    # links to the eight nearest are sufficient in general; all pairs within reach may need too much memory
    k = min(9, M)
    distance, index = cKDTree(positions).query(positions, k=k)
    rows = np.repeat(np.arange(M), k)
    links = distance.ravel() <= reach
    graph = coo_matrix((np.ones(links.sum(), np.int8), (rows[links], index.ravel()[links])), (M, M))
    n, labels = connected_components(graph, directed=False)
    if n > 1:
        labels = _joined(positions, labels, n, reach)
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _joined(positions: Floats, labels: NDArray[np.int32], n: int, reach: float) -> NDArray[np.int32]:
    """Join groups that the nearest eight did not link, such as two dense lines side by side."""
    from scipy.spatial import cKDTree

    for label in range(min(n, 200)):
        inside = labels == label
        if inside.all() or not inside.any():
            continue
        others = np.flatnonzero(~inside)
        distance, index = cKDTree(positions[others]).query(positions[inside], k=1)
        for target in np.unique(labels[others[index[distance <= reach]]]):
            labels[labels == target] = label
    return labels


def _repeats(path: ScanPath) -> list[Finding]:
    if not path.n_repeated or path.step_px is None:
        return []
    noun = "position repeats" if path.n_repeated == 1 else "positions repeat"
    return [
        Finding(
            "repeated_positions", "problem", "positions",
            f"{path.n_repeated} {noun} an earlier one",
            "merge or drop them unless they were measured twice",
        )
    ]  # fmt: skip


def _outside(positions: Floats, shape: tuple[int, int]) -> list[Finding]:
    height, width = shape
    x, y = positions.T
    outside = np.flatnonzero((x < 0) | (x > width - 1) | (y < 0) | (y > height - 1))
    if not len(outside):
        return []
    return [
        Finding(
            "positions_outside_object", "problem", name_numbers("position", outside),
            f"{len(outside)} of {len(positions)} positions are outside objectGuess {shape}",
            "check origin and axis order (xcoords is the column)",
        )
    ]  # fmt: skip


def _size(n_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} EB"
