"""Anchors of R agree with simulations at every dose, and the verdict neither flatters nor slanders."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.evaluation.dispersion import measure_dispersion, quanta_per_count
from ptycho.evaluation.rfactor import r_factor
from ptycho.report.evidence import r_limits
from ptycho.report.verdict import HeldOut, explained_share, judge_run
from ptycho.scan.orientation import reorient
from ptycho.scan.raw_data import RawData
from ptycho.simulation.scenario import Scenario, simulate
from ptycho.workflows.near_field import kernel, near_field
from ptycho.workflows.second_look import SecondLook, look_where_wrong


def scan(photons: float, **choices: object) -> object:
    return simulate(
        Scenario(object="lines", N=48, n_positions=120, step_px=3.5, photons=photons, seed=3, **choices)
    )


@pytest.mark.parametrize("photons", [1e2, 1e3, 1e4, 1e6, 1e8])
def test_noise_leaves_the_r_of_the_true_object(photons: float) -> None:
    made = scan(photons)
    raw, amplitude = made.raw, made.raw.amplitude()
    r = r_factor(made.object_true, made.probe_true, raw.xcoords, raw.ycoords, amplitude).whole
    limits = r_limits(
        amplitude, made.object_true, made.probe_true, raw.positions_px, (0.0, 0.0), counts_known=True
    )
    assert limits.noise == pytest.approx(r, rel=0.01)
    verdict = judge_run(
        r=r,
        noise=limits.noise,
        flat=limits.without_structure,
        even_share=limits.even,
        contrast_sigma=limits.sigma,
    )
    assert verdict.level in (("good",) if photons >= 1e3 else ("good", "none")), verdict


def test_noise_of_few_photons_is_no_verdict_whatever_the_image() -> None:
    made = scan(40.0)
    raw, amplitude = made.raw, made.raw.amplitude()
    wrong = np.ones_like(made.object_true)
    limits = r_limits(amplitude, wrong, made.probe_true, raw.positions_px, (0.0, 0.0), counts_known=True)
    verdict = judge_run(r=0.9, noise=limits.noise, flat=limits.flat, contrast_sigma=limits.sigma)
    assert verdict.level == "none" and "too few photons" in verdict.word


def test_a_spoiled_probe_does_not_raise_the_anchor() -> None:
    """An object of ones under a garbage probe leaves a large R; the mean pattern does not."""
    made = scan(1e5)
    raw, amplitude = made.raw, made.raw.amplitude()
    rng = np.random.default_rng(0)
    shape = made.probe_true.shape
    garbage = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    limits = r_limits(amplitude, made.object_true, garbage, raw.positions_px, (0.0, 0.0), counts_known=True)
    assert limits.flat > 0.5 > limits.without_structure


def test_a_constant_column_is_no_structure() -> None:
    """It is explained by the mean pattern, so an image gets nothing for it."""
    made = scan(1e5)
    raw, amplitude = made.raw, made.raw.amplitude().copy()
    amplitude[:, :, 5] = 2.0**16
    limits = r_limits(
        amplitude, made.object_true, made.probe_true, raw.positions_px, (0.0, 0.0), counts_known=True
    )
    assert limits.without_structure < 1e-3


def test_held_out_patterns_that_are_not_predicted_lower_the_verdict() -> None:
    good = {"r": 0.1, "noise": 0.09, "flat": 0.25}
    predicted = HeldOut(0.12, 0.25, 0.09, 20.0)
    missed = HeldOut(0.24, 0.25, 0.09, 1.0)
    assert judge_run(**good, held_out=predicted).level == "good"
    verdict = judge_run(**good, held_out=missed)
    assert verdict.level == "doubt" and "did not see" in verdict.reason


def test_r_under_the_noise_never_worked() -> None:
    assert judge_run(r=0.08, noise=0.09, flat=0.25).level == "doubt"


def test_a_prior_that_smooths_is_judged_by_the_image_before_it() -> None:
    anchors = {"noise": 0.325, "flat": 0.348}
    smooth = judge_run(r=0.3318, **anchors)
    assert smooth.level == "doubt"
    before = judge_run(r=0.3318, r_before_prior=0.3287, **anchors)
    assert (
        before.level == "good" and "Before the learned prior smoothed it, the image explains" in before.reason
    )
    assert judge_run(r=0.3318, r_before_prior=0.34, **anchors).reason == smooth.reason
    # an image that was wrong before is wrong after
    assert judge_run(r=0.345, r_before_prior=0.344, **anchors).level == "bad"


@pytest.mark.parametrize("pearson, level", [(0.849, "doubt"), (0.8500001, "good"), (0.399, "bad")])
def test_words_and_numbers_agree(pearson: float, level: str) -> None:
    verdict = judge_run(r=0.1, noise=0.09, flat=0.25, pearsons=(pearson, 0.99))
    shown = float(verdict.reason.split(" at ")[1].split()[0])
    assert verdict.level == level
    assert shown <= pearson and (shown >= 0.85) == (level == "good")


def test_per_cent_are_rounded_down() -> None:
    noise, flat = 0.09, 0.25
    r = float(np.sqrt(flat**2 - 0.7499 * (flat**2 - noise**2)))
    assert explained_share(r, noise, flat) == pytest.approx(0.7499)
    verdict = judge_run(r=r, noise=noise, flat=flat)
    assert verdict.level == "doubt" and "74 %" in verdict.reason


@pytest.mark.parametrize("gain, noise", [(1.0, 0.0), (25.0, 0.5), (0.01, 0.0)])
@pytest.mark.parametrize("photons", [1e3, 1e5])
def test_noise_that_is_not_of_photons_is_measured(gain: float, noise: float, photons: float) -> None:
    """The true object is called right on a detector that integrates, and not said to fit the noise."""
    made = scan(photons, probe="disk")
    rng = np.random.default_rng(5)
    values = np.maximum(gain * made.raw.diff3d + rng.normal(0, noise, made.raw.diff3d.shape), 0)
    found = measure_dispersion(values)
    assert found is not None and found.per_count == pytest.approx(gain, rel=0.25)
    amplitude = np.sqrt(values).astype(np.float32)
    raw = made.raw
    r = r_factor(made.object_true, made.probe_true, raw.xcoords, raw.ycoords, amplitude).whole
    limits = r_limits(
        amplitude, made.object_true, made.probe_true, raw.positions_px, (0.0, 0.0), counts_known=True
    )
    assert limits.noise == pytest.approx(r, rel=0.15)
    verdict = judge_run(
        r=r,
        noise=min(limits.noise, r),
        flat=limits.without_structure,
        even_share=limits.even,
        contrast_sigma=limits.sigma,
    )
    assert verdict.level in (("good",) if photons > 1e3 else ("good", "none")), verdict


@pytest.mark.parametrize("photons", [1e2, 1e4, 1e6, 1e9])
def test_counted_photons_are_known_at_every_dose(photons: float) -> None:
    assert quanta_per_count(measure_dispersion(scan(photons).raw.diff3d), True) == 1.0


@pytest.mark.parametrize("distance_px2", [6.0, 20.0])
def test_a_scan_behind_the_sample_is_told_from_the_far_field(distance_px2: float) -> None:
    made = scan(1e6)
    raw, N = made.raw, 48
    assert near_field(raw).sigma < -5
    through, light = kernel(N, distance_px2), []
    for x, y in np.round(raw.positions_px).astype(int):
        patch = made.object_true[y - N // 2 : y + N // 2, x - N // 2 : x + N // 2]
        light.append(np.abs(np.fft.ifft2(np.fft.fft2(made.probe_true[0] * patch) * through)) ** 2)
    arrays = raw.as_arrays() | {"diff3d": np.random.default_rng(0).poisson(np.stack(light))}
    found = near_field(RawData(**arrays))
    assert found.sigma > -2 and found.near > found.far
    held = HeldOut(0.12, 0.25, 0.09, 20.0, near_field=found.sigma)
    verdict = judge_run(r=0.1, noise=0.09, flat=0.25, held_out=held)
    assert verdict.level == "doubt" and "near-field" in verdict.reason


def test_a_sound_scan_under_a_wrong_probe_is_no_failure() -> None:
    assert judge_run(r=0.3, noise=0.09, flat=0.25).level == "bad"
    verdict = judge_run(r=0.3, noise=0.09, flat=0.25, held_out=HeldOut(0.12, 0.25, 0.09, 20.0))
    assert verdict.level == "doubt" and "probe may be another" in verdict.reason


def test_other_positions_that_fit_better_lower_the_verdict() -> None:
    held = HeldOut(0.12, 0.25, 0.09, 20.0, elsewhere=(0.1, 0.14))
    verdict = judge_run(r=0.1, noise=0.09, flat=0.25, held_out=held)
    assert verdict.level == "doubt" and "--orientation" in verdict.reason


def test_a_network_image_is_looked_at_again_where_it_looks_wrong() -> None:
    made = simulate(Scenario(object="cat_and_coins", N=32, n_positions=100, step_px=2.2, photons=1e5, seed=2))
    swapped = made.raw.moved_to(reorient(made.raw.positions_px, "swapped"))
    assert look_where_wrong(swapped, 0.02, made.probe_true) == SecondLook({}, [])
    found = look_where_wrong(swapped, 0.5, made.probe_true)
    assert "held_out_r" in found.metrics and any("--orientation swapped" in hint for hint in found.hints)
