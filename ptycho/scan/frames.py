"""Patterns as a series: empty, repeated, in the wrong order, shifted against the positions, of jumping flux.

Neighbours on the object see the same features, so their patterns resemble each other more than those of
strangers do. Where the photons show no such likeness, or the object is flat, nothing is said.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.detector import DetectorStatistics
from ptycho.scan.findings import Finding, name_numbers
from ptycho.scan.grouping import nearest_neighbors

Floats = NDArray[np.float64]

_FEWEST = 16
_ANCHORS, _OTHERS, _NEAR = 400, 2000, 4
#: patterns whose pairs with neighbours and strangers tell the order, and pairs that are held at a time
_ASKED, _HELD_PAIRS = 4000, 4096
#: up to so many patterns all products are computed at once, 16 MB: one fast product of matrices
_TOGETHER = 2000
#: a repeated pattern of fewer counts may be chance
_FEWEST_COUNTS = 30
#: largest shift between patterns and positions that is looked for
_MOST_SHIFTED = 3


def frame_findings(stats: DetectorStatistics, positions: Floats) -> list[Finding]:
    """Empty and repeated patterns. Time O(M log M)."""
    found = []
    counts, M = stats.counts, stats.n_patterns
    empty = np.flatnonzero(counts == 0)
    if 0 < len(empty) < M and M > 4:
        # where the object is black, few photons may mean none: neighbours tell
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
    same = defaultdict(list)
    for number, digest in enumerate(stats.digests):
        if counts[number] > _FEWEST_COUNTS:
            same[digest].append(number)
    repeated = [number for numbers in same.values() for number in numbers[1:]]
    if M > 1 and len(repeated) == M - 1:
        found.append(
            Finding("identical_patterns", "error", "all patterns", f"all {M} patterns are the same",
                    "check how they were read; no position tells anything the others do not")
        )  # fmt: skip
    elif repeated:
        first = next(numbers for numbers in same.values() if len(numbers) > 1)
        found.append(
            Finding(
                "repeated_patterns", "problem", name_numbers("pattern", sorted(repeated)),
                f"{len(repeated)} of {M} patterns repeat an earlier one to the last count, the first is"
                f" {first[1]}, a copy of {first[0]}",
                "check how they were read; keep each measured pattern once, with its own position",
            )
        )  # fmt: skip
    return found


class Likeness(NamedTuple):
    """How patterns of neighbours and of strangers resemble each other.

    strange: the patterns that resemble patterns elsewhere and not those beside them. order: how well likeness
    falls with distance, -1 to 1. shifts: by how much better where pattern i + k stands for pattern i;
    reversed: where the last stands for the first. pairs: number of pairs behind `order`.
    """

    strange: Strange
    order: float
    shifts: dict[int, float]
    reversed: float
    pairs: int


def likeness(stats: DetectorStatistics, positions: Floats, diameter_px: float) -> Likeness | None:
    """Compare patterns with their neighbours' and with strangers'; None where there are too few.

    Time O(400 * 2000) comparisons and at most 64,000 pairs for each of a few orders, memory the features and
    at most 16 MB.
    """
    lit = np.flatnonzero((stats.counts > 0) & ~stats.bad_frames)
    places = positions[lit]
    if len(lit) < _FEWEST or len(np.unique(places, axis=0)) < _FEWEST:
        return None
    unlike, noise = _unlike(stats.features[lit])
    signal = np.einsum("mk,mk->m", unlike, unlike) - noise
    rng = np.random.default_rng(0)
    M = len(lit)
    near = nearest_neighbors(places, min(8, M - 1))
    asked = np.arange(M) if M <= _ASKED else np.sort(rng.choice(M, _ASKED, replace=False))
    beside = near[asked]
    far = rng.integers(0, M, beside.shape)
    one = np.repeat(asked, beside.shape[1])
    near_pairs = (one, beside.ravel())
    all_pairs = (np.concatenate([one, one]), np.concatenate([beside.ravel(), far.ravel()]))
    products = unlike @ unlike.T if M <= _TOGETHER else None
    scale = np.sqrt(np.maximum(signal, max(0.25 * noise, 1e-6 * float(signal.max()), 1e-12)))

    def order(rows: NDArray[np.int64], pairs: tuple[NDArray[np.int64], NDArray[np.int64]]) -> float:
        a, b = rows[pairs[0]], rows[pairs[1]]
        like = _products(unlike, a, b) if products is None else products[a, b]
        like = like / (scale[a] * scale[b])
        apart = np.minimum(np.hypot(*(places[pairs[0]] - places[pairs[1]]).T), diameter_px)
        return _correlation(-apart, np.clip(like, -2, 2))

    rows = np.arange(M)
    now = order(rows, all_pairs)
    shifts = {
        k: max(order(np.clip(rows + k, 0, M - 1), pairs) - order(rows, pairs) for pairs in (all_pairs,
        near_pairs))
        for k in range(-_MOST_SHIFTED, _MOST_SHIFTED + 1)
        if k
    }  # fmt: skip
    backwards = order(rows[::-1], all_pairs) - now
    strange = _strangers(unlike, noise, signal, places, near, diameter_px, rng)
    return Likeness(strange, now, shifts, backwards, len(one))


def _products(rows: NDArray[np.float32], a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scalar products of rows a and b, pair by pair, a few thousand of them held at a time."""
    found = np.empty(len(a), np.float32)
    for begin in range(0, len(a), _HELD_PAIRS):
        part = slice(begin, begin + _HELD_PAIRS)
        np.einsum("pk,pk->p", rows[a[part]], rows[b[part]], out=found[part])
    return found


def order_findings(found: Likeness | None, overlap: float | None) -> list[Finding]:
    """What the likeness of neighbours says about the order of patterns."""
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
    # with large steps even neighbours share little, and the likest of many strangers may be liker
    if overlap is None or overlap < 0.72:
        return []
    throughout = found.order < 0.12 and strange.any_share > 0.3
    least = (0.045, 0.065) if overlap > 0.78 else (0.055, 0.08)
    # the rest, which is right, must show that likeness falls with distance
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


def _unlike(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """What each pattern (M, K) has that the mean has not, and the noise in its squared length."""
    power = np.sqrt(np.einsum("mk,mk->m", features, features, dtype=np.float64))
    usual = float(np.median(power))
    level = (usual / np.maximum(power, 1e-3 * usual)).astype(np.float32)
    scaled = features * level[:, None]
    mean = scaled.mean(axis=0)
    # the root of counts has the variance 1/4, less where hardly a photon falls
    dark = np.minimum(mean.astype(np.float64) ** 2, 0.25)
    return scaled - mean, float(dark.sum())


class Strange(NamedTuple):
    """Share and number of patterns that belong to another neighbourhood; the share that is liker to any
    stranger; the share that could be asked."""

    share: float
    number: int
    any_share: float
    asked: float


def _strangers(
    unlike: NDArray[np.float32],
    noise: float,
    signal: Floats,
    places: Floats,
    near: NDArray[np.int64],
    diameter_px: float,
    rng: np.random.Generator,
) -> Strange:
    """How many patterns are liker to strangers than to those beside them."""
    M = len(unlike)
    anchors = np.sort(rng.choice(M, min(M, _ANCHORS), replace=False))
    others = np.sort(rng.choice(M, min(M, _OTHERS), replace=False))
    likes = unlike[anchors] @ unlike[others].T
    apart = np.hypot(
        places[anchors, 0, None] - places[None, others, 0], places[anchors, 1, None] - places[None, others, 1]
    )
    beside = np.einsum("ak,ajk->aj", unlike[anchors], unlike[near[anchors, :_NEAR]])
    here = np.sort(beside, axis=1)[:, -2:].mean(axis=1)
    away = np.where(apart > 0.75 * diameter_px, likes, -np.inf)
    best = away.max(axis=1)
    other = others[away.argmax(axis=1)]
    least = max(float(noise), 1e-6 * float(signal.max()), 1e-12)
    own, theirs = np.maximum(signal[anchors], least), np.maximum(signal[other], least)
    spread = np.sqrt(0.25 * (own + theirs) + noise / 4)
    clear = (own > 5 * np.sqrt(noise)) & np.isfinite(best) & (best > 5 * spread)
    # the best of many strangers may be liker by chance; never by this much, and never where a neighbour is
    # like
    tops = best / np.sqrt(own * theirs)
    beside_level = here / np.sqrt(own * np.maximum(signal[near[anchors, 0]], 0.3 * own))
    wrong = clear & (best - here > 6 * spread) & (tops > 0.4) & (beside_level < 0.25 * tops)
    # where a pattern belongs, most of its true neighbours are: chance likeness stands alone
    there = np.einsum("ak,ajk->aj", unlike[anchors], unlike[near[other, :6]])
    company = np.sort(there, axis=1)[:, -3:].mean(axis=1) / np.sqrt(own * theirs)
    alone = wrong & (company < 0.4 * tops)
    lost = float(wrong.sum()) / len(anchors)
    wrong &= ~alone
    asked = int(clear.sum())
    return Strange(float(wrong.sum()) / len(anchors), int(wrong.sum()), lost, asked / len(anchors))


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    both = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / both if both > 0 else 0.0


def flux_findings(
    stats: DetectorStatistics, positions: Floats, probe_power: Floats, overlap: float | None
) -> list[Finding]:
    """Intensity that jumps where the object cannot: neighbours share most of the illuminated area.

    probe_power (N,N): |P|^2, centred. Whatever the object, the light through it changes between two places
    by no more than the illumination itself differs when it is moved from one to the other.
    """
    counts, M = stats.counts, stats.n_patterns
    lit = np.flatnonzero(counts > 0)
    if len(lit) < _FEWEST or overlap is None or overlap < 0.3:
        return []
    places, values = positions[lit], counts[lit]
    if len(np.unique(places, axis=0)) < _FEWEST:
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
    # smaller jumps show in their number: white from place to place, where the object is smooth
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
    # the guess of the probe may be blurred or wrong: a third more
    return 1.33 * np.interp(step_px, lengths, rows) + 0.02
