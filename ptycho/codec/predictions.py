"""Predictions of frames: from a few common shapes, or from an object and a probe."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.codec.compress import Prediction
from ptycho.codec.counts import Counts, Survey
from ptycho.errors import ConfigError
from ptycho.io.compressed.levels import stabilised
from ptycho.io.compressed.prediction import MEAN_STEP, complex_steps, whole_steps

#: rounding adds this much to a prediction, in units of the Poisson standard deviation
_ADDED = 0.15
#: passes of the subspace iteration; additional directions beyond the rank
_PASSES, _SPARE = 3, 8
_BLOCK = 64


def lowrank_prediction(counts: Counts, survey: Survey, rank: int, seed: int = 0) -> Prediction:
    """The best `rank` shapes of the stabilised frames about their mean, and each frame's share of them.

    Randomised subspace iteration: Halko, Martinsson, Tropp, SIAM Rev. 53, 217 (2011), alg. 4.4. Time: 2 + 3
    passes, each O(M N^2 rank); memory: O((M + N^2) rank). Rank is cut to the number of frames. ConfigError
    below 1.
    """
    if rank < 1:
        raise ConfigError(f"rank = {rank}: must be at least 1")
    M, N, _ = counts.shape
    wanted = min(rank, M, N * N)
    width = min(wanted + _SPARE, M, N * N)
    mean_whole = whole_steps(survey.mean, MEAN_STEP)
    mean = (MEAN_STEP * mean_whole).reshape(-1)

    def rows() -> Any:
        for begin, part in counts.blocks(_BLOCK):
            yield begin, stabilised(part).reshape(len(part), -1) - mean

    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((N * N, width)))[0]
    for _ in range(_PASSES):
        pulled = np.zeros((N * N, width))
        for _, part in rows():
            pulled += part.T @ (part @ basis)
        basis = np.linalg.qr(pulled)[0]
    shares = np.empty((M, width))
    for begin, part in rows():
        shares[begin : begin + len(part)] = part @ basis
    _, values, turn = np.linalg.svd(shares, full_matrices=False)
    turn = turn[:wanted]
    weights, vectors = shares @ turn.T, turn @ basis.T
    # each vector has unit length, so the errors of `rank` weights are distributed over N^2 pixels
    weight_step = _ADDED * math.sqrt(12.0) * N / math.sqrt(2.0 * wanted)
    size = np.sqrt(np.mean(weights**2)) if weights.size else 1.0
    vector_step = _ADDED * math.sqrt(12.0) / max(size * math.sqrt(2.0 * wanted), 1e-12)
    arrays = {
        "mean": mean_whole,
        "weights": whole_steps(weights, weight_step),
        "vectors": whole_steps(vectors.reshape(-1, N, N), vector_step),
        "steps": np.array([weight_step, vector_step]),
    }
    return Prediction(arrays, {"rank": wanted, "largest_singular_value": float(values[0])})


def object_prediction(
    obj: NDArray[Any],
    probe: NDArray[Any],
    origin_xy: tuple[float, float],
    positions_px: NDArray[np.float64],
    coverage: NDArray[Any],
    *,
    alone: bool = False,
) -> Prediction:
    """A reconstruction as code: object (H, W) with its pixel [0, 0] at `origin_xy`, probe (P, N, N) in
    sqrt(counts), positions (M, 2) px, coverage (H, W) relative to its peak.

    Both images are rounded so that a predicted frame changes by a seventh of its Poisson noise. With `alone`
    (no difference from the counts is stored) the object changes by a seventh of its own noise, which is
    smaller because many frames cover each pixel.
    """
    N, M = int(probe.shape[-1]), len(positions_px)
    photons = float(np.sum(np.abs(probe) ** 2))
    fine = _ADDED * math.sqrt(3.0)
    object_step = fine * N / math.sqrt(max(photons, 1e-12))
    probe_step = fine
    if alone:
        seen = float(np.sum(coverage)) / max(float(np.max(coverage)), 1e-30)
        per_pixel = max(photons * M / max(seen, 1.0), 1e-12)
        object_step = min(object_step, _ADDED * math.sqrt(3.0 / per_pixel))
        probe_step = fine / math.sqrt(M)
    lit = np.asarray(coverage) > 0
    kept = np.where(lit, np.asarray(obj), 0.0)
    arrays = {
        "object": complex_steps(kept, object_step),
        "probe": complex_steps(np.asarray(probe).reshape(-1, N, N), probe_step),
        "steps": np.array([object_step, probe_step]),
        "origin_xy": np.asarray(origin_xy, np.float64),
        "positions_px": np.asarray(positions_px, np.float64),
    }
    about = {"object_shape": list(kept.shape), "modes": int(arrays["probe"].shape[1])}
    return Prediction(arrays, about)
