"""Patches of a group merged around its mean: the same as the oracle's merge, cut to the patch."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho import physics
from ptycho.clients.group_merge import merge_groups
from ptycho.clients.prediction import predict_scaled
from ptycho.config.config import ModelConfig
from ptycho.errors import DataError


@pytest.fixture
def group():
    """(patches (3, 4, 32, 32), positions minus means (3, 4, 2), window (32, 32))."""
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((3, 4, 32, 32)) + 1j * rng.standard_normal((3, 4, 32, 32))
    positions = rng.uniform(-5, 5, (3, 4, 2))
    radius = np.hypot(*np.meshgrid(np.arange(32) - 16, np.arange(32) - 16))
    relative = positions - positions.mean(1, keepdims=True)
    return patches.astype(np.complex64), relative, np.exp(-((radius / 7) ** 2))


def offsets_of(relative):
    """(B, 1, 2, C): mean minus position, the sign that consumers know."""
    return -relative.transpose(0, 2, 1)[:, None]


def test_it_is_the_oracles_merge(group):
    patches, relative, window = group
    merged = merge_groups(patches, offsets_of(relative), 3 * window)
    for b in range(len(patches)):
        canvas = physics.merge(patches[b], relative[b], window)
        np.testing.assert_allclose(merged[b], physics.crop_centre(canvas, 32), atol=2e-6)


def test_patches_of_one_object_come_back_as_that_object(group):
    _, relative, window = group
    rows, columns = np.mgrid[:96, :96]
    obj = (1 + 0.01 * rows - 0.02 * columns).astype(np.complex128)  # linear: bilinear cuts are exact
    centre = 48.0
    patches = np.stack(
        [physics.extract(obj, centre + r[:, 0], centre + r[:, 1], 32) for r in np.round(relative)]
    )
    merged = merge_groups(patches.astype(np.complex64), offsets_of(np.round(relative)), window)
    wanted = physics.extract(obj, [centre], [centre], 32)[0]
    middle = (slice(8, 24), slice(8, 24))
    for one in merged:
        np.testing.assert_allclose(one[middle], wanted[middle], rtol=1e-5)


def test_predict_merges_only_where_it_knows_the_places(group):
    patches, relative, window = group
    model = ModelConfig(N=32, gridsize=2)
    x = np.zeros((3, 32, 32, 4), np.float32)
    answers = iter([patches[:2], patches[2:]] * 3)

    def predict(_):
        return next(answers)

    assert predict_scaled([x], model, 1.0, predict, 2, window=window).shape == (3, 32, 32, 4)
    merged = predict_scaled([x, offsets_of(relative)], model, 1.0, predict, 2, window=window)
    np.testing.assert_array_equal(merged[..., 0], merge_groups(patches, offsets_of(relative), window))
    assert predict_scaled([x, offsets_of(relative)], model, 1.0, predict, 2).shape == (3, 32, 32, 4)


def test_offsets_of_another_shape_are_refused(group):
    patches, relative, window = group
    with pytest.raises(DataError, match=r"local_offsets have shape \(3, 4, 2\); expected \(3, 1, 2, 4\)"):
        merge_groups(patches, relative, window)
