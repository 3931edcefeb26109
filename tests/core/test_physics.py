"""The oracle's own laws: shifts are adjoint, propagation keeps energy, merging gives the object back."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho import physics as oracle


def field(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def smooth(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A complex image without content above a tenth of Nyquist."""
    spectrum = np.zeros(shape, complex)
    spectrum[:3, :3] = field(rng, 3, 3)
    return np.fft.ifft2(spectrum) * np.prod(shape)


def relative_positions(rng: np.random.Generator, B: int, C: int, reach: float) -> np.ndarray:
    r = rng.uniform(-reach, reach, (B, C, 2))
    return r - r.mean(1, keepdims=True)


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (0.25, 0.5), (-4.7, 1.3)])
@pytest.mark.parametrize("move", [oracle.shift_bilinear, oracle.shift_fourier])
def test_shifts_are_adjoint_to_the_opposite_shift(move, shift):
    rng = np.random.default_rng(0)
    a, b = field(rng, 17, 20), field(rng, 17, 20)
    back = (-shift[0], -shift[1])
    if move is oracle.shift_fourier:  # an odd side has no Nyquist row, where a real shift is not unitary
        a, b = a[:, :19], b[:, :19]
    assert np.vdot(move(a, shift), b) == pytest.approx(np.vdot(a, move(b, back)), rel=1e-12)


def test_a_bilinear_shift_moves_content_right_and_down_for_positive_numbers():
    image = np.zeros((9, 9))
    image[4, 4] = 1
    moved = oracle.shift_bilinear(image, (2, 1))
    assert np.argwhere(moved != 0).tolist() == [[5, 6]]


def test_sub_pixel_shift_accuracy_against_the_exact_shift():
    rng = np.random.default_rng(1)
    image = smooth(rng, 64, 64)
    exact = oracle.shift_fourier(image, (0.37, -0.61))[4:-4, 4:-4]
    error = (
        np.abs(oracle.shift_bilinear(image, (0.37, -0.61))[4:-4, 4:-4] - exact).max() / np.abs(exact).max()
    )
    assert error < 0.02


def test_propagation_keeps_energy_and_puts_zero_frequency_in_the_centre():
    rng = np.random.default_rng(2)
    wave = field(rng, 2, 33, 48)
    assert np.sum(np.abs(oracle.propagate(wave)) ** 2) == pytest.approx(np.sum(np.abs(wave) ** 2), rel=1e-12)
    assert np.unravel_index(np.abs(oracle.propagate(np.ones((64, 64)))).argmax(), (64, 64)) == (32, 32)


@pytest.mark.parametrize("whole_pixels", [True, False])
def test_merge_of_extracted_patches_is_the_object(whole_pixels):
    rng = np.random.default_rng(5)
    N, C = 64, 4
    relative = relative_positions(rng, 1, C, 9.0)[0]
    if whole_pixels:
        relative = np.array([[-3.0, -5], [4, -5], [-4, 6], [3, 4]])
    obj = smooth(rng, 120, 120)
    patches = oracle.extract(obj, 60 + relative[:, 0], 60 + relative[:, 1], N)
    merged = oracle.merge(patches, relative, oracle.central_window(N))
    side = merged.shape[0]
    expected = oracle.extract(obj, [60], [60], side)[0] if side % 2 == 0 else obj[60 - side // 2 :][:side]
    inner = slice(side // 2 - N // 4, side // 2 + N // 4)
    error = np.abs(merged - expected)[inner, inner].max() / np.abs(obj).max()
    assert error < (1e-12 if whole_pixels else 0.01)


def test_outside_every_window_the_merge_is_the_plain_overlap_mean():
    rng = np.random.default_rng(6)
    N = 32
    patches = field(rng, 2, N, N)
    merged = oracle.merge(patches, np.zeros((2, 2)), oracle.central_window(N))
    np.testing.assert_allclose(merged[:8, :], patches.mean(0)[:8, :], atol=1e-12)
    assert np.abs(merged).max() < 2 * np.abs(patches).max()


def test_extract_reads_the_object_at_its_own_pixel():
    obj = np.zeros((40, 50))
    obj[12, 31] = 1
    patch = oracle.extract(obj, [31], [12], 32)[0]
    assert np.argwhere(patch != 0).tolist() == [[16, 16]]
    outside = oracle.extract(obj, [-100.0, 200.0], [-100.0, 300.0], 32)
    assert not outside.any()


def test_rate_and_likelihood_floor():
    counts = np.array([[0.0, 3.0], [7.0, 1.0]])
    assert oracle.poisson_nll(oracle.rate(counts, 1.0), counts) == pytest.approx(
        oracle.poisson_nll_floor(counts), abs=1e-5
    )
    bad = np.array([[True, False], [False, False]])
    wrong = oracle.rate(counts + np.array([[100.0, 0], [0, 0]]), 1.0)
    assert oracle.poisson_nll(wrong, counts, bad) == pytest.approx(
        oracle.poisson_nll_floor(counts, bad), abs=1e-5
    )
