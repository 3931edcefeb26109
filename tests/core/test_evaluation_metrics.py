"""Metrics, FRC and R-factor against independent formulas."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.errors import InputError
from ptycho.evaluation import metrics
from ptycho.evaluation.frc import crossing, fourier_ring_correlation, half_bit_threshold
from ptycho.evaluation.rfactor import r_factor
from ptycho.image.cropping import align_for_evaluation, centre_crop
from ptycho.image.registration import apply_shift_fourier, fit_phase_ramp, register_translation
from ptycho.simulation import OBJECTS, Scenario, diffract_scan, simulate


def pictures(shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = np.abs(OBJECTS["two_photographs"](shape)).astype(float)
    return true + 0.03 * rng.standard_normal(shape), true


@pytest.mark.parametrize("shape", [(176, 176), (200, 181)])
def test_ms_ssim_is_that_of_torchmetrics(shape: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference

    rec, true = pictures(shape)
    theirs = reference(
        torch.from_numpy(rec)[None, None], torch.from_numpy(true)[None, None], data_range=float(np.ptp(true))
    )
    # torchmetrics averages the coarsest scale over a reflected border too, here only whole windows count.
    assert metrics.ms_ssim(rec, true) == pytest.approx(float(theirs), abs=1e-3)


def test_ms_ssim_of_a_small_box_uses_the_scales_that_fit() -> None:
    rec, true = pictures((60, 48))
    assert 0 < metrics.ms_ssim(rec, true) < 1 and metrics.ms_ssim(true, true) == pytest.approx(1)
    with pytest.raises(InputError, match="11"):
        metrics.ms_ssim(true[:8], true[:8])


def test_psnr_uses_the_range_of_the_truth() -> None:
    true = np.linspace(2.0, 4.0, 400).reshape(20, 20)
    assert metrics.psnr(true + 0.02, true) == pytest.approx(20 * np.log10(2.0 / 0.02))
    assert metrics.psnr(true, true) == np.inf


def test_pearson_is_zero_for_a_constant_and_signed() -> None:
    _, true = pictures((32, 32))
    assert metrics.pearson(true * 0 + 2, true) == 0.0
    assert metrics.pearson(3 - 2 * true, true) == pytest.approx(-1)


def test_frc_of_independent_noise_is_low_and_of_a_low_pass_falls_where_it_should() -> None:
    rng = np.random.default_rng(0)
    a, b, c, d = rng.standard_normal((4, 128, 128))
    independent = fourier_ring_correlation(a + 1j * b, c + 1j * d)
    assert np.abs(independent.correlation[5:]).mean() < 0.12
    field = np.fft.fft2(a + 1j * b)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128))) * 2
    low = np.fft.ifft2(np.where(radius < 0.4, field, np.fft.fft2(c + 1j * d)))
    curve = fourier_ring_correlation(low, a + 1j * b)
    assert crossing(curve, 0.5) == pytest.approx(0.4, abs=0.05)
    assert crossing(curve, half_bit_threshold(curve.pixels)) == pytest.approx(0.4, abs=0.06)


def test_half_bit_threshold_has_its_published_limits() -> None:
    assert half_bit_threshold(np.array([1e12]))[0] == pytest.approx(0.1716, abs=1e-4)
    assert half_bit_threshold(np.array([1.0]))[0] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.25, -7.6), (-20.1, 14.45)])
def test_registration_finds_the_shift(shift: tuple[float, float]) -> None:
    obj = OBJECTS["two_photographs"]((128, 150)).astype(complex)
    found = register_translation(apply_shift_fourier(obj, shift), obj, upsample=100)
    np.testing.assert_allclose(found, shift, atol=0.03)


def test_a_shift_and_its_inverse_cancel_and_whole_pixels_roll() -> None:
    obj = OBJECTS["lines"]((64, 80), 1).astype(complex)
    np.testing.assert_allclose(apply_shift_fourier(obj, (2, -3)), np.roll(obj, (2, -3), (0, 1)), atol=1e-10)


def test_the_ramp_is_found_in_cycles_a_pixel() -> None:
    obj = OBJECTS["two_photographs"]((100, 120)).astype(complex)
    y, x = np.indices(obj.shape)
    found = fit_phase_ramp(obj * np.exp(2j * np.pi * (0.0123 * y - 0.0301 * x)), obj)
    np.testing.assert_allclose(found, (0.0123, -0.0301), atol=1e-4)


@pytest.mark.parametrize("side, out", [(9, 4), (8, 5), (9, 5), (8, 4)])
def test_centre_crop_keeps_the_centre_pixel(side: int, out: int) -> None:
    image = np.zeros((side, side))
    image[side // 2, side // 2] = 1
    cropped = centre_crop(image, (out, out))
    assert cropped.shape == (out, out) and cropped[out // 2, out // 2] == 1
    with pytest.raises(InputError, match="crop"):
        centre_crop(image, (side + 1, 2))


def test_aligned_pair_shows_the_same_pixels() -> None:
    true = np.arange(30.0 * 40).reshape(30, 40) + 0j
    rec, cut, box = align_for_evaluation(true[4:25, 10:38], true, origin_xy=(10, 4))
    np.testing.assert_array_equal(rec, cut)
    assert box == (4, 25, 10, 38)


@pytest.fixture(scope="module")
def scan():
    return simulate(Scenario(N=32, n_positions=49, step_px=3.0, photons=1e6, n_modes=2))


def test_r_factor_of_the_truth_is_the_noise_and_flat_is_worse(scan) -> None:
    raw = scan.raw
    true = r_factor(scan.object_true, scan.probe_true, raw.xcoords, raw.ycoords, raw.amplitude())
    flat = r_factor(
        np.ones_like(scan.object_true), scan.probe_true, raw.xcoords, raw.ycoords, raw.amplitude()
    )
    expected = diffract_scan(scan.object_true, scan.probe_true, raw.positions_px)
    redrawn = np.random.default_rng(99).poisson(expected)
    noise = np.sqrt(((np.sqrt(redrawn) - np.sqrt(expected)) ** 2).sum() / redrawn.sum())
    assert true.whole == pytest.approx(noise, rel=0.03)
    assert flat.whole > 4 * true.whole
    assert true.per_pattern.shape == (49,) and true.scale == pytest.approx(1.0, rel=1e-3)
    energy = raw.diff3d.sum((1, 2), dtype=float)
    assert true.whole == pytest.approx(np.sqrt((true.per_pattern**2 * energy).sum() / energy.sum()))


def test_r_factor_is_the_formula(scan) -> None:
    raw = scan.raw
    wrong = scan.object_true * 1.3
    predicted = np.sqrt(diffract_scan(wrong, scan.probe_true, raw.positions_px))
    measured = raw.amplitude().astype(float)
    plain = np.sqrt(((predicted - measured) ** 2).sum() / (measured**2).sum())
    result = r_factor(wrong, scan.probe_true, raw.xcoords, raw.ycoords, measured, fit_scale=False, chunk=10)
    assert result.whole == pytest.approx(plain, rel=1e-4) and result.scale == 1.0
    fitted = r_factor(wrong, scan.probe_true, raw.xcoords, raw.ycoords, measured)
    scale = (predicted * measured).sum() / (predicted**2).sum()
    assert fitted.scale == pytest.approx(scale, rel=1e-4) and fitted.whole < plain


def test_r_factor_honours_origin_counts_bad_pixels_and_edges(scan) -> None:
    raw, cut = scan.raw, scan.object_true[5:-5, 7:-7]
    args = (scan.probe_true, raw.xcoords, raw.ycoords)
    whole = r_factor(scan.object_true, *args, raw.amplitude())
    moved = r_factor(cut, *args, raw.amplitude(), origin_xy=(7, 5))
    assert moved.whole == pytest.approx(whole.whole, rel=0.3)
    counts = r_factor(scan.object_true, *args, raw.diff3d, unit="counts")
    assert counts.whole == pytest.approx(whole.whole, rel=1e-4)
    spoiled = raw.amplitude().copy()
    bad = np.zeros((32, 32), bool)
    bad[3, 4] = True
    spoiled[:, bad] = 1e4
    assert r_factor(scan.object_true, *args, spoiled, bad_pixels=bad).whole == pytest.approx(
        whole.whole, rel=0.01
    )
    seen: list[tuple[int, int]] = []
    r_factor(scan.object_true, *args, raw.amplitude(), progress=lambda i, n: seen.append((i, n)), chunk=20)
    assert seen[-1] == (49, 49)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(xcoords=np.full(49, 1e4)), "canvas"),
        (dict(amplitude=np.ones((48, 32, 32))), "amplitude"),
        (dict(probe=np.ones((1, 30, 30), complex)), "probe"),
        (dict(amplitude=np.zeros((49, 32, 32))), "zero"),
        (dict(obj=np.ones((3, 5, 5), complex)), "obj"),
        (dict(chunk=0), "chunk"),
        (dict(ycoords=np.ones(3)), "ycoords"),
        (dict(obj=np.full((70, 70), np.nan, complex)), "NaN"),
        (dict(unit="photons"), "unit"),
    ],
)
def test_r_factor_refuses_in_one_line(scan, change: dict, words: str) -> None:
    raw = scan.raw
    args = dict(
        obj=scan.object_true,
        probe=scan.probe_true,
        xcoords=raw.xcoords,
        ycoords=raw.ycoords,
        amplitude=raw.amplitude(),
    )
    with pytest.raises(InputError, match=words) as caught:
        r_factor(**{**args, **change})
    assert "\n" not in str(caught.value)
