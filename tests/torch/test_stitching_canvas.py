"""The canvas that patches are stitched on: where it lies, how large it is, and what it is told to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from delta_network import N, delta_patches, landed, pixels, smooth_object, uniform

from ptycho import physics as oracle
from ptycho.errors import DataError
from ptycho.image.canvas import make_frame
from ptycho.image.stitcher import Stitcher, stitch


class TestCanvas:
    @pytest.mark.parametrize(
        "positions",
        [
            [[50.0, 60.0]],
            [[50.3, 60.7]],
            [[50.0, 60.0], [50.0, 60.0]],
            [[50.0, 60.0], [90.5, 60.0], [130.25, 60.0]],
            [[-50.0, -60.5], [-20.0, 300.0]],
        ],
        ids=["one", "one between pixels", "twice the same", "a line", "far apart, negative"],
    )
    def test_it_holds_every_window_and_hardly_more(self, positions):
        where, M = np.array(positions), 16
        made = stitch(np.ones((len(where), N, N), np.complex64), where, uniform(M))
        np.testing.assert_allclose(made.object[made.covered], 1, rtol=1e-6)
        total = stitch_weight(where, M)
        assert total == pytest.approx(len(where) * M * M, rel=1e-6)
        rows, columns = np.nonzero(made.covered)
        height, width = made.object.shape
        assert rows.min() == columns.min() == 0 and height - rows.max() <= 2 and width - columns.max() <= 2

    def test_pixels_between_patches_are_flagged_and_zero(self):
        made = stitch(np.ones((2, N, N), np.complex64), np.array([[20.0, 20.0], [80.0, 60.0]]), uniform(16))
        assert made.covered.sum() == 2 * 16 * 16
        assert (made.object[~made.covered] == 0).all() and (made.coverage[~made.covered] == 0).all()
        assert (made.coverage[made.covered] == 1).all()
        assert np.isfinite(made.object).all()

    def test_coverage_counts_the_patches(self):
        where = np.array([[20.0, 20.0], [20.0, 20.0], [60.0, 20.0]])
        made = stitch(np.ones((3, N, N), np.complex64), where, uniform(16))
        assert sorted(set(made.coverage[made.covered].tolist())) in ([1, 2], [0.5, 1])

    def test_a_given_canvas_is_the_clients_own_object(self):
        where = np.array([[3.0, 40.0], [50.0, 5.0], [99.0, 60.0]])
        made = stitch(delta_patches(3), where, uniform(16), canvas_shape=(70, 100))
        assert made.object.shape == (70, 100) and made.frame.origin_xy == (0, 0)
        assert landed(made.object, (0, 0)) == pixels(where)

    def test_positions_of_another_frame_are_laid_centre_on_centre(self):
        where = np.array([[-30.0, -20.0], [31.0, 20.0], [0.0, 3.0]])
        made = stitch(delta_patches(3), where, uniform(16), canvas_shape=(70, 101))
        assert made.object.shape == (70, 101)
        middle = (where.min(0) + where.max(0)) / 2
        centre = np.array(made.frame.origin_xy) + (np.array([101, 70]) - 1) / 2
        assert np.abs(centre - middle).max() <= 0.5
        assert landed(made.object, made.frame.origin_xy) == pixels(where)

    def test_patches_that_hang_over_a_given_canvas_are_cut_not_moved(self):
        obj = smooth_object()
        where = np.random.default_rng(0).integers(0, 60, (60, 2)).astype(float)
        patches = oracle.extract(obj, *where.T + 30, N).astype(np.complex64)
        made = stitch(patches, where, uniform(N), canvas_shape=(60, 60))
        np.testing.assert_allclose(
            made.object[made.covered], obj[30:90, 30:90][made.covered], rtol=1e-4, atol=1e-5
        )
        assert made.covered.all()

    def test_a_canvas_that_no_patch_reaches(self):
        frame = make_frame(np.array([[10.0, 10.0]]), 16, (40, 40))
        stitcher = Stitcher(frame, uniform(16))
        stitcher.add(torch.from_numpy(delta_patches(1)), np.array([[500.0, 500.0]]))
        with pytest.raises(DataError, match="no patch reached the canvas"):
            stitcher.result()

    def test_a_place_for_every_patch(self):
        with pytest.raises(DataError, match="2 patches but 1 positions"):
            stitch(delta_patches(2), np.zeros((1, 2)), uniform(16))


def stitch_weight(where: np.ndarray, M: int) -> float:
    """Sum of all weights that fell on the canvas."""
    stitcher = Stitcher(make_frame(where, M), uniform(M))
    stitcher.add(torch.ones(len(where), N, N, dtype=torch.complex64), where)
    m = stitcher._margin
    height, width = stitcher.frame.shape
    return float(stitcher._weight[m : m + height, m : m + width].sum())
