"""Group merging of clients at odd windows and large moves, against pixel sums."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.clients.group_merge import merge_groups
from ptycho.errors import DataError
from ptycho.physics import MERGE_EPSILON, shift_bilinear


def test_merge_is_the_weighted_mean_of_moved_patches():
    """Any window, any offsets: the window counts relative to its largest value, and zeros move in."""
    rng = np.random.default_rng(0)
    patches = (rng.standard_normal((3, 4, 10, 10)) + 1j * rng.standard_normal((3, 4, 10, 10))).astype(
        np.complex64
    )
    offsets = rng.uniform(-4, 4, (3, 1, 2, 4))
    window = 7 * rng.uniform(0, 1, (10, 10)) ** 2
    weight = window / window.max() + MERGE_EPSILON
    made = merge_groups(patches, offsets, window)
    for group in range(3):
        total = sum(shift_bilinear(weight * patches[group, k], -offsets[group, 0, :, k]) for k in range(4))
        light = sum(shift_bilinear(weight + 0j, -offsets[group, 0, :, k]).real for k in range(4))
        wanted = np.where(light > 1e-7, total / np.maximum(light, 1e-30), 0)
        seen = light > 1e-4
        assert np.abs(made[group] - wanted)[seen].max() < 1e-3


def test_what_does_not_fit_is_refused():
    patches = np.ones((1, 4, 8, 8), np.complex64)
    with pytest.raises(DataError, match="local_offsets have shape"):
        merge_groups(patches, np.zeros((1, 2, 4)), np.ones((8, 8)))
    with pytest.raises(DataError, match="NaN"):
        merge_groups(patches, np.full((1, 1, 2, 4), np.nan), np.ones((8, 8)))
