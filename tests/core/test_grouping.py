"""Groups: the anchor in its own group, full coverage, no repetition, whatever the positions look like."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.scan.grouping import group_offsets, group_positions, nearest_neighbors


def cloud(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 100, n), rng.uniform(0, 70, n)


def distinct(groups):
    return {(g[0], frozenset(g[1:])) for g in groups.tolist()}


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(9, 60), gridsize=st.integers(1, 3), extra=st.integers(0, 4), seed=st.integers(0, 99),
    share=st.floats(0.1, 3.0), grid=st.booleans(),
)  # fmt: skip
def test_laws_of_grouping(n, gridsize, extra, seed, share, grid):
    """Positions on a coarse grid coincide often; the laws hold all the same."""
    x, y = cloud(n, seed)
    if grid:
        x, y = np.round(x / 40), np.round(y / 40)
    C = gridsize**2
    K = min(C - 1 + extra, n - 1)
    wanted = min(max(1, int(n * share)), n * math.comb(K, C - 1))
    groups = group_positions(x, y, gridsize, wanted, n_neighbors=K, seed=seed, enable_oversampling=True)
    assert groups.shape == (wanted, C) and groups.dtype == np.int64
    assert groups.min() >= 0 and groups.max() < n
    assert all(len(set(g)) == C for g in groups.tolist())
    assert len(distinct(groups)) == wanted
    if wanted >= n:
        assert set(groups[:, 0].tolist()) == set(range(n))


def test_members_are_among_the_k_nearest_by_brute_force():
    x, y = cloud(40)
    K = 5
    groups = group_positions(x, y, 2, 40 * 10, n_neighbors=K, enable_oversampling=True)
    distance = np.hypot(x[:, None] - x, y[:, None] - y) + np.diag(np.full(40, np.inf))
    nearest = np.argsort(distance, axis=1)[:, :K]
    for anchor, *others in groups.tolist():
        assert set(others) <= set(nearest[anchor].tolist())
    # 40 * binom(5, 3) groups are all there are: each comes once.
    assert len(distinct(groups)) == 400


def test_every_neighbour_is_drawn_about_equally_often():
    x, y = cloud(2000)
    groups = group_positions(x, y, 2, n_neighbors=6, seed=1)
    ranked = nearest_neighbors(np.stack([x, y], 1), 6)
    share = [
        (groups[:, 1:, None] == ranked[groups[:, 0]][:, None, k : k + 1]).any((1, 2)).mean() for k in range(6)
    ]
    np.testing.assert_allclose(share, 0.5, atol=0.05)


def test_a_huge_number_of_combinations_is_still_exact():
    x, y = cloud(150)
    groups = group_positions(x, y, 5, 600, n_neighbors=100, enable_oversampling=True)
    assert groups.shape == (600, 25) and len(distinct(groups)) == 600


def test_coinciding_positions_keep_the_anchor_once():
    groups = group_positions(np.zeros(50), np.zeros(50), 2, n_neighbors=4)
    np.testing.assert_array_equal(groups[:, 0], np.arange(50))
    assert all(len(set(g)) == 4 for g in groups.tolist())


def test_gridsize_one_is_the_pattern():
    np.testing.assert_array_equal(group_positions(*cloud(5), 1), np.arange(5)[:, None])


def test_seeds():
    x, y = cloud(100)
    one, same, other = (group_positions(x, y, 2, 50, n_neighbors=6, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(group_positions(x, y, 2, seed=None), group_positions(x, y, 2, seed=0))


def test_sequential_takes_the_first_anchors():
    groups = group_positions(*cloud(30), 2, 7, sequential=True)
    np.testing.assert_array_equal(groups[:, 0], np.arange(7))


def test_pool_size_replaces_k_only_when_larger():
    x, y = cloud(30)
    np.testing.assert_array_equal(
        group_positions(x, y, 2, n_neighbors=8, neighbor_pool_size=4), group_positions(x, y, 2, n_neighbors=8)
    )
    assert len(
        group_positions(x, y, 2, 30 * 56, n_neighbors=4, neighbor_pool_size=8, enable_oversampling=True)
    )


@pytest.mark.parametrize(
    "n, options, message",
    [
        (3, {"gridsize": 2}, "groups 4 positions but the scan has 3"),
        (30, {"gridsize": 2, "n_neighbors": 2}, "n_neighbors is 2 but gridsize 2 needs at least 3"),
        (30, {"gridsize": 0}, "gridsize is 0"),
        (30, {"gridsize": 1.5}, "gridsize is 1.5"),
        (30, {"gridsize": 2, "n_groups": 31}, "enable_oversampling"),
        (30, {"gridsize": 2, "n_groups": 0}, "n_groups is 0"),
        (30, {"gridsize": 2, "n_groups": 121, "enable_oversampling": True}, "only 120 distinct groups"),
        (30, {"gridsize": 1, "n_groups": 31, "enable_oversampling": True}, "only 30 distinct groups"),
        (0, {"gridsize": 1}, "xcoords is empty"),
    ],
)
def test_refusals(n, options, message):
    with pytest.raises(DataError, match=message):
        group_positions(*cloud(n), **options)


def test_unequal_or_broken_coordinates():
    with pytest.raises(DataError, match="equally long"):
        group_positions(np.zeros(4), np.zeros(5), 1)
    with pytest.raises(DataError, match="NaN or infinite"):
        group_positions(np.array([0, np.nan]), np.zeros(2), 1)


def test_offsets_have_the_known_sign_and_order():
    x, y = np.array([10.0, 14.0]), np.array([1.0, 2.0])
    offsets, relative = group_offsets(x, y, np.array([[0, 1]]))
    np.testing.assert_array_equal(offsets, [[[[12.0], [1.5]]]])
    np.testing.assert_array_equal(relative, [[[[2.0, -2.0], [0.5, -0.5]]]])
