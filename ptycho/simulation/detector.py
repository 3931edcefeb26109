"""A photon-counting detector: whole photons, and dead pixels that count none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def count_photons(intensity: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.int32]:
    """Poisson counts of an expected intensity (any shape, photons, below 2^31): int32 of the same shape."""
    return rng.poisson(intensity).astype(np.int32)


def dead_pixels(N: int, fraction: float, seed: int = 0) -> NDArray[np.bool_]:
    """A random map (N, N) bool with round(fraction N^2) pixels True = ignore."""
    mask = np.zeros(N * N, np.bool_)
    chosen = np.random.default_rng(seed).choice(N * N, size=round(fraction * N * N), replace=False)
    mask[chosen] = True
    return mask.reshape(N, N)
