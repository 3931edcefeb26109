"""What R is held against: an image without structure, and the noise of the counts alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def poisson_misfit(mean: Floats) -> Floats:
    """E (sqrt n - sqrt mean)^2 of Poisson counts n, any shape; tends to 1/4 where photons are many."""
    grid = np.concatenate([[0.0], np.geomspace(1e-4, 60.0, 240)])
    n = np.arange(160)
    log_factorial = np.cumsum(np.log(np.maximum(n, 1)))
    weights = np.exp(n * np.log(np.maximum(grid, 1e-300))[:, None] - grid[:, None] - log_factorial)
    root = weights @ np.sqrt(n)
    table = np.maximum(2 * grid - 2 * np.sqrt(grid) * root, 0.0)
    # Beyond the table its series: 1/4 + 7/(64 mean) is right to a part in ten thousand.
    many = 0.25 + 7 / (64 * np.maximum(mean, 1.0))
    return np.asarray(np.where(mean < grid[-1], np.interp(mean, grid, table), many))


def poisson_noise_r(mean: Floats) -> float:
    """R that Poisson noise leaves around these mean counts, one scale fitted as R fits it.

    R^2 = min over a of E sum (sqrt n - a sqrt mean)^2 / sum mean = 1 - (sum sqrt(mean) E sqrt n)^2 / (sum
    mean)^2. Without the fitted scale few photons would seem noisier than they are: their square roots are low
    on average, and the scale takes that up. `mean` must sum to the counts that were measured.
    """
    total = float(mean.sum())
    if total <= 0:
        return 1.0
    # E (sqrt n - sqrt mean)^2 = 2 mean - 2 sqrt(mean) E sqrt n
    cross = total - 0.5 * float(poisson_misfit(mean).sum())
    return float(np.sqrt(max(1.0 - (cross / total) ** 2, 0.0)))


def mean_pattern_r(amplitude: Floats, mean: Floats) -> float:
    """R of patterns (M,N,N) where each is taken to be the mean pattern (N,N), amplitudes, one scale fitted.

    This is what an object without structure leaves under the best of all probes, so no probe can raise it.
    """
    cross = float((amplitude * mean).sum())
    power = float((amplitude**2).sum())
    own = len(amplitude) * float((mean**2).sum())
    if power <= 0 or own <= 0:
        return 0.0
    return float(np.sqrt(max(power - cross**2 / own, 0.0) / power))
