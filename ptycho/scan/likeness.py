"""Likeness of patterns to neighbours and to distant patterns ("strangers"), from coarse patterns
(`detector.py`).

Of a long scan a fixed number of patterns is compared, so memory and time do not grow with it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.detector import MANY_FRAMES, DetectorStatistics
from ptycho.scan.grouping import nearest_neighbors

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

#: least number of patterns for a comparison
FEWEST = 16
_ANCHORS, _OTHERS, _NEAR, _COMPANY = 400, 2000, 4, 6
#: number of patterns whose pairs with neighbours and strangers test the order, and pairs in memory at a time
_ASKED, _HELD_PAIRS = 4000, 1024
#: up to so many patterns all products are computed at once, 16 MB: one fast product of matrices
_TOGETHER = 2000
#: number of places in a long scan around which patterns are compared, and patterns at each
_SPOTS, _AT_A_SPOT = 64, 64
#: largest tested shift between patterns and positions
_MOST_SHIFTED = 3
_SHIFTS = tuple(k for k in range(-_MOST_SHIFTED, _MOST_SHIFTED + 1) if k)


class Strange(NamedTuple):
    """Share and number of patterns that belong to another neighbourhood; the share that is more like some
    stranger; the share that could be tested.
    """

    share: float
    number: int
    any_share: float
    asked: float


class Likeness(NamedTuple):
    """How patterns of neighbours and of strangers resemble each other.

    strange: the patterns that resemble patterns elsewhere and not their neighbours. order: how well likeness
    falls with distance, -1 to 1. shifts: the gain if pattern i + k is used as pattern i; reversed: the gain
    in reversed order. pairs: number of pairs behind `order`.
    """

    strange: Strange
    order: float
    shifts: dict[int, float]
    reversed: float
    pairs: int


class Sample(NamedTuple):
    """Which patterns of a long scan are compared, by their numbers.

    asked: neighbours around a few dozen places; others (L,): strangers from the whole scan, and beside (L, 6)
    the patterns beside each.
    """

    asked: Numbers
    others: Numbers
    beside: Numbers

    def partners(self, count: int) -> dict[int | None, Numbers]:
        """The replacements of the tested patterns: shifted by k (0: themselves), None: in reversed order."""
        shifted: dict[int | None, Numbers] = {k: np.clip(self.asked + k, 0, count - 1) for k in (0, *_SHIFTS)}
        return {**shifted, None: count - 1 - self.asked}

    def rows(self, count: int) -> Numbers:
        """All patterns of the sample, in order."""
        return np.unique(np.concatenate([*self.partners(count).values(), self.others, self.beside.ravel()]))


def sample_of(positions: Floats) -> Sample | None:
    """At most 4,096 patterns (and 2,000 strangers) of a scan of over 20,000; None: all are compared.

    Time O(M log M), memory 16 numbers a position.
    """
    from scipy.spatial import cKDTree

    M = len(positions)
    if M <= MANY_FRAMES:
        return None
    rng = np.random.default_rng(0)
    tree = cKDTree(positions)
    spots = positions[rng.choice(M, _SPOTS, replace=False)]
    asked = np.unique(tree.query(spots, k=_AT_A_SPOT)[1])
    others = np.sort(rng.choice(M, _OTHERS, replace=False))
    near = tree.query(positions[others], k=_COMPANY + 1)[1]
    # the nearest is the pattern itself, or one at the same position
    itself = near == others[:, None]
    itself[~itself.any(1), -1] = True
    return Sample(asked, others, near[~itself].reshape(len(others), _COMPANY))


class _Compared(NamedTuple):
    """Row numbers of features. rows: for each shift, the row used in place of each tested pattern; places of
    the tested patterns; near: rows of their neighbours; others: rows of strangers, with places and
    neighbours."""

    rows: dict[int | None, Numbers]
    places: Floats
    near: Numbers
    others: Numbers
    other_places: Floats
    beside_others: Numbers


def likeness(
    stats: DetectorStatistics, positions: Floats, diameter_px: float, sample: Sample | None = None
) -> Likeness | None:
    """Compare patterns with their neighbours' and with strangers'; None where there are too few.

    sample: which patterns, where `stats` has the features of these only. Time O(400 * 2000) comparisons and
    at most 66,000 pairs for each of a few orders, memory the features once more.
    """
    usable = (stats.counts > 0) & ~stats.bad_frames
    rows = stats.feature_rows
    lit = np.flatnonzero(usable[rows])
    places = positions[rows[lit]]
    if len(lit) < FEWEST or len(np.unique(places, axis=0)) < FEWEST:
        return None
    unlike, noise = _unlike(stats.features[lit])
    signal = np.einsum("mk,mk->m", unlike, unlike) - noise
    rng = np.random.default_rng(0)
    seen = _all_of(places) if sample is None else _some_of(sample, positions, rows[lit])
    if seen is None:
        return None
    M = len(seen.places)
    asked = np.arange(M) if M <= _ASKED or sample else np.sort(rng.choice(M, _ASKED, replace=False))
    beside = seen.near[asked]
    far = rng.integers(0, M, beside.shape)
    one = np.repeat(asked, beside.shape[1])
    pairs = (np.concatenate([one, one]), np.concatenate([beside.ravel(), far.ravel()]))
    scale = np.sqrt(np.maximum(signal, max(0.25 * noise, 1e-6 * float(signal.max()), 1e-12)))
    products = unlike @ unlike.T if len(unlike) <= _TOGETHER else None
    apart = np.minimum(np.hypot(*(seen.places[pairs[0]] - seen.places[pairs[1]]).T), diameter_px)

    def orders(partner: Numbers) -> tuple[float, float]:
        """How well likeness falls with distance: over all pairs, and over those of neighbours."""
        a, b = partner[pairs[0]], partner[pairs[1]]
        like = _products(unlike, a, b) if products is None else products[a, b]
        like = np.clip(like / (scale[a] * scale[b]), -2, 2)
        return _correlation(-apart, like), _correlation(-apart[: len(one)], like[: len(one)])

    now, now_near = orders(seen.rows[0])
    shifts = {}
    for k in _SHIFTS:
        whole, beside_only = orders(seen.rows[k])
        shifts[k] = max(whole - now, beside_only - now_near)
    backwards = orders(seen.rows[None])[0] - now
    if sample is None:
        seen = seen._replace(others=np.empty(0, np.int64))
    strange = _strangers(unlike, noise, signal, seen, diameter_px, rng)
    return Likeness(strange, now, shifts, backwards, len(one))


def _all_of(places: Floats) -> _Compared:
    """Every pattern that has light, (M, 2) places; the strangers are drawn among them."""
    M = len(places)
    rows = np.arange(M)
    near = nearest_neighbors(places, min(8, M - 1))
    shifted: dict[int | None, Numbers] = {k: np.clip(rows + k, 0, M - 1) for k in (0, *_SHIFTS)}
    return _Compared({**shifted, None: rows[::-1]}, places, near, rows, places, near[:, :_COMPANY])


def _some_of(sample: Sample, positions: Floats, lit: Numbers) -> _Compared | None:
    """The patterns of a sample that have light, with their replacements; None if they are few.

    lit: numbers of the patterns that the rows of features belong to.
    """
    M = len(positions)
    row = np.full(M, -1)
    row[lit] = np.arange(len(lit))
    partners = {k: row[numbers] for k, numbers in sample.partners(M).items()}
    whole = np.all([found >= 0 for found in partners.values()], axis=0)
    places = positions[sample.asked[whole]]
    kept = (row[sample.others] >= 0) & (row[sample.beside] >= 0).all(1)
    if min(whole.sum(), kept.sum()) < FEWEST or len(np.unique(places, axis=0)) < FEWEST:
        return None
    return _Compared(
        {k: found[whole] for k, found in partners.items()}, places, nearest_neighbors(places, 8),
        row[sample.others[kept]], positions[sample.others[kept]], row[sample.beside[kept]],
    )  # fmt: skip


def _products(rows: NDArray[np.float32], a: Numbers, b: Numbers) -> NDArray[np.float32]:
    """Scalar products of rows a and b, pair by pair, a thousand of them held at a time."""
    found = np.empty(len(a), np.float32)
    for begin in range(0, len(a), _HELD_PAIRS):
        part = slice(begin, begin + _HELD_PAIRS)
        np.einsum("pk,pk->p", rows[a[part]], rows[b[part]], out=found[part])
    return found


def _unlike(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Subtract the mean from each pattern (M, K), in place; returns the noise in its squared length."""
    power = np.sqrt(np.einsum("mk,mk->m", features, features, dtype=np.float64))
    usual = float(np.median(power))
    features *= (usual / np.maximum(power, 1e-3 * usual)).astype(np.float32)[:, None]
    mean = features.mean(axis=0)
    # the root of counts has the variance 1/4, less for very few photons
    dark = np.minimum(mean.astype(np.float64) ** 2, 0.25)
    features -= mean
    return features, float(dark.sum())


def _strangers(
    unlike: NDArray[np.float32],
    noise: float,
    signal: Floats,
    seen: _Compared,
    diameter_px: float,
    rng: np.random.Generator,
) -> Strange:
    """The number of patterns that are more like strangers than like their neighbours."""
    M, now = len(seen.places), seen.rows[0]
    chosen = np.sort(rng.choice(M, min(M, _ANCHORS), replace=False))
    anchors, anchor_places, near = now[chosen], seen.places[chosen], now[seen.near[chosen]]
    others, other_places, company_of = seen.others, seen.other_places, seen.beside_others
    if not len(others):
        others = np.sort(rng.choice(M, min(M, _OTHERS), replace=False))
        other_places, company_of = other_places[others], company_of[others]
    likes = unlike[anchors] @ unlike[others].T
    apart = np.subtract.outer(anchor_places[:, 0], other_places[:, 0])
    np.hypot(apart, np.subtract.outer(anchor_places[:, 1], other_places[:, 1]), out=apart)
    beside = np.einsum("ak,ajk->aj", unlike[anchors], unlike[near[:, :_NEAR]])
    here = np.sort(beside, axis=1)[:, -2:].mean(axis=1)
    away = np.where(apart > 0.75 * diameter_px, likes, -np.inf)
    best = away.max(axis=1)
    likest = away.argmax(axis=1)
    least = max(float(noise), 1e-6 * float(signal.max()), 1e-12)
    own, theirs = np.maximum(signal[anchors], least), np.maximum(signal[others[likest]], least)
    spread = np.sqrt(0.25 * (own + theirs) + noise / 4)
    clear = (own > 5 * np.sqrt(noise)) & np.isfinite(best) & (best > 5 * spread)
    # one of many strangers may be more alike by chance, but not by this much, and not if a neighbour is alike
    tops = best / np.sqrt(own * theirs)
    beside_level = here / np.sqrt(own * np.maximum(signal[near[:, 0]], 0.3 * own))
    wrong = clear & (best - here > 6 * spread) & (tops > 0.4) & (beside_level < 0.25 * tops)
    # at its true position a pattern is like most of its neighbours; chance likeness is to a single pattern
    there = np.einsum("ak,ajk->aj", unlike[anchors], unlike[company_of[likest]])
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
