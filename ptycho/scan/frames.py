"""Patterns as a series: empty, repeated, in the wrong order, shifted against the positions, with jumps of
flux.

Neighbours on the object see the same features, so their patterns resemble each other more than those of
strangers do. If photons are too few for this likeness, or the object is flat, nothing is reported.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.detector import DetectorStatistics
from ptycho.scan.findings import Finding, name_numbers
from ptycho.scan.grouping import nearest_neighbors
from ptycho.scan.likeness import FEWEST, Likeness

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

#: a repeated pattern of fewer counts may be chance
_FEWEST_COUNTS = 30


def frame_findings(stats: DetectorStatistics, positions: Floats) -> list[Finding]:
    """Empty and repeated patterns. Time O(M log M)."""
    found = []
    counts, M = stats.counts, stats.n_patterns
    empty = np.flatnonzero(counts == 0)
    if 0 < len(empty) < M and M > 4:
        # behind an opaque object, a pattern of few photons may be empty: compare with its neighbours
        near = nearest_neighbors(positions, 4)[empty]
        empty = empty[np.median(counts[near], axis=1) > _FEWEST_COUNTS]
    if len(empty) == M:
        found.append(
            Finding("empty_patterns", "error", "all patterns", "every diffraction pattern is zero outside"
                    " bad_pixels", "check the detector crop, the shutter and the mask")
        )  # fmt: skip
    elif len(empty):
        found.append(
            Finding(
                "empty_patterns", "problem", name_numbers("pattern", empty),
                f"{len(empty)} of {M} patterns are zero, the first is {empty[0]}",
                "remove them with their positions",
            )
        )  # fmt: skip
    repeated, earlier = _repeats(stats.digests, np.flatnonzero(counts > _FEWEST_COUNTS))
    if M > 1 and len(repeated) == M - 1:
        found.append(
            Finding("identical_patterns", "error", "all patterns", f"all {M} patterns are the same",
                    "check how they were read; no position tells anything the others do not")
        )  # fmt: skip
    elif len(repeated):
        first = int(np.argmin(earlier))
        found.append(
            Finding(
                "repeated_patterns", "problem", name_numbers("pattern", np.sort(repeated)),
                f"{len(repeated)} of {M} patterns repeat an earlier one to the last count, the first is"
                f" {repeated[first]}, a copy of {earlier[first]}",
                "check how they were read; keep each measured pattern once, with its own position",
            )
        )  # fmt: skip
    return found


def _repeats(digests: NDArray[np.uint64], asked: Numbers) -> tuple[Numbers, Numbers]:
    """Of the patterns `asked`, in order: those that repeat an earlier one, and that earlier one."""
    order = asked[np.argsort(digests[asked], kind="stable")]
    same = digests[order[1:]] == digests[order[:-1]]
    begins = np.flatnonzero(np.concatenate([[True], ~same]))
    firsts = np.repeat(order[begins], np.diff(np.append(begins, len(order))))
    return order[1:][same], firsts[1:][same]


def mark_findings(
    bad_frames: NDArray[np.bool_] | None, numbers: NDArray[np.int64] | None = None
) -> list[Finding]:
    """A note of the frames that the scan's file marks as bad (M,); numbers (M,): those in the file."""
    if bad_frames is None or not bad_frames.any():
        return []
    rows = np.flatnonzero(bad_frames)
    where = name_numbers("frame", rows if numbers is None else numbers[rows])
    return [
        Finding(
            "marked_frames", "note", where,
            f"{len(rows)} of {len(bad_frames)} frames are marked as bad in the file and are used ({where})",
            "--skip_bad leaves out what triage calls bad",
        )
    ]  # fmt: skip


def order_findings(found: Likeness | None, overlap: float | None) -> list[Finding]:
    """Findings about the order of patterns, from the likeness of neighbours."""
    if found is None or found.strange.asked < 0.3:
        return []
    strange = found.strange
    sure = max(0.08, 6 / np.sqrt(found.pairs))
    best = max(found.shifts, key=lambda k: found.shifts[k])
    gain = found.shifts[best]
    if gain > max(sure, found.reversed) and found.order > -sure and found.order + gain > 0.25:
        ahead = "later" if best > 0 else "earlier"
        off = "one" if abs(best) == 1 else abs(best)
        return [
            Finding(
                "shifted_patterns", "problem", "order of patterns",
                f"patterns fit the positions better when each is replaced by the one {abs(best)} {ahead}:"
                f" patterns and positions are off by {off}",
                "pair them anew: drop the first or last entries of one of the two",
            )
        ]  # fmt: skip
    if found.reversed > max(sure, 0.15) and found.order + found.reversed > 0.25:
        return [
            Finding("reversed_patterns", "problem", "order of patterns",
                    "patterns fit the positions better in reversed order", "reverse one of the two")
        ]  # fmt: skip
    # with large steps even neighbours have little in common, and one of many distant patterns may be more
    # alike
    if overlap is None or overlap < 0.72:
        return []
    throughout = found.order < 0.12 and strange.any_share > 0.3
    least = (0.045, 0.065) if overlap > 0.78 else (0.055, 0.08)
    # for the remaining, correct patterns, likeness must fall with distance
    in_part = found.order > 0.1 and strange.number >= 3
    in_part = in_part and strange.share > least[0 if found.order < 0.33 else 1]
    if not (throughout or in_part):
        return []
    share = max(strange.share, strange.any_share if throughout else 0.0)
    return [
        Finding(
            "shuffled_patterns", "problem", "order of patterns",
            f"{share:.0%} of the patterns or more resemble patterns elsewhere and not those beside them:"
            " patterns and positions are paired wrongly, in part or throughout",
            "pair them anew, by the scan's own index",
        )
    ]  # fmt: skip


def flux_findings(
    stats: DetectorStatistics, positions: Floats, probe_power: Floats, overlap: float | None
) -> list[Finding]:
    """Jumps of intensity that the object cannot cause: neighbours share most of the illuminated area.

    probe_power (N,N): |P|^2, centred. For any object, the transmitted light changes between two positions by
    at most the difference between the illumination and its copy moved from one position to the other.
    """
    counts, M = stats.counts, stats.n_patterns
    lit = np.flatnonzero(counts > 0)
    if len(lit) < FEWEST or overlap is None or overlap < 0.3:
        return []
    places, values = positions[lit], counts[lit]
    if len(np.unique(places, axis=0)) < FEWEST:
        return []
    near = nearest_neighbors(places, min(4, len(lit) - 1))
    usual = float(np.median(values))
    open_ = max(float(np.percentile(values, 90)), usual)
    around = np.median(values[near], axis=1)
    noise = np.sqrt(values + around) + 1.0
    jump = np.abs(values - around)
    step = np.hypot(*(places[near] - places[:, None]).transpose(2, 0, 1)).mean(axis=1)
    allowed = np.minimum(_moved(probe_power, step), 1.0) * open_
    beyond = jump > 1.2 * allowed + 6 * noise
    # smaller jumps are detected by their number: random between neighbours, while a smooth object is not
    relative = (values - around) / open_
    excess = float(np.mean(relative**2) - np.mean((noise / open_) ** 2))
    spread = float(np.var(values / open_))
    white = excess > 0.1**2 and excess > 0.6 * spread and excess > 0.15 * np.mean((allowed / open_) ** 2)
    steps = int(beyond.sum())
    if not white and steps < max(2, 0.01 * M):
        return []
    factor = float(np.percentile(values, 98) / max(np.percentile(values, 2), 1e-30))
    return [
        Finding(
            "flux_jumps", "problem", name_numbers("pattern", lit[beyond]) if steps else "all patterns",
            f"the mean counts of patterns vary by a factor of {factor:.3g} and jump between neighbours, which"
            " no object does: the beam's intensity changed",
            "solve for it: ptycho reconstruct --intensity; or divide the patterns by a monitor",
        )
    ]  # fmt: skip


def _moved(power: Floats, step_px: Floats) -> Floats:
    """Half the absolute difference between |P|^2 and itself moved by `step_px`, relative to its sum."""
    from scipy import ndimage

    lengths = np.linspace(0.0, min(len(power) / 2, max(float(step_px.max()), 1e-3)), 8)
    total = max(float(power.sum()), 1e-300)
    rows = [
        max(
            0.5 * float(np.abs(power - ndimage.shift(power, move, order=1, mode="grid-wrap")).sum()) / total
            for move in ((length, 0.0), (0.0, length))
        )
        for length in lengths
    ]
    # the probe guess may be blurred or wrong: allow a third more
    return 1.33 * np.interp(step_px, lengths, rows) + 0.02
