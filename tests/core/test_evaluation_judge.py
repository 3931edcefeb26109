"""Judging: the gauge is removed, the numbers are those of the bench's judge, bad input is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptycho.errors import InputError
from ptycho.evaluation import eval_reconstruction, evaluate
from ptycho.image.registration import apply_shift_fourier
from ptycho.run.image_quality import mean_quality
from ptycho.simulation import OBJECTS

ROI = (36, 164, 36, 164)


def ramp(shape: tuple[int, int], cycles: tuple[float, float]) -> np.ndarray:
    y, x = np.indices(shape)
    return np.exp(2j * np.pi * (cycles[0] * y / shape[0] + cycles[1] * x / shape[1]))


def noisy(obj: np.ndarray, level: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return obj + level * (rng.standard_normal(obj.shape) + 1j * rng.standard_normal(obj.shape))


def blurred(obj: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(obj.real, sigma) + 1j * gaussian_filter(obj.imag, sigma)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return OBJECTS["two_photographs"]((202, 202)).astype(complex)


@pytest.fixture(scope="module")
def bench_judge(shared_dir: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_judge", shared_dir / "bench" / "judge.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DEGRADATIONS = {
    "blur": lambda t: noisy(blurred(t, 1.2), 0.005),
    "strong blur": lambda t: blurred(t, 3.0),
    "noise": lambda t: noisy(t, 0.05),
    "strong noise": lambda t: noisy(t, 0.2),
    "noise, shift 0.3": lambda t: apply_shift_fourier(noisy(t, 0.05), (0.3, -0.2)),
    "noise, ramp": lambda t: noisy(t, 0.05) * ramp(t.shape, (0.7, -1.3)),
    "blur, scale": lambda t: 3.2 * np.exp(2.1j) * blurred(t, 1.5),
    "all": lambda t: (
        0.4j * apply_shift_fourier(noisy(blurred(t, 1.0), 0.03), (1.3, -2.2)) * ramp(t.shape, (2.2, 0.4))
    ),
}


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_agrees_with_the_judge_of_the_bench_to_one_percent(
    name: str, bench_judge: ModuleType, shared_dir: Path
) -> None:
    with np.load(shared_dir / "bench" / "scan_subpixel.npz") as scan:
        true, roi = scan["object_true"].astype(complex), tuple(int(v) for v in scan["roi"])
    rec = DEGRADATIONS[name](true)
    theirs, ours = bench_judge.evaluate(rec, true, roi), evaluate(rec, true, roi)
    assert ours.nrmse == pytest.approx(theirs["nrmse"], rel=0.01)
    assert ours.nrmse_structure == pytest.approx(theirs["nrmse_struct"], rel=0.01)
    for key in ("amp_psnr", "amp_ssim", "phase_psnr", "phase_ssim"):
        mine = getattr(ours, key.replace("amp", "amplitude"))
        assert mine == pytest.approx(theirs[key], rel=0.01), key
    assert ours.frc50 == pytest.approx(theirs["frc50"], rel=0.01, abs=1e-9)
    np.testing.assert_allclose(ours.shift_px, theirs["shift_px"], atol=0.02)


def test_the_truth_is_perfect(truth: np.ndarray) -> None:
    result = evaluate(truth, truth, ROI)
    assert result.nrmse < 1e-3 and result.amplitude_ssim > 0.999 and result.phase_ms_ssim > 0.999
    assert result.frc50 == 1.0 and result.frc_half_bit == 1.0 and not result.twin


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -0.81), (11.4, -7.3), (-25.0, 18.5)])
@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize("cycles", [(0.0, 0.0), (1.6, -3.2)])
def test_what_the_physics_leaves_free_costs_nothing(
    truth: np.ndarray, shift: tuple[float, float], twin: bool, cycles: tuple[float, float]
) -> None:
    changed = 0.3 * np.exp(-2j) * apply_shift_fourier(truth, shift) * ramp(truth.shape, cycles)
    if twin:
        changed = changed[::-1, ::-1].conj()
    result = evaluate(changed, truth, (60, 140, 60, 140))
    assert result.twin is twin
    assert result.nrmse < 0.012
    if not twin:
        np.testing.assert_allclose(result.shift_px, shift, atol=0.05)


@pytest.mark.parametrize("phase_range", [(-np.pi, np.pi), (0.0, 6.0)])
def test_strong_phases_are_judged_without_wrapping(phase_range: tuple[float, float]) -> None:
    true = OBJECTS["gaussian_random_field"]((160, 160), 1, phase_range_rad=phase_range).astype(complex)
    result = evaluate(np.exp(2.5j) * noisy(true, 0.01), true, (30, 130, 30, 130))
    assert result.nrmse < 0.03 and result.phase_psnr > 35


def test_reconstruction_of_another_size_is_laid_centre_on_centre(truth: np.ndarray) -> None:
    small, large = truth[20:-20, 31:-31], np.pad(truth, ((7, 8), (15, 16)), mode="edge")
    for rec in (small, large):
        result = evaluate(rec, truth, (60, 140, 60, 140))
        assert result.nrmse < 1e-2
    assert evaluate(small, truth).roi[0] >= 20


def test_an_origin_places_the_canvas(truth: np.ndarray) -> None:
    assert evaluate(truth[5:150, 40:200], truth, (60, 130, 60, 140), origin_xy=(40, 5)).nrmse < 1e-3


def test_resolution_is_given_in_metres_when_the_pixel_is_known(truth: np.ndarray) -> None:
    result = evaluate(blurred(truth, 3.0), truth, ROI, pixel_size_m=1e-8)
    assert 0.1 < result.frc50 < 0.9
    assert result.frc50_m == pytest.approx(1e-8 / result.frc50)  # half period at Nyquist is one pixel
    assert evaluate(truth, truth, ROI).frc50_m is None


def test_worse_pictures_get_worse_numbers(truth: np.ndarray) -> None:
    levels = [evaluate(noisy(truth, level), truth, ROI) for level in (0.01, 0.05, 0.2)]
    for key, order in (("nrmse", 1), ("amplitude_psnr", -1), ("phase_ssim", -1), ("phase_pearson", -1)):
        values = [order * getattr(result, key) for result in levels]
        assert values == sorted(values), key
    assert levels[0].as_dict()["nrmse"] == levels[0].nrmse


def test_a_flat_reconstruction_correlates_with_nothing(truth: np.ndarray) -> None:
    result = evaluate(np.ones_like(truth), truth, ROI)
    assert abs(result.phase_pearson) < 0.5 and result.nrmse_structure > 0.9
    assert np.isfinite(list(v for v in result.as_dict().values() if isinstance(v, float))).all()


def test_the_old_name_gives_pairs(truth: np.ndarray) -> None:
    old = eval_reconstruction(noisy(truth, 0.02)[None, ..., None], truth)
    assert set(old) >= {"mae", "mse", "psnr", "ssim", "ms_ssim", "frc50"}
    assert all(len(pair) == 2 and np.isfinite(pair).all() for pair in old.values())


def test_the_older_interface_gives_curves(truth: np.ndarray) -> None:
    image = noisy(truth, 0.3)
    old, new = eval_reconstruction(image, truth), evaluate(image, truth)
    for curve in old["frc"]:
        np.testing.assert_array_equal(curve, new.frc_curve.correlation)
    assert 0 < old["frc50"][0] <= old["frc1over7"][0] <= 1
    assert old["frc50"][0] == new.frc50


def test_the_older_options_are_accepted(truth: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    """Those that ask for another measure warn; the numbers are those without them."""
    silent = {"label": "run 1", "phase_align_method": "plane", "debug_save_images": False, "lowpass_n": 1}
    telling = {"phase_align_method": "mean", "frc_sigma": 2.0, "ms_ssim_sigma": 1.0, "lowpass_n": 4,
               "debug_save_images": True}  # fmt: skip
    plain = eval_reconstruction(noisy(truth, 0.1), truth)
    for options in (silent, telling):
        caplog.clear()
        assert eval_reconstruction(noisy(truth, 0.1), truth, **options)["psnr"] == plain["psnr"]
        warned = {record.args[0] for record in caplog.records if record.levelname == "WARNING"}
        assert warned == (set() if options is silent else set(telling))
    with pytest.raises(TypeError, match="phase_method"):
        eval_reconstruction(truth, truth, phase_method="plane")


BAD = {
    "nan": (lambda t: np.where(np.arange(t.size).reshape(t.shape) == 5, np.nan, t), {}, "NaN"),
    "3-d": (lambda t: t[None], {}, "shape"),
    "empty": (lambda t: t[:0], {}, "shape"),
    "zero": (lambda t: t * 0, {}, "zero"),
    "roi outside": (lambda t: t, {"roi": (0, 999, 0, 50)}, "roi"),
    "roi empty": (lambda t: t, {"roi": (50, 50, 0, 50)}, "roi"),
    "roi tiny": (lambda t: t, {"roi": (50, 55, 50, 90)}, "roi"),
    "no overlap": (lambda t: t, {"origin_xy": (5000, 0)}, "overlap"),
    "pixel size": (lambda t: t, {"pixel_size_m": -1.0}, "pixel_size_m"),
    "text": (lambda t: np.full(t.shape, "a"), {}, "dtype"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name: str, truth: np.ndarray) -> None:
    change, options, words = BAD[name]
    with pytest.raises(InputError, match=words) as caught:
        evaluate(change(truth), truth, **options)
    assert "\n" not in str(caught.value)


def test_the_quality_of_several_images_is_the_mean_of_those_that_can_be_judged() -> None:
    found = [{"psnr": 10.0, "ssim": 0.2}, {}, {"psnr": 20.0, "ssim": 0.4}]
    assert mean_quality(found) == pytest.approx({"psnr": 15.0, "ssim": 0.3})
    assert mean_quality([{}]) == mean_quality([]) == {}
