"""Total counts and centres of mass: kernels by finite differences, and the low frequencies they give."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.io.lazy import as_lazy
from ptycho.physics import diffract, shift_fourier
from ptycho.run.coarse_start import coarse_from_moments, coarse_start
from ptycho.run.moments import Moments, detector_weights, moment_responses, pattern_moments

N = 32


def probe_of(modes: int = 1) -> np.ndarray:
    """A defocused zone plate (P, N, N) that carries its own current."""
    k = np.fft.fftfreq(N) * N
    r = np.hypot(k[:, None], k)
    pupil = np.exp(0.06j * r**2) / (1 + np.exp((r - 6.5) / 0.4))
    first = np.fft.fftshift(np.fft.ifft2(pupil))
    x = np.arange(N) - N // 2
    return np.stack([first, 0.2 * first * x, 0.1 * first * x[:, None]])[:modes]


def mask_of() -> np.ndarray:
    """Bad pixels in the bright part, on one side."""
    bad = np.zeros((N, N), bool)
    bad[N // 2 - 3 : N // 2, N // 2 + 1 : N // 2 + 5] = True
    return bad


def truth(shape: tuple[int, int], finest_px: float = 24.0, seed: int = 0) -> np.ndarray:
    """Waves of at least `finest_px`: log amplitude about 0.1, phase about 0.3 rad."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    fields = []
    for size in (0.06, 0.2):
        angle, phase = rng.uniform(0, 2 * np.pi, 6), rng.uniform(0, 2 * np.pi, 6)
        period = rng.uniform(finest_px, 3 * finest_px, 6)
        turns = (x[..., None] * np.cos(angle) + y[..., None] * np.sin(angle)) / period
        fields.append(size * np.cos(2 * np.pi * turns + phase).sum(-1) / np.sqrt(3))
    return np.exp(fields[0] + 1j * fields[1])


def scan_of(image: np.ndarray, probe: np.ndarray, step: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free counts (M, N, N), 1e6 a pattern, and centres (M, 2) [x, y] px by the oracle."""
    rows, columns = (np.arange(N // 2 + 1, side - N // 2 - 1, step) for side in image.shape)
    grid = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    positions = grid + np.random.default_rng(1).uniform(-0.9, 0.9, grid.shape)
    patterns = []
    for place in positions:
        corner = np.round(place - N // 2).astype(int)
        moved = shift_fourier(probe, place - N // 2 - corner)
        x, y = corner
        patterns.append(diffract(image[y : y + N, x : x + N], moved))
    counts = np.array(patterns)
    return 1e6 * counts / counts.sum((1, 2)).mean(), positions


def away(found: np.ndarray, true: np.ndarray, inset: int = N // 2) -> float:
    """cNRMSE inside the scan after one complex scale and a phase ramp."""
    box = np.s_[inset:-inset, inset:-inset]
    a, b = found[box].astype(complex), true[box]
    y, x = np.indices(a.shape)
    turn = np.angle(a * b.conj())
    basis = np.stack([x.ravel(), y.ravel(), np.ones(a.size)], 1)
    ramp = basis @ np.linalg.lstsq(basis, turn.ravel(), rcond=None)[0]
    a = a * np.exp(-1j * ramp.reshape(a.shape))
    a = a * np.vdot(a, b) / np.vdot(a, a)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("field", [0, 1])
def test_kernels_are_the_derivatives_of_the_moments(modes: int, masked: bool, field: int) -> None:
    rng = np.random.default_rng(field)
    probe, bad = probe_of(modes), mask_of() if masked else None
    direction = rng.normal(size=(N, N))
    unit = (1.0, 1j)[field]

    def moments(step: float) -> np.ndarray:
        pattern = diffract(np.exp(step * unit * direction), probe)
        # a bright bad pixel must not matter
        pattern = pattern if bad is None else np.where(bad, 1e6, pattern)
        found = pattern_moments(pattern[None].astype(np.float64), bad_pixels=bad)
        return np.array([np.log(found.counts[0]), *found.centre_xy[0]])

    # a wide step: the sums are float32
    slope = (moments(2e-2) - moments(-2e-2)) / 4e-2
    expected = np.tensordot(moment_responses(probe, bad).kernels[:, field], direction, 2)
    size = np.abs(moment_responses(probe, bad).kernels[:, field]).sum((-2, -1))
    np.testing.assert_allclose(slope, expected, atol=2e-3 * size.max())
    assert np.abs(expected[1:]).max() > 20 * 1e-4 * size.max()


def test_photons_scatter_as_the_responses_say() -> None:
    pattern = diffract(np.ones((N, N)), probe_of())
    rng = np.random.default_rng(0)
    counts = rng.poisson(2000 * pattern / pattern.sum(), (3000, N, N))
    found = pattern_moments(counts)
    seen = np.array([np.log(found.counts).var(), *found.centre_xy.var(0)])
    np.testing.assert_allclose(seen, moment_responses(probe_of()).noise / 2000, rtol=0.15)


@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_low_frequencies_of_a_rectangular_canvas_come_back(modes: int, masked: bool) -> None:
    image, bad = truth((110, 140)), mask_of() if masked else None
    patterns, positions = scan_of(image, probe_of(modes))
    spoilt = patterns if bad is None else np.where(bad, 1e6, patterns)
    found = coarse_start(
        spoilt, positions, probe_of(modes), bad_pixels=bad, shape=image.shape, origin_xy=(0, 0)
    )
    assert found.object.dtype == np.complex64 and found.object.shape == image.shape
    flat = away(np.ones(image.shape), image)
    assert away(found.object, image) < (0.35 if masked else 0.2) * flat
    assert min(found.explained) > 0.9


def test_origin_moves_with_the_positions() -> None:
    image = truth((96, 96))
    patterns, positions = scan_of(image, probe_of())
    here = coarse_start(patterns, positions, probe_of(), shape=image.shape, origin_xy=(0, 0))
    there = coarse_start(
        patterns, positions + (500, -300), probe_of(), shape=image.shape, origin_xy=(500, -300)
    )
    np.testing.assert_allclose(there.object, here.object, atol=1e-5)
    own = coarse_start(patterns, positions, probe_of())
    x, y = own.origin_xy
    h, w = own.object.shape
    assert away(own.object, image[y : y + h, x : x + w]) < 0.06


def test_scales_units_beam_offset_and_lazy_rows_change_nothing() -> None:
    image = truth((96, 96))
    patterns, positions = scan_of(image, probe_of())
    plain = coarse_start(patterns, positions, probe_of()).object
    others = {
        "counts and probe": coarse_start(100 * patterns, positions, 7 * probe_of()),
        "amplitude": coarse_start(np.sqrt(patterns), positions, probe_of(), unit="amplitude"),
        "lazy": coarse_start(as_lazy(patterns), positions, probe_of()),
    }
    for name, other in others.items():
        assert np.abs(other.object - plain).max() < 0.02, name
    # a beam that is one detector pixel off moves every centre of mass alike
    assert np.abs(coarse_start(np.roll(patterns, 1, -1), positions, probe_of()).object - plain).max() < 0.05


def test_without_its_own_current_a_probe_reads_amplitude_as_phase() -> None:
    image = np.abs(truth((96, 96))) ** 3 + 0j
    patterns, positions = scan_of(image, probe_of())
    found = coarse_start(patterns, positions, probe_of(), shape=image.shape, origin_xy=(0, 0)).object
    real = coarse_start(patterns, positions, np.abs(probe_of()), shape=image.shape, origin_xy=(0, 0)).object
    box = np.s_[16:-16, 16:-16]
    assert np.angle(found[box]).std() < 0.3 * np.angle(real[box]).std()


def test_noise_of_few_photons_is_held_down() -> None:
    patterns, positions = scan_of(np.ones((96, 96), complex), probe_of())
    counts = np.random.default_rng(0).poisson(1e-4 * patterns)
    found = coarse_start(counts, positions, probe_of(), shape=(96, 96), origin_xy=(0, 0))
    assert away(found.object, np.ones((96, 96))) < 0.08


def test_a_pattern_without_beam_is_left_out() -> None:
    image = truth((96, 96))
    patterns, positions = scan_of(image, probe_of())
    dark = patterns.copy()
    dark[40] = 0
    found = coarse_start(dark, positions, probe_of(), shape=image.shape, origin_xy=(0, 0))
    assert away(found.object, image) < 0.06


def test_weights_and_refusals() -> None:
    weights = detector_weights(N, mask_of())
    assert weights[0].sum() == N * N - mask_of().sum() and not weights[:, mask_of()].any()
    with pytest.raises(DataError, match="no light"):
        moment_responses(probe_of(), np.ones((N, N), bool))
    with pytest.raises(DataError, match="NaN"):
        Moments.of_sums(np.full((2, 3), np.nan))
    with pytest.raises(DataError, match="positions have shape"):
        coarse_from_moments(Moments(np.ones(5), np.zeros((5, 2))), np.zeros((4, 2)), probe_of())
