"""Judging at interior points: curves, masks, gauges and metres against values worked out another way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ptycho.errors import InputError
from ptycho.evaluation import eval_reconstruction, evaluate, r_factor
from ptycho.evaluation.frc import RingCorrelation, crossing, fourier_ring_correlation, half_bit_threshold
from ptycho.evaluation.gauge import least_squares_scale, remove_gauge
from ptycho.evaluation.metrics import complex_nrmse, ms_ssim, pearson, psnr, ssim, structure_nrmse
from ptycho.evaluation.rfactor import predicted_amplitudes
from ptycho.image.registration import apply_shift_fourier, phase_ramp
from ptycho.simulation import OBJECTS

SHAPE = (97, 110)  # odd by even, wider than high


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return OBJECTS["two_photographs"]((150, 150)).astype(np.complex128)


def test_half_bit_between_its_limits():
    """van Heel and Schatz 2005, eq. 17, by hand: n = 4 and 100 voxels of a ring."""
    assert half_bit_threshold([4.0, 100.0]).tolist() == pytest.approx(
        [(0.2071 + 0.9551) / (1.2071 + 0.4551), (0.2071 + 0.19102) / (1.2071 + 0.09102)]
    )


def test_ring_correlation_is_the_plain_sum_over_the_ring():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE) for _ in range(2))
    b = a + 0.7 * b
    window = np.hanning(SHAPE[0])[:, None] * np.hanning(SHAPE[1])
    fa, fb = (np.fft.fft2(window * (z - (window * z).sum() / window.sum())) for z in (a, b))
    side = min(SHAPE)
    radius = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.fftfreq(SHAPE[1])) * side
    curve = fourier_ring_correlation(a, b)
    assert len(curve.frequency) == side // 2 + 1
    for ring in (3, 11, 30):
        inside = np.round(radius) == ring
        top = (fa[inside] * fb[inside].conj()).sum().real
        wanted = top / math.sqrt((abs(fa[inside]) ** 2).sum() * (abs(fb[inside]) ** 2).sum())
        assert curve.correlation[ring] == pytest.approx(wanted)
        assert curve.pixels[ring] == inside.sum()
        assert curve.frequency[ring] == pytest.approx(2 * ring / side)


def test_crossing_smooths_and_looks_from_the_fourth_ring_on():
    frequency = np.arange(12) / 11
    values = np.array([0.0, 0, 0, 1, 1, 0.1, 1, 1, 0.4, 0.4, 0.4, 0.4])
    curve = RingCorrelation(frequency, values, np.ones(12))
    assert crossing(curve, 0.5) == pytest.approx(frequency[9])  # the mean of rings 8 to 10
    assert crossing(curve, 0.5, smooth=1) == pytest.approx(frequency[5])
    assert crossing(curve, 0.1) == 1.0
    late = RingCorrelation(frequency, np.array([1.0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]), np.ones(12))
    assert crossing(late, 0.5, smooth=1) == pytest.approx(frequency[3])


def test_scale_is_the_least_squares_one():
    rng = np.random.default_rng(1)
    r = rng.standard_normal((8, 9)) + 1j * rng.standard_normal((8, 9))
    t = (0.3 - 1.7j) * r + 0.1 * rng.standard_normal((8, 9))
    wanted = np.linalg.lstsq(r.reshape(-1, 1), t.ravel(), rcond=None)[0][0]
    assert least_squares_scale(r, t) == pytest.approx(wanted)


def test_reported_shift_and_ramp_undo_what_was_done(truth):
    """A reconstruction that lies (2.3, -1.4) px down and right of the truth under a ramp of known cycles."""
    cycles = (0.9, -1.6)
    ramp = phase_ramp(truth.shape, (cycles[0] / truth.shape[0], cycles[1] / truth.shape[1]))
    made = apply_shift_fourier(truth, (2.3, -1.4)) * ramp * (0.5 * np.exp(0.7j))
    found = evaluate(made, truth, roi=(40, 110, 40, 104), origin_xy=(0.0, 0.0))
    assert found.shift_px == pytest.approx((2.3, -1.4), abs=0.02)
    box = np.array([110 - 40 + 32, 104 - 40 + 32])  # the ramp is told in cycles of the padded box
    assert np.array(found.ramp_cycles) == pytest.approx(np.array(cycles) / truth.shape * box, abs=0.02)
    assert found.scale == pytest.approx(2.0, rel=0.02) and not found.twin
    assert found.nrmse < 0.02


def test_a_twin_is_taken_only_where_it_may_be(truth):
    made = truth[::-1, ::-1].conj()
    free, held = (evaluate(made, truth, allow_twin=allowed) for allowed in (True, False))
    assert free.twin and free.nrmse_structure < 0.05
    assert not held.twin and held.nrmse_structure > 0.3
    image = remove_gauge(made, truth, (20, 130, 20, 130), allow_twin=False)
    assert not image.twin


def test_uncovered_pixels_and_metres(truth):
    coverage = np.ones(truth.shape)
    coverage[:, :40] = 0
    made = truth.copy()
    made[:, :40] = np.nan
    found = evaluate(made, truth, coverage=coverage, pixel_size_m=2e-9, origin_xy=(0.0, 0.0))
    assert found.roi[2] >= 40 and found.nrmse < 2e-3
    side = min(found.roi[1] - found.roi[0], found.roi[3] - found.roi[2])
    assert found.roi == (6, 144, 46, 144) and side == 98  # a margin of 110 // 16 on every side
    noisy = truth + 0.3 * np.random.default_rng(0).standard_normal(truth.shape)
    judged = evaluate(noisy, truth, pixel_size_m=2e-9)
    assert 0 < judged.frc50 < 1 and judged.frc50_m == pytest.approx(2e-9 / judged.frc50)
    assert judged.frc_half_bit_m == pytest.approx(2e-9 / judged.frc_half_bit)
    with pytest.raises(InputError, match="pixel_size_m"):
        evaluate(made, truth, coverage=coverage, pixel_size_m=0.0)


def test_numbers_of_small_images_by_hand():
    t, r = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 6.0]])
    assert complex_nrmse(r, t) == pytest.approx(2 / math.sqrt(30))
    assert structure_nrmse(r, t) == pytest.approx(2 / math.sqrt(5))
    assert psnr(r, t) == pytest.approx(10 * math.log10(9 / 1.0))  # range 3, mean square error 1
    assert psnr(r, t, data_range=10.0) == pytest.approx(20.0)
    assert pearson(r, t) == pytest.approx(np.corrcoef(r.ravel(), t.ravel())[0, 1])
    rng = np.random.default_rng(0)
    t, r = rng.uniform(size=(2, 24, 31))
    assert pearson(r + 3, t) == pytest.approx(np.corrcoef(r.ravel(), t.ravel())[0, 1])
    assert ssim(r, t, data_range=5.0) != ssim(r, t)


def test_ms_ssim_by_scales():
    """Wang, Simoncelli, Bovik 2003: contrast of the finer scales, all of the coarsest; weights keep their
    sum.
    """
    from scipy.ndimage import gaussian_filter

    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    rng = np.random.default_rng(2)
    t = gaussian_filter(rng.uniform(size=(45, 46)), 1.0)
    r = t + 0.05 * rng.standard_normal(t.shape)

    def terms(a, b, span):
        def local(image):  # sigma 1.5 cut at 5 px
            full = gaussian_filter(image, 1.5, truncate=5 / 1.5)
            return full[5:-5, 5:-5]

        c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
        ma, mb = local(a), local(b)
        va, vb, both = local(a * a) - ma**2, local(b * b) - mb**2, local(a * b) - ma * mb
        contrast = (2 * both + c2) / (va + vb + c2)
        light = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
        return (light * contrast).mean(), contrast.mean()

    def halved(image):
        rows, columns = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        image = image[:rows, :columns]
        return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4

    share = np.array(weights[:3]) * sum(weights) / sum(weights[:3])  # 45, 22 and 11 px: three scales
    span, wanted, a, b = float(np.ptp(t)), 1.0, r, t
    for scale in range(3):
        full, contrast = terms(a, b, span)
        wanted *= (full if scale == 2 else contrast) ** share[scale]
        a, b = halved(a), halved(b)
    assert ms_ssim(r, t) == pytest.approx(wanted, rel=1e-9)


@pytest.fixture(scope="module")
def scan() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    N = 16
    obj = rng.uniform(0.5, 1, (50, 44)) * np.exp(1j * rng.uniform(-1, 1, (50, 44)))
    radius = np.hypot(*np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2))
    modes = np.stack([np.exp(-((radius / 4) ** 2)), 0.3 * np.exp(-((radius / 3) ** 2)) * (radius - 2)])
    x, y = rng.uniform(12, 30, (2, 7))
    return {"obj": obj, "probe": modes.astype(complex), "xcoords": x, "ycoords": y}


def amplitudes_by_hand(scan: dict[str, np.ndarray]) -> np.ndarray:
    """The probe moved by the sub-pixel part with a Fourier ramp, times the window at the whole pixel."""
    N = scan["probe"].shape[-1]
    k = np.fft.fftfreq(N)
    made = []
    for x, y in zip(scan["xcoords"], scan["ycoords"], strict=True):
        column, row = math.floor(x + 0.5), math.floor(y + 0.5)
        patch = scan["obj"][row - N // 2 : row - N // 2 + N, column - N // 2 : column - N // 2 + N]
        ramp = np.exp(-2j * np.pi * (k[:, None] * (y - row) + k[None, :] * (x - column)))
        waves = [np.fft.fft2(np.fft.ifft2(np.fft.fft2(mode) * ramp) * patch) / N for mode in scan["probe"]]
        made.append(np.fft.fftshift(np.sqrt(sum(np.abs(wave) ** 2 for wave in waves))))
    return np.array(made)


def test_predicted_amplitudes_and_r_by_hand(scan):
    model = amplitudes_by_hand(scan)
    assert np.abs(predicted_amplitudes(**scan) - model).max() < 1e-5 * model.max()
    rng = np.random.default_rng(4)
    measured = (model * rng.uniform(0.8, 1.3, model.shape)).astype(np.float32)
    bad = np.zeros(model.shape[1:], bool)
    bad[7:10, 8] = True  # bright pixels, in the middle of the pattern
    for mask in (None, bad):
        good = np.ones(model.shape[1:]) if mask is None else ~mask
        for chunk in (1, 3, 64):  # seven patterns: the last chunk of three holds one
            found = r_factor(**scan, amplitude=measured, bad_pixels=mask, chunk=chunk, fit_scale=False)
            each = ((model - measured) ** 2 * good).sum((1, 2)), (measured**2 * good).sum((1, 2))
            assert found.whole == pytest.approx(math.sqrt(each[0].sum() / each[1].sum()), rel=1e-5)
            assert found.per_pattern == pytest.approx(np.sqrt(each[0] / each[1]), rel=1e-5)
            assert found.scale == 1.0
            fitted = r_factor(**scan, amplitude=measured, bad_pixels=mask, chunk=chunk)
            scale = (model * measured * good).sum() / (model**2 * good).sum()
            assert fitted.scale == pytest.approx(scale, rel=1e-5)
    dirty = measured.copy()
    dirty[:, bad] = 1e6
    clean = r_factor(**scan, amplitude=measured, bad_pixels=bad)
    assert r_factor(**scan, amplitude=dirty, bad_pixels=bad).whole == clean.whole
    counts = r_factor(**scan, amplitude=(measured**2).astype(np.float32), unit="counts")
    assert counts.whole == pytest.approx(r_factor(**scan, amplitude=measured).whole, rel=1e-4)


def test_r_at_another_origin(scan):
    moved = {**scan, "xcoords": scan["xcoords"] + 5, "ycoords": scan["ycoords"] - 3}
    measured = amplitudes_by_hand(scan).astype(np.float32)
    assert r_factor(**moved, amplitude=measured, origin_xy=(5.0, -3.0)).whole < 1e-3
    assert r_factor(**scan, amplitude=measured, origin_xy=(1.0, 0.0)).whole > 0.1


def test_older_interface_pairs_amplitude_and_phase(truth):
    made = truth * 1.5
    found = eval_reconstruction((made + 0.01)[None, ..., None], truth[None])
    judged = evaluate(made + 0.01, truth)
    r, t = judged.aligned.recon, judged.aligned.reference
    assert found["mae"][0] == pytest.approx(np.abs(np.abs(r) - np.abs(t)).mean())
    assert found["mse"][1] == pytest.approx((np.angle(r * t.conj()) ** 2).mean())
    assert found["psnr"] == (judged.amplitude_psnr, judged.phase_psnr)
