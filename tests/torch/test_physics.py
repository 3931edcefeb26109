"""The torch operators: adjoint, unitary, equal to the NumPy oracle, and with gradients that finite
differences confirm.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptycho import physics as oracle
from ptycho_torch import physics

torch_complex = torch.complex128


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
    ours = physics.propagate(torch.from_numpy(wave)).numpy()
    np.testing.assert_allclose(ours, oracle.propagate(wave), atol=1e-12)


@pytest.mark.parametrize("n, N, shape", [(1, 32, (65, 91)), (7, 33, (80, 71)), (130, 16, (40, 40))])
def test_splat_and_gather_are_adjoint(n, N, shape):
    rng = np.random.default_rng(n)
    patches = torch.from_numpy(field(rng, n, N, N))
    canvases = torch.from_numpy(field(rng, 3, *shape))
    limit = np.array([shape[1] - N - 1, shape[0] - N - 1])
    corners = torch.from_numpy(rng.uniform(0, 1, (n, 2)) * limit)
    which = torch.from_numpy(rng.integers(0, 3, n))
    left = torch.vdot(physics.splat(patches, corners, which, 3, shape).flatten(), canvases.flatten())
    right = torch.vdot(patches.flatten(), physics.gather(canvases, corners, which, N).flatten())
    assert complex(left) == pytest.approx(complex(right), rel=1e-11)


@pytest.mark.parametrize(
    "B, C, reach", [(1, 4, 3.0), (3, 4, 12.6), (21, 3, 5.5), (16, 4, 0.0), (33, 2, 7.9), (5, 9, 20.3)]
)
@pytest.mark.parametrize("window", ["central", "uniform"])
def test_merge_and_extract_equal_the_oracle_for_groups_of_any_extent(B, C, reach, window):
    rng = np.random.default_rng(B * C)
    N = 32
    patches, relative = field(rng, B, C, N, N), relative_positions(rng, B, C, reach)
    w = oracle.central_window(N) if window == "central" else np.ones((N, N))
    merged = physics.merge(torch.from_numpy(patches), torch.from_numpy(relative), torch.from_numpy(w))
    views = physics.merge_and_extract(
        torch.from_numpy(patches), torch.from_numpy(relative), torch.from_numpy(w)
    ).numpy()
    for b in range(B):
        expected = oracle.merge(patches[b], relative[b], w)
        mine = oracle.crop_centre(merged[b].numpy(), expected.shape[-1])
        np.testing.assert_allclose(mine, expected, atol=1e-9)
        np.testing.assert_allclose(views[b], oracle.extract_group(expected, relative[b], N), atol=1e-9)


@pytest.mark.parametrize("groups", [63 // 4 + 1, 16, 17, 1024])
def test_a_group_does_not_feel_the_rest_of_its_batch(groups):
    rng = np.random.default_rng(groups)
    N, C = 32, 4
    patches = torch.from_numpy(field(rng, groups, C, N, N)[:, :, :N, :N].astype(np.complex64))
    relative = torch.from_numpy(relative_positions(rng, groups, C, 6.0))
    w = physics.central_window(N)
    whole = physics.merge_and_extract(patches, relative, w)
    alone = physics.merge_and_extract(patches[-1:], relative[-1:], w)
    np.testing.assert_allclose(whole[-1].numpy(), alone[0].numpy(), atol=2e-5)


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


def test_diffraction_adds_modes_as_intensities_and_equals_the_oracle():
    rng = np.random.default_rng(7)
    patches, probe = field(rng, 5, 32, 32), field(rng, 3, 32, 32)
    together = oracle.diffract(patches, probe)
    np.testing.assert_allclose(together, sum(oracle.diffract(patches, mode) for mode in probe), rtol=1e-12)
    ours = physics.diffract(torch.from_numpy(patches), torch.from_numpy(probe)).numpy()
    np.testing.assert_allclose(ours, together, rtol=1e-10)
    assert together.sum() == pytest.approx(np.sum(np.abs(patches[:, None] * probe) ** 2), rel=1e-12)


def test_extract_reads_the_object_at_its_own_pixel():
    obj = np.zeros((40, 50))
    obj[12, 31] = 1
    patch = oracle.extract(obj, [31], [12], 32)[0]
    assert np.argwhere(patch != 0).tolist() == [[16, 16]]
    outside = oracle.extract(obj, [-100.0, 200.0], [-100.0, 300.0], 32)
    assert not outside.any()


def test_the_gradient_of_the_whole_chain_agrees_with_finite_differences():
    rng = np.random.default_rng(8)
    N, C = 16, 4
    relative = torch.from_numpy(relative_positions(rng, 2, C, 2.5))
    probe = torch.from_numpy(field(rng, 2, N, N))
    counts = torch.from_numpy(rng.poisson(5.0, (2, C, N, N)).astype(float))
    w = physics.central_window(N, dtype=torch.float64)

    def loss(patches: torch.Tensor) -> torch.Tensor:
        expected = physics.rate(physics.diffract(physics.merge_and_extract(patches, relative, w), probe), 0.7)
        return (expected - counts * torch.log(expected)).mean()

    patches = torch.from_numpy(field(rng, 2, C, N, N)).requires_grad_()
    loss(patches).backward()
    direction = torch.from_numpy(field(rng, 2, C, N, N))
    step = 1e-6
    with torch.no_grad():
        measured = (loss(patches + step * direction) - loss(patches - step * direction)) / (2 * step)
    predicted = torch.sum(patches.grad.real * direction.real + patches.grad.imag * direction.imag)
    assert float(predicted) == pytest.approx(float(measured), rel=1e-6)


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
