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


def _scan(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places of 24 x 24 patterns, and noise that patterns within 4 px of each other share."""
    places = np.stack(np.meshgrid(np.arange(24.0), np.arange(24.0)), -1).reshape(-1, 2)
    blocks = rng.standard_normal((6, 6, 2))
    shared = blocks[places[:, 1].astype(int) // 4, places[:, 0].astype(int) // 4]
    return places, 0.2 * shared + 0.05 * rng.standard_normal(places.shape)


def test_noise_that_neighbours_share_is_not_taken_for_an_error() -> None:
    for seed in range(4):
        places, noise = _scan(np.random.default_rng(seed))
        information = np.tile(400 * np.eye(2), (len(places), 1, 1))
        alone = smooth_errors(noise, information, places)
        together = smooth_errors(noise, information, places, shared_px=4.0)
        assert np.abs(alone.errors_px).max() > 0.1  # single patterns that are held out do not tell
        assert np.abs(together.errors_px).max() == 0.0


def test_an_error_of_each_axis_takes_few_numbers() -> None:
    places, noise = _scan(np.random.default_rng(9))
    share = places / 23.0
    true = np.stack([6 * share[:, 0] * (1 - share[:, 0]), 4 * np.exp(-share[:, 1])], 1)
    information = np.tile(400 * np.eye(2), (len(places), 1, 1))

    def off(shared_px: float) -> float:
        left = smooth_errors(true + noise, information, places, shared_px=shared_px).errors_px - true
        return float(np.sqrt(((left - left.mean(0)) ** 2).sum(1).mean()))

    assert smooth_errors(true + noise, information, places, shared_px=4.0).model.startswith("axes")
    # seven numbers an axis from 36 independent errors of 0.2 px
    assert off(4.0) < 1.2 * 0.2 * np.sqrt(2 * 7 / 36)
    assert off(4.0) < 0.7 * off(0.0)
