"""Patches of NumPy and of torch give the same image, patch by patch and chunk by chunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptycho.errors import DataError
from ptycho.image.canvas import make_frame, window_weights
from ptycho.image.stitcher import Stitcher
from ptycho.image.stitching import reassemble_position

N = 32


def some(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patches, positions off the pixel grid, and a probe that is not round."""
    rng = np.random.default_rng(seed)
    patches = (rng.standard_normal((count, N, N, 2)).astype(np.float32) @ np.array([1, 1j])).astype(
        np.complex64
    )
    axis = np.arange(N) - N // 2
    probe = np.exp(-(((axis[:, None] - 2) / 7) ** 2) - (axis / 9) ** 2)[None].astype(np.complex64)
    return patches, rng.uniform(20, 60, (count, 2)), probe


@pytest.mark.parametrize("M", [16, 21, 32])
@pytest.mark.parametrize("weighting", ["probe", "uniform"])
@pytest.mark.parametrize("canvas_shape", [None, (50, 44)], ids=["own canvas", "canvas that cuts"])
def test_equals_torch(M: int, weighting: str, canvas_shape: tuple[int, int] | None) -> None:
    patches, positions, probe = some(60)
    weights = window_weights(probe, M, weighting)
    frame = make_frame(positions, M, canvas_shape)
    one, two = Stitcher(frame, weights), Stitcher(frame, weights)
    for part in (slice(0, 1), slice(1, 40), slice(40, 60)):
        one.add(patches[part], positions[part])
        two.add(torch.from_numpy(patches[part]), positions[part])
    found, wanted = one.result(), two.result()
    assert found.frame == wanted.frame
    assert found.object.dtype == np.complex64 and found.coverage.dtype == np.float32
    np.testing.assert_array_equal(found.covered, wanted.covered)
    np.testing.assert_allclose(
        found.object, wanted.object, atol=1e-6 * np.abs(wanted.object).max(), rtol=1e-4
    )
    np.testing.assert_allclose(found.coverage, wanted.coverage, rtol=1e-5, atol=1e-6)


def test_equals_the_plain_mean() -> None:
    patches, positions, _ = some(30)
    frame = make_frame(positions, 20)
    made = Stitcher(frame, np.ones((20, 20), np.float32))
    made.add(patches, positions)
    image = made.result().object
    oracle = reassemble_position(patches, positions.reshape(-1, 1, 2, 1), 20)
    rows, columns = np.nonzero(image)
    bounds = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    other = np.nonzero(oracle)
    a = image[bounds[0] : bounds[1], bounds[2] : bounds[3]]
    b = oracle[other[0].min() : other[0].max() + 1, other[1].min() : other[1].max() + 1]
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_group_of_patches_may_come_as_one_array() -> None:
    patches, positions, probe = some(8)
    weights = window_weights(probe, 16)
    frame = make_frame(positions, 16)
    one, two = Stitcher(frame, weights), Stitcher(frame, weights)
    one.add(patches, positions)
    two.add(patches.reshape(2, 4, N, N), positions)
    np.testing.assert_array_equal(one.result().object, two.result().object)


def test_nothing_on_the_canvas_is_an_error() -> None:
    patches, positions, probe = some(3)
    weights = window_weights(probe, 16)
    made = Stitcher(make_frame(positions, 16), weights)
    made.add(patches, positions + 1000)
    with pytest.raises(DataError, match="no patch reached the canvas"):
        made.result()
