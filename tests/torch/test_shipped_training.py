"""What the shipped network learns from: a block of neighbours, its error, the image after a round."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptycho_torch.shipped.blocks import Block, judge, neighbours
from ptycho_torch.shipped.scans import Drawn, draw_scan


class Known(torch.nn.Module):
    """Answers every pattern with the same patch, or with the image that it is shown (None)."""

    def __init__(self, patch: complex | None = None) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, x, probe, reference):
        made = reference if self.patch is None else torch.full_like(reference, self.patch)
        return made.abs(), made.angle()


@pytest.fixture(scope="module")
def scan() -> Drawn:
    return draw_scan((3, 1), side=5, N=64)


def test_the_same_seed_draws_the_same_scan(scan: Drawn) -> None:
    again = draw_scan((3, 1), side=5, N=64)
    np.testing.assert_array_equal(again.x, scan.x)
    np.testing.assert_array_equal(again.truth, scan.truth)
    assert scan.x.shape == (25, 64, 64)


def test_neighbours_are_the_patterns_around_one_of_them(scan: Drawn) -> None:
    rows = neighbours(scan, 9, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 9
    far = np.hypot(*(scan.positions_xy[rows] - scan.positions_xy[rows].mean(0)).T).max()
    assert far < np.hypot(*(scan.positions_xy - scan.positions_xy.mean(0)).T).max()


def test_a_complex_factor_is_no_error(scan: Drawn) -> None:
    block = Block(scan, np.arange(25))
    least = float(block.error(block.truth))
    assert float(block.error(block.truth * (0.4 - 1.3j))) == pytest.approx(least, abs=1e-5)
    assert float(block.error(block.image)) > 2 * least


def test_a_network_that_changes_nothing_keeps_the_image(scan: Drawn) -> None:
    block = Block(scan, np.arange(25))
    torch.testing.assert_close(block.round(Known(), slice(None)), block.image, atol=1e-5, rtol=0)
    errors = judge(Known(), scan, rounds=2)
    assert errors[1:] == pytest.approx([errors[0]] * 2, abs=1e-5)


def test_what_a_network_answers_reaches_the_image_under_its_light(scan: Drawn) -> None:
    block = Block(scan, np.arange(25))
    made = block.round(Known(0.5j), slice(None))
    lit = block.judged > 0.9
    before = (block.image - 0.5j).abs()[lit].mean()
    assert float((made - 0.5j).abs()[lit].mean()) < 0.6 * float(before)
