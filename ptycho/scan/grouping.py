"""Groups of scan positions that are solved together: each position with C-1 of its K nearest neighbours.

The anchor is always in its own group, so a run that makes at least one group per position covers the scan.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError

logger = logging.getLogger(__name__)

# Ranks of combinations are drawn below this bound, so that rank arithmetic stays within int64.
_MAX_RANKS = 2**40
_MAX_BINOMIAL = 2**62

Index = NDArray[np.int64]
Floats = NDArray[np.float64]


def group_positions(
    xcoords: NDArray[Any],
    ycoords: NDArray[Any],
    gridsize: int,
    n_groups: int | None = None,
    n_neighbors: int = 4,
    seed: int | None = None,
    enable_oversampling: bool = False,
    sequential: bool = False,
    neighbor_pool_size: int | None = None,
) -> Index:
    """Groups of scan positions, (B, C) int64 with C = gridsize**2; column 0 is the anchor.

    `xcoords`, `ycoords` are (M,) in px. `n_groups` None means M. With n_groups >= M every position is an
    anchor at least once. With fewer, the anchors are a random subset, ascending (`sequential`: the first
    positions, independent of the seed). More than M need `enable_oversampling`; no anchor then gets the same
    set of neighbours twice. K is the larger of `n_neighbors` and `neighbor_pool_size`, and at most M-1.
    `seed` None is seed 0, so a run repeats itself.

    Raises DataError: too few positions or neighbours for the gridsize, more than M * binom(K, C-1) groups,
    more than M groups without oversampling. Time O(M log M + B K), memory about 40 (M + B) K bytes.

    >>> x, y = np.array([0.0, 1.0, 2.0, 10.0]), np.zeros(4)
    >>> group_positions(x, y, gridsize=1).tolist()
    [[0], [1], [2], [3]]
    >>> groups = group_positions(x, y, gridsize=2, n_neighbors=3)
    >>> groups.shape, groups[:, 0].tolist()  # every position is an anchor once
    ((4, 4), [0, 1, 2, 3])
    """
    channels = _check_gridsize(gridsize)
    positions = _stack_positions(xcoords, ycoords)
    n_positions = len(positions)
    n_neighbors = _effective_neighbors(n_positions, channels, n_neighbors, neighbor_pool_size)
    n_groups = n_positions if n_groups is None else int(n_groups)
    _check_request(n_groups, n_positions, n_neighbors, channels, enable_oversampling)
    rng = np.random.default_rng(0 if seed is None or sequential else seed)

    anchors = _choose_anchors(n_positions, n_groups, sequential, rng)
    if channels == 1:
        return anchors[:, None]
    # Shuffled, so that equal ranks at two anchors select neighbours at different distances.
    neighbors = rng.permuted(nearest_neighbors(positions, n_neighbors), axis=1)
    ranks = _draw_ranks(anchors, n_positions, math.comb(n_neighbors, channels - 1), rng)
    members = _unrank_combinations(ranks, n_neighbors, channels - 1)
    return np.concatenate([anchors[:, None], neighbors[anchors[:, None], members]], axis=1)


def possible_groups(
    n_groups: int | None,
    n_positions: int,
    gridsize: int,
    n_neighbors: int = 4,
    enable_oversampling: bool = False,
    neighbor_pool_size: int | None = None,
) -> int | None:
    """`n_groups`, or as many groups as `group_positions` can make where more are asked for, with one warning.

    Without oversampling that is one for every position. Raises DataError where the gridsize does not fit.

    >>> possible_groups(512, 144, gridsize=1)
    144
    """
    channels = _check_gridsize(gridsize)
    if n_groups is None or n_groups <= n_positions:
        return n_groups
    most = n_positions
    if enable_oversampling:
        K = _effective_neighbors(n_positions, channels, n_neighbors, neighbor_pool_size)
        most *= math.comb(K, channels - 1)
    if n_groups <= most:
        return n_groups
    if enable_oversampling:
        said = "%d groups asked for of %d positions: all %d distinct groups are taken"
        logger.warning(said, n_groups, n_positions, most)
    else:
        logger.warning(
            "%d groups asked for of %d positions: every position is taken once", n_groups, n_positions
        )
    return most


def group_offsets(
    xcoords: NDArray[Any], ycoords: NDArray[Any], nn_indices: NDArray[np.integer[Any]]
) -> tuple[Floats, Floats]:
    """Centre of each group (B,1,2,1) and members relative to it (B,1,2,C), float64 px, [x, y].

    relative = -(coords - centre): the sign convention of the channel tensors.

    >>> centre, relative = group_offsets(np.array([1.0, 3.0]), np.array([5.0, 5.0]), np.array([[0, 1]]))
    >>> centre.ravel().tolist(), relative[0, 0].tolist()
    ([2.0, 5.0], [[1.0, -1.0], [0.0, 0.0]])
    """
    coords = group_coordinates(xcoords, ycoords, nn_indices)
    offsets = coords.mean(axis=-1, keepdims=True)
    return offsets, offsets - coords


def group_coordinates(
    xcoords: NDArray[Any], ycoords: NDArray[Any], nn_indices: NDArray[np.integer[Any]]
) -> Floats:
    """Positions of the members of each group, (B,1,2,C) float64 px, [x, y].

    >>> group_coordinates(np.array([1.0, 3.0]), np.array([5.0, 6.0]), np.array([[1, 0]]))[0, 0].tolist()
    [[3.0, 1.0], [6.0, 5.0]]
    """
    x = np.asarray(xcoords, dtype=np.float64)[nn_indices]
    y = np.asarray(ycoords, dtype=np.float64)[nn_indices]
    return np.stack([x, y], axis=1)[:, None]


def nearest_neighbors(positions: Floats, n_neighbors: int) -> Index:
    """The K nearest other positions of each of (M, 2) positions, nearest first, (M, K) int64; never itself.

    Positions that coincide are each other's neighbours. Time O(M log M), memory about 32 M (K+1) bytes.

    >>> nearest_neighbors(np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]]), 1).ravel().tolist()
    [1, 0, 1]
    """
    from scipy.spatial import cKDTree

    _, found = cKDTree(positions).query(positions, k=n_neighbors + 1)
    found = np.asarray(found, dtype=np.int64)
    # Where positions coincide, the query may return a position itself in any column, or not at all. It is
    # dropped if present; otherwise the farthest neighbour is dropped.
    is_self = found == np.arange(len(positions))[:, None]
    dropped = np.where(is_self.any(axis=1), is_self.argmax(axis=1), n_neighbors)
    columns = np.arange(n_neighbors)
    return np.take_along_axis(found, columns + (columns >= dropped[:, None]), axis=1)


def _check_gridsize(gridsize: int) -> int:
    if int(gridsize) != gridsize or gridsize < 1:
        raise DataError(f"gridsize is {gridsize}; it must be a whole number of at least 1")
    return int(gridsize) ** 2


def _stack_positions(xcoords: NDArray[Any], ycoords: NDArray[Any]) -> Floats:
    x, y = np.asarray(xcoords, dtype=np.float64), np.asarray(ycoords, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise DataError(f"xcoords {x.shape} and ycoords {y.shape} must be one-dimensional and equally long")
    if len(x) == 0:
        raise DataError("xcoords is empty: a scan needs at least one position")
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise DataError("xcoords or ycoords hold NaN or infinite values: remove those positions")
    return np.stack([x, y], axis=1)


def _effective_neighbors(n_positions: int, channels: int, n_neighbors: int, pool: int | None) -> int:
    """The number of neighbours K after `neighbor_pool_size` and the number of positions are taken into
    account.
    """
    if channels == 1:
        return 0
    if n_positions < channels:
        raise DataError(
            f"gridsize {math.isqrt(channels)} groups {channels} positions but the scan has {n_positions}: "
            "use a smaller gridsize or more positions"
        )
    wanted = max(int(n_neighbors), int(pool or 0))
    if wanted < channels - 1:
        raise DataError(
            f"n_neighbors is {wanted} but gridsize {math.isqrt(channels)} needs at least {channels - 1}: "
            "raise neighbor_count (K) or lower gridsize"
        )
    return min(wanted, n_positions - 1)


def _check_request(
    n_groups: int, n_positions: int, n_neighbors: int, channels: int, oversample: bool
) -> None:
    if n_groups < 1:
        raise DataError(f"n_groups is {n_groups}; at least 1 group must be asked for")
    if n_groups > n_positions and not oversample:
        raise DataError(
            f"n_groups is {n_groups} but the scan has {n_positions} positions: ask for at most "
            f"{n_positions}, or set "
            "enable_oversampling to draw further combinations"
        )
    ceiling = n_positions * math.comb(n_neighbors, channels - 1)
    if n_groups > ceiling:
        raise DataError(
            f"n_groups is {n_groups} but only {ceiling} distinct groups exist ({n_positions} positions x "
            f"binom({n_neighbors}, {channels - 1})): ask for fewer or raise neighbor_pool_size"
        )


def _choose_anchors(n_positions: int, n_groups: int, sequential: bool, rng: np.random.Generator) -> Index:
    """All positions as often as they fit, then a subset for the rest, (B,) int64."""
    rounds, rest = divmod(n_groups, n_positions)
    if sequential:
        subset = np.arange(rest, dtype=np.int64)
    else:
        subset = np.sort(rng.choice(n_positions, size=rest, replace=False)).astype(np.int64)
    return np.concatenate([np.tile(np.arange(n_positions, dtype=np.int64), rounds), subset])


def _draw_ranks(anchors: Index, n_positions: int, n_ranks: int, rng: np.random.Generator) -> Index:
    """A rank below `n_ranks` for each group, (B,) int64, distinct among the groups of one anchor.

    The j-th group of an anchor gets (start + j * stride) mod n_ranks. The stride has no common divisor with
    n_ranks, so every rank comes up once before any repeats, and no list of used ranks is needed.
    """
    n_ranks = min(n_ranks, _MAX_RANKS)
    start = rng.integers(n_ranks, size=n_positions)
    visit = np.arange(len(anchors)) // n_positions
    if len(anchors) <= n_positions:
        return start[anchors]
    candidates = rng.integers(1, max(2, n_ranks), size=256)
    coprime = np.append(candidates[np.gcd(candidates, n_ranks) == 1], 1)
    stride = rng.choice(coprime, size=n_positions)
    ranks: Index = (start[anchors] + visit * stride[anchors]) % n_ranks
    return ranks


def _unrank_combinations(ranks: Index, n_items: int, n_taken: int) -> Index:
    """The combinations of `n_taken` out of `n_items` with these lexicographic ranks, (B, n_taken) int64."""
    members = np.empty((len(ranks), n_taken), dtype=np.int64)
    rank = ranks.copy()
    taken = np.zeros(len(ranks), dtype=np.int64)
    rows = np.arange(len(ranks))
    for item in range(n_items):
        left = n_items - item - 1
        # How many combinations start with this item, by how many are still to be taken.
        table = np.array(
            [0] + [min(math.comb(left, need - 1), _MAX_BINOMIAL) for need in range(1, n_taken + 1)],
            dtype=np.int64,
        )
        starting = table[n_taken - taken]
        take = rank < starting
        members[rows[take], taken[take]] = item
        rank -= np.where(take, 0, starting)
        taken += take
    return members
