"""Detector pixels that do not measure light: gaps, codes, NaN, stuck, hot, dead, saturated; offsets; masks.

A fault must differ from its neighbours or over time, and light must never be taken as a fault: effects of few
photons, a hollow beam or a dark border are not faults. Each class is one function of the statistics of
`ptycho.scan.detector`, the known mask, and the pattern of the probe alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.detector import DetectorStatistics
from ptycho.scan.findings import Finding, Severity, name_numbers, name_pixels
from ptycho.scan.neighbours import between, rank_of_neighbours

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

_MARK = "mark the pixels in bad_pixels (True = ignore; ptycho validate --write_mask writes them)"
#: missing counts over the whole scan from which a pixel is called dead: chance exp(-30)
_MISSED = 30.0
#: least ratio of a hot pixel to the fourth brightest of its neighbours
_HOT = 10.0
_FEWEST = 8
_HIGH_CODES = tuple(2**bits - k for bits in (8, 16, 20, 31, 32) for k in (1, 2))


def value_findings(stats: DetectorStatistics, unit: str) -> list[Finding]:
    """Impossible values outside ignored pixels: NaN, infinite, negative."""
    found = []
    M = stats.n_patterns
    open_ = ~stats.ignored
    often = _often(M)
    bad = open_ & (stats.n_bad >= often)
    if bad.any():
        found.append(
            _fault(
                "nan_pixels", "error", bad, stats, "hold NaN or infinite values in most patterns", "diff3d"
            )
        )
    loose = open_ & (stats.n_bad > 0) & ~bad
    if loose.any():
        frames = np.flatnonzero(stats.bad_frames)
        found.append(
            Finding(
                "nan_patterns", "error", name_numbers("pattern", frames),
                f"diff3d holds NaN or infinite values at {name_pixels(loose)}, the first in pattern"
                f" {frames[0]}",
                "remove those patterns with their positions, or set the pixels to 0 and mark them in"
                " bad_pixels",
            )
        )  # fmt: skip
    code = open_ & (stats.n_negative >= often) & (stats.n_at_lowest >= often) & ~bad
    if code.any():
        value = _shown(stats.lowest[code].min())
        found.append(
            _fault(
                "negative_codes", "error", code, stats,
                f"hold the code {value} in most patterns (negative {unit}), which marks a gap or a pixel"
                " switched off", "diff3d",
            )
        )  # fmt: skip
    below = open_ & (stats.n_negative > 0) & ~code & ~bad
    if below.any():
        frames = np.flatnonzero(stats.n_negative_frame)
        found.append(
            Finding(
                "negative_values", "error", name_pixels(below),
                f"diff3d holds negative {unit} (lowest {_shown(stats.lowest[below].min())}) at "
                f"{name_pixels(below)}, the first in pattern {frames[0]}",
                "clip them with np.maximum(diff3d, 0)",
            )
        )  # fmt: skip
    return found


def faulty_values(stats: DetectorStatistics) -> Mask:
    """Pixels (N,N) whose values `value_findings` would have marked: NaN or a negative code in most
    patterns."""
    often = _often(stats.n_patterns)
    code = (stats.n_negative >= often) & (stats.n_at_lowest >= often)
    return ~stats.ignored & ((stats.n_bad >= often) | code)


def pixel_findings(stats: DetectorStatistics, beam: Floats | None = None) -> tuple[list[Finding], Mask]:
    """Faults of pixels, and the map (N,N) of pixels to add to bad_pixels.

    beam (N,N): intensity that the probe alone would give, any scale; None where the probe is not known.
    Time O(N^2 log) of small windows.
    """
    found: list[Finding] = []
    unusable = stats.ignored | faulty_values(stats)
    gap, clipped, stuck = _constant(stats, unusable)
    proposed = np.zeros_like(unusable)
    if gap.any():
        top = _shown(stats.highest[gap].max())
        found.append(
            _fault(
                "type_maximum", "error", gap, stats,
                f"hold {top} in {_share(stats, gap)}, the largest value of the file's type or a detector's"
                " code: a gap or a bad pixel, not light", "",
            )
        )  # fmt: skip
    if stuck.any():
        held = stats.mean[stuck].sum() > 0.3 * stats.mean[~unusable & ~gap].sum()
        found.append(
            _fault(
                "stuck_pixels", "error" if held else "problem", stuck, stats,
                f"hold {_shown(stats.highest[stuck].max())} in {_share(stats, stuck)}: they are stuck", "",
            )
        )  # fmt: skip
    unusable = unusable | gap | stuck
    if clipped.any():
        found.append(
            _fault(
                "saturated_pixels", "problem", clipped, stats,
                f"stop at {_shown(stats.highest[clipped].max())}: the detector saturates there", "",
                f"{_MARK}, or measure with a weaker beam",
            )
        )  # fmt: skip
    hot = _hot(stats.mean, unusable | clipped, beam, stats.n_patterns)
    if hot.any():
        held = stats.mean[hot].sum() > 0.3 * stats.mean[~unusable].sum()
        found.append(
            _fault(
                "hot_pixels", "error" if held else "problem", hot, stats,
                f"count {_shown(stats.mean[hot].max())} on average, over {_HOT:.0f} times more than the"
                f" pixels"
                " around them: hot", "",
            )
        )  # fmt: skip
    unusable = unusable | hot
    dead, stop = _dark(stats, unusable, beam)
    if dead.any():
        found.append(_fault("dead_pixels", "problem", dead, stats, "are always zero between lit pixels", ""))
    if stop.any():
        found.append(
            _fault("beamstop", "problem", stop, stats,
                   "are always zero where the beam is bright: a beamstop or"
                   " a dead area", "")
        )  # fmt: skip
    proposed = gap | stuck | clipped | hot | dead | stop
    found += _pedestal(stats, unusable | dead | stop)
    found += _inverted(stats)
    return found, proposed


def light(stats: DetectorStatistics, faults: Mask) -> tuple[Floats, Mask]:
    """Mean pattern (N,N) in counts and the good pixels: neither ignored nor faulty."""
    good = ~(stats.ignored | faults | faulty_values(stats))
    return np.where(good, stats.mean, 0.0), good


def _constant(stats: DetectorStatistics, unusable: Mask) -> tuple[Mask, Mask, Mask]:
    """Pixels at a code of the type, pixels that saturate, and pixels stuck at another value."""
    M, open_ = stats.n_patterns, ~unusable
    none = np.zeros_like(open_)
    if M < 4 or not open_.any():
        return none, none, none
    is_code = np.isin(stats.highest, _HIGH_CODES)
    if stats.dtype.kind == "f":  # float32 rounds 2^32 - 1 up
        is_code |= np.isin(stats.highest, (2.0**16, 2.0**31, 2.0**32))
    else:
        is_code |= stats.highest == np.iinfo(stats.dtype).max
    constant = open_ & (stats.n_at_highest >= _often(M)) & (stats.highest >= 16)
    # A constant value alone is not a fault: without noise and structure every pixel is constant.
    varies = open_ & (stats.n_at_highest < _often(M)) & (stats.highest > 0)
    if varies.sum() < 0.02 * open_.sum() and (constant & ~is_code).any():
        constant &= is_code
    top = stats.highest[open_].max()
    at_top = open_ & (stats.highest == top) & (top >= 16)
    partly = at_top & ~constant
    hits = int(stats.n_at_highest[at_top].sum())
    # Without saturation the largest value of the scan occurs only once or twice.
    if (
        partly.sum() >= 2
        and hits >= max(_FEWEST, 0.02 * M)
        and stats.n_at_highest[partly].max() >= 3
        or partly.any()
        and stats.n_at_highest[partly].max() >= max(_FEWEST, 0.05 * M)
    ):
        clipped = at_top
    else:
        clipped = none
    if clipped.any():
        # a gap differs from a saturated area: it has the highest value in every pattern, without a transition
        # zone
        brim = _spread(clipped & partly, 2)
        inside = clipped & constant
        clipped = clipped & (partly | _connected(inside, brim))
    gap = constant & is_code & ~clipped
    return gap, clipped, constant & ~is_code & ~clipped


def _connected(inside: Mask, brim: Mask) -> Mask:
    """Parts of `inside` that touch `brim`."""
    from scipy import ndimage

    labels, _ = ndimage.label(inside, np.ones((3, 3)))
    return np.isin(labels, np.unique(labels[inside & brim])) & inside


def _spread(mask: Mask, n_pixels: int) -> Mask:
    from scipy import ndimage

    return np.asarray(ndimage.binary_dilation(mask, np.ones((3, 3)), iterations=n_pixels))


def _hot(mean: Floats, unusable: Mask, beam: Floats | None, M: int) -> Mask:
    """Much brighter than the fourth brightest of 24 neighbours, without such a peak in the beam itself."""
    fourth = rank_of_neighbours(np.where(unusable, np.nan, mean), 4)
    floor = 3.0 / M  # a few counts in the whole scan are too few for a comparison
    stands = ~unusable & (mean > _HOT * np.maximum(fourth, floor)) & (mean * M > _MISSED)
    if beam is not None and stands.any():
        level = 1e-6 * beam.max()
        # of the same neighbours: a mask may leave only the dark side of the beam's edge
        beside = rank_of_neighbours(np.where(unusable, np.nan, beam), 4)
        known = np.isfinite(beside)  # inf for a pixel with too few neighbours
        own = np.where(known, (beam + level) / (np.where(known, beside, 0.0) + level), 1.0)
        stands &= mean > _HOT * own * np.maximum(fourth, floor) / 2
        # the brightest spot of the beam may be sharper than the probe says
        row, column = np.unravel_index(int(beam.argmax()), beam.shape)
        rows, columns = np.indices(beam.shape)
        stands &= (np.abs(rows - row) > 1) | (np.abs(columns - column) > 1)
    return stands


def _dark(stats: DetectorStatistics, unusable: Mask, beam: Floats | None) -> tuple[Mask, Mask]:
    """Pixels that never count, although the light around them, or the beam, predicts counts."""
    M, open_ = stats.n_patterns, ~unusable
    from scipy import ndimage

    zero = open_ & (stats.highest <= 0)
    none = np.zeros_like(zero)
    lit = open_ & ~zero
    if not zero.any() or not lit.any():
        return none, none
    total = np.where(lit, stats.mean * M, 0.0)
    expected = between(total, lit, 3)
    # far below the peak, a zero of the beam may have no counts, and a uniform object does not fill it
    even = np.median(stats.variance[lit] / stats.mean[lit]) < 2
    dead = zero & (expected > max(_MISSED, (1e-3 if even else 1e-6) * total.max()))
    # without structure there is no scattering, and the border of a pupil is a sharp edge
    sharp = even and beam is not None
    level = 1e-2 * float(beam.sum(axis=0).max()) if beam is not None and sharp else 0.0
    dead |= zero & _cut_columns(total, zero, open_, beam, level)
    turned = None if beam is None else beam.T
    dead |= zero & _cut_columns(total.T, zero.T, open_.T, turned, level).T
    stop = none
    if beam is not None:
        scale = total[lit].sum() / max(float(beam[lit].sum()), 1e-300)
        if beam[lit].sum() > 0.02 * beam.sum():
            # the probe is a guess: the edge of its beam may be wrong by a pixel or two
            sure = ndimage.minimum_filter(beam, 3 + 2 * (len(beam) // 128))
            stop = zero & (sure * scale > 4 * _MISSED) & (sure > 0.05 * beam.max())
        level = 1e-6 * beam.max()
        # a hole of the beam itself is no fault
        dead &= ndimage.minimum_filter(beam, 3) + level > 0.05 * between(beam + level, lit, 3)
    for sideways in (False, True):
        # a line of zeros is faulty in all its pixels, also in those with little expected light
        lines, faulty = (zero.T, dead.T) if sideways else (zero, dead)
        whole = np.asarray(
            (lines | ~(open_.T if sideways else open_)).all(axis=0) & (faulty.mean(axis=0) > 0.3)
        )
        add = lines & whole[None, :]
        dead |= add.T if sideways else add
    labels, n = ndimage.label((dead | stop) & zero, np.ones((3, 3)))
    big = np.zeros_like(zero)
    for label in range(1, n + 1):
        here = labels == label
        if (here & stop).sum() >= 5 and not _is_line(here):
            big |= here
    return (dead | stop) & ~big, big


def _is_line(mask: Mask) -> bool:
    """Whole columns or rows: a module or a line, not a stop."""
    rows, columns = np.nonzero(mask)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    return bool(max(height, width) >= 0.9 * len(mask) and mask.sum() >= 0.9 * height * width)


def _cut_columns(total: Floats, zero: Mask, open_: Mask, beam: Floats | None, level: float) -> Mask:
    """Whole columns of zeros beside columns with strong light: a module that is off."""
    N = total.shape[1]
    empty = np.asarray((zero | ~open_).all(axis=0) & zero.any(axis=0))
    sums = total.sum(axis=0)
    own = np.ones(N) if beam is None else beam.sum(axis=0)
    cut = np.zeros(N, np.bool_)
    for column in np.flatnonzero(empty):
        for step in (1, -1):
            edge = column
            while 0 <= edge < N and empty[edge]:
                edge += step
            beyond = edge + step
            if not (0 <= edge < N and 0 <= beyond < N):
                continue
            faded = sums[edge] < 0.1 * sums[beyond] or own[edge - step] < 0.05 * own[edge]
            faded = faded or own[edge] < level
            if sums[edge] > 4 * _MISSED and not faded:
                cut[column] = True
    return np.broadcast_to(cut[None, :], total.shape)


def _pedestal(stats: DetectorStatistics, unusable: Mask) -> list[Finding]:
    """A constant level in all pixels that fluctuates less than counts of that size would."""
    open_ = ~unusable
    if open_.sum() < 32 or stats.n_patterns < _FEWEST:
        return []
    lowest = float(np.percentile(stats.lowest[open_], 1))
    if stats.dtype.kind not in "ui" and lowest <= 0:
        return []
    mean, variance = stats.mean[open_], stats.variance[open_]
    order = np.argsort(mean)
    dark, bright = order[: max(16, len(order) // 10)], order[-max(8, len(order) // 20) :]
    level = float(np.median(mean[dark]))
    ratio_dark = float(np.median(variance[dark] / np.maximum(mean[dark], 1e-30)))
    ratio_bright = float(np.median(variance[bright] / np.maximum(mean[bright], 1e-30)))
    if not (lowest > 0.5 * level > 0 and ratio_dark < 0.3 and ratio_dark < 0.3 * ratio_bright):
        return []
    share = level * open_.sum() / max(float(mean.sum()), 1e-30)
    return [
        Finding(
            "pedestal", "problem", "all pixels",
            f"every pixel holds at least {_shown(lowest)}, and the darkest hardly"
            f" change: a dark level of about {level:.4g} counts was not subtracted ({share:.0%} of all"
            f" counts)",
            "subtract the dark level, clip at 0, and write the scan again",
        )
    ]  # fmt: skip


def _inverted(stats: DetectorStatistics) -> list[Finding]:
    """A mask that ignores the lit pixels."""
    ignored = stats.ignored
    if not ignored.any():
        return []
    real = ~((stats.n_at_highest >= _often(stats.n_patterns)) & (stats.highest >= 16))
    real &= (stats.n_negative == 0) & (stats.n_bad == 0)
    hidden, seen = stats.mean[ignored & real].sum(), stats.mean[~ignored & real].sum()
    share = float(ignored.mean())
    if not (share > 0.5 and hidden > 4 * seen):
        return []
    return [
        Finding(
            "mask_inverted", "error", "bad_pixels",
            f"bad_pixels ignores {share:.0%} of the detector, and {hidden / (hidden + seen):.0%} of the light"
            " is there: the mask looks inverted",
            "True must mean ignore; store ~bad_pixels",
        )
    ]  # fmt: skip


def _fault(
    kind: str, severity: Severity, mask: Mask, stats: DetectorStatistics, what: str, key: str,
    remedy: str = _MARK,
) -> Finding:  # fmt: skip
    where = name_pixels(mask, stats.ignored)
    subject = f"{key}: {where}" if key else where
    if " and " not in where and where.startswith(("column ", "row ", "pixel ")):
        words = {"hold ": "holds ", "stop ": "stops ", "count ": "counts ", "are always": "is always"}
        for plural, single in words.items():
            if what.startswith(plural):
                what = single + what[len(plural) :]
        what = what.replace(": they are stuck", ": it is stuck").replace("around them", "around it")
    return Finding(kind, severity, where, f"{subject} {what}", remedy)


def _share(stats: DetectorStatistics, mask: Mask) -> str:
    least = int(stats.n_at_highest[mask].min())
    return "every pattern" if least == stats.n_patterns else f"{least} of {stats.n_patterns} patterns or more"


def _often(M: int) -> int:
    """Half of the patterns, at least one."""
    return max(1, (M + 1) // 2)


def _shown(value: float) -> str:
    return f"{int(value)}" if float(value).is_integer() else f"{value:.6g}"
