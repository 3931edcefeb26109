"""The NumPy oracle against sums written out: shifts, merges, diffraction and losses at interior points."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ptycho import physics

RNG = np.random.default_rng


def field(*shape: int, seed: int = 0) -> np.ndarray:
    rng = RNG(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def test_bilinear_shift_moves_content_right_and_down():
    image = field(5, 6)
    moved = physics.shift_bilinear(image, (1.25, 2.0))
    wanted = 0.75 * image[0, 1] + 0.25 * image[0, 0]
    assert moved[2, 2] == pytest.approx(wanted)
    assert not moved[:2].any() and not moved[:, 0].any()
    back = physics.shift_bilinear(image, (-1.25, -0.5))
    rows = 0.5 * image[:-1] + 0.5 * image[1:]
    assert back[1, 2] == pytest.approx(0.75 * rows[1, 3] + 0.25 * rows[1, 4])
    assert not physics.shift_bilinear(image, (9.0, 0.0)).any()


def test_fourier_shift_of_whole_pixels_is_a_roll():
    image = field(6, 7)
    assert physics.shift_fourier(image, (2.0, -1.0)) == pytest.approx(np.roll(image, (-1, 2), (0, 1)))


@pytest.mark.parametrize("N", [8, 9])
def test_a_patch_is_the_window_around_its_position(N):
    """Pixel (N//2, N//2) of a patch is the object at the position; beyond the object is zero."""
    obj = field(20, 24)
    x, y = 11.25, 8.5
    patch = physics.extract(obj, [x], [y], N)[0]
    corners = [obj[8 + i, 11 + j] for i in (0, 1) for j in (0, 1)]
    wanted = 0.5 * (0.75 * corners[0] + 0.25 * corners[1]) + 0.5 * (0.75 * corners[2] + 0.25 * corners[3])
    assert patch[N // 2, N // 2] == pytest.approx(wanted)
    edge = physics.extract(obj, [0.0], [0.0], N)[0]
    assert edge[N // 2, N // 2] == pytest.approx(obj[0, 0]) and not edge[: N // 2].any()
    last = physics.extract(obj, [23.0], [19.0], N)[0]
    assert last[N // 2, N // 2] == pytest.approx(obj[19, 23]) and not last[N // 2 + 1 :].any()
    assert not physics.extract(obj, [500.0], [-500.0], N).any()


def test_window_canvas_and_padding():
    window = physics.central_window(10)
    assert window.sum() == 25 and window[2, 2] == 1 and window[6, 6] == 1 and window[7, 7] == 0
    assert physics.canvas_side(8, [[1.2, -2.01]]) == 14 and physics.canvas_side(8, [[0.0, 0.0]]) == 8
    padded = physics.pad_centre(np.arange(9.0).reshape(3, 3), 6)
    assert padded[3, 3] == 4.0 and physics.crop_centre(padded, 3)[1, 1] == 4.0


def test_merge_is_the_weighted_mean_and_extract_its_inverse():
    """Two patches two pixels apart: in both windows their mean, in one of them that patch, outside by
    epsilon.
    """
    first, second = np.full((8, 8), 1.0 + 0j), np.full((8, 8), 3.0 + 0j)
    window = physics.central_window(8)
    canvas = physics.merge([first, second], [[-1.0, 0.0], [1.0, 0.0]], window)
    assert canvas.shape == (10, 10)
    # windows are the columns 2 to 5 of a patch: 2 to 5 and 4 to 7 of the canvas, whose centre is pixel 5
    low, high = (1 + 1e-3) * 1 + 1e-3 * 3, (1 + 1e-3) * 3 + 1e-3 * 1
    assert canvas[5, 4] == pytest.approx(2.0)
    assert canvas[5, 2] == pytest.approx(low / (1 + 2e-3))
    assert canvas[5, 7] == pytest.approx(high / (1 + 2e-3))
    assert canvas[1, 4] == pytest.approx(2.0)  # outside every window: the plain mean
    obj = field(30, 30)
    relative = np.array([[-1.0, 2.0], [2.0, -1.0], [-1.0, -1.0]])
    patches = physics.extract(obj, 15 + relative[:, 0], 15 + relative[:, 1], 8)
    merged = physics.merge(patches, relative, window)
    assert physics.extract_group(merged, relative, 8) == pytest.approx(patches)


def test_modes_add_as_intensities_and_energy_is_kept():
    patch, modes = field(1, 8, 8), field(2, 8, 8, seed=1)
    made = physics.diffract(patch, modes)[0]
    k = np.arange(8) - 4
    n = np.arange(8)
    kernel = np.exp(-2j * np.pi * np.outer(k, n) / 8) / math.sqrt(8)
    wanted = sum(np.abs(kernel @ (patch[0] * mode) @ kernel.T) ** 2 for mode in modes)
    assert made == pytest.approx(wanted)
    assert made.sum() == pytest.approx(sum((np.abs(patch[0] * mode) ** 2).sum() for mode in modes))


def test_rate_and_losses_with_bright_bad_pixels():
    intensity = RNG(0).uniform(0.5, 2, (3, 4, 4))
    rate = physics.rate(intensity, 3.0)
    assert rate == pytest.approx(9 * intensity + 1e-6, rel=1e-12)
    assert physics.rate(np.zeros(1), 3.0)[0] == pytest.approx(1e-6)
    counts = RNG(1).poisson(rate).astype(float)
    bad = np.zeros((4, 4), bool)
    bad[1, 2] = bad[2, 2] = True
    dirty = counts.copy()
    dirty[:, bad] = 1e7
    for mask, n in ((None, counts), (bad, dirty)):
        good = np.ones((4, 4), bool) if mask is None else ~mask
        terms = [r - c * math.log(r) for r, c in zip(rate[:, good].ravel(), n[:, good].ravel(), strict=True)]
        assert physics.poisson_nll(rate, n, mask) == pytest.approx(np.mean(terms))
        floor = [c - c * math.log(c) if c else 1e-6 for c in n[:, good].ravel()]
        assert physics.poisson_nll_floor(n, mask) == pytest.approx(np.mean(floor))
        error = np.abs(np.sqrt(intensity) - n)[:, good].mean()
        assert physics.amplitude_mae(intensity, n, mask) == pytest.approx(error)
