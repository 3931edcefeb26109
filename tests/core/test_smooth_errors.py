"""The smooth part of position errors: what noise hides, what it cannot, and what is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.errors import InputError
from ptycho.warp.distortions import drift_and_hysteresis
from ptycho.warp.smooth_errors import misfit, smooth_errors, standard_errors

SIDE = 16
PLACES = 5.0 * np.stack([np.tile(np.arange(SIDE), SIDE), np.repeat(np.arange(SIDE), SIDE)], 1)
TRUE = drift_and_hysteresis(PLACES, (2.0, 4.0), (-3.0, 0.0))


def known(noise_px: float) -> np.ndarray:
    return np.tile(np.eye(2) / noise_px**2, (len(PLACES), 1, 1))


def rms(errors: np.ndarray) -> float:
    return float(np.sqrt((errors**2).sum(1).mean()))


def noisy(noise_px: float, seed: int = 0) -> np.ndarray:
    return TRUE + noise_px * np.random.default_rng(seed).normal(size=TRUE.shape)


def test_drift_and_hysteresis_come_out_of_the_noise() -> None:
    found = smooth_errors(noisy(0.2), known(0.2), PLACES)
    assert rms(found.errors_px - TRUE) < 0.4 * rms(noisy(0.2) - TRUE)
    assert found.model != "none" and any(row["kept"] for row in found.rows)


def test_noise_alone_gives_nothing() -> None:
    for seed in range(5):
        found = smooth_errors(noisy(0.2, seed) - TRUE, known(0.2), PLACES, seed=seed)
        assert found.model == "none" and not found.errors_px.any()


def test_patterns_that_lie_far_off_and_patterns_without_a_say_change_little() -> None:
    errors, weights = noisy(0.05), known(0.05)
    errors[::23] += 8.0
    errors[::17] -= 50.0
    weights[::17] = 0.0
    found = smooth_errors(errors, weights, PLACES)
    assert rms(found.errors_px - TRUE) < 0.1


def test_an_axis_that_is_known_better_counts_more() -> None:
    """x and y are measured along the diagonals, one of them badly."""
    turn = np.array([[1.0, 1.0], [-1.0, 1.0]]) / 2**0.5
    spread = np.array([0.02, 1.0])
    noise = np.random.default_rng(2).normal(size=TRUE.shape) * spread @ turn
    information = np.tile(turn.T @ np.diag(spread**-2) @ turn, (len(PLACES), 1, 1))
    proper, plain = (
        rms(smooth_errors(TRUE + noise, k, PLACES).errors_px - TRUE) for k in (information, known(0.7))
    )
    assert proper < plain


def test_rows_in_batches_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = smooth_errors(noisy(0.2), known(0.2), PLACES)
    monkeypatch.setattr("ptycho.warp.smooth_errors._ROWS", 37)
    parts = smooth_errors(noisy(0.2), known(0.2), PLACES)
    assert whole.model == parts.model and np.allclose(whole.errors_px, parts.errors_px, atol=1e-8)


def test_losses_and_shapes() -> None:
    assert misfit(np.array([[10.0, 0.0]]), np.eye(2)[None])[0] == pytest.approx(2.5 * 10 - 0.5 * 2.5**2)
    assert standard_errors([]) == 0.0
    with pytest.raises(InputError, match="do not belong together"):
        smooth_errors(TRUE, known(1.0)[:-1], PLACES)
