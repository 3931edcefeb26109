"""Anchors of R agree with simulations at every dose, and the verdict neither flatters nor slanders."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.evaluation.rfactor import r_factor
from ptycho.report.evidence import r_limits
from ptycho.report.verdict import HeldOut, explained_share, judge_run
from ptycho.simulation.scenario import Scenario, simulate


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
