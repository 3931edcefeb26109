"""Compresses a scan to a file: makes the prediction of the method, then calls `ptycho.codec.compress`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ptycho import backends
from ptycho.codec.compress import Prediction, check_choice, compress
from ptycho.codec.counts import Counts, Survey, check_whole
from ptycho.codec.predictions import lowrank_prediction, object_prediction
from ptycho.errors import ConfigError
from ptycho.io.compressed.header import DEFAULT_METHOD, PREDICTING, Header
from ptycho.scan.raw_data import RawData

Progress = Callable[[int, int], None]


def compress_scan(
    raw: RawData,
    path: Path,
    method: str = DEFAULT_METHOD,
    *,
    step: float = 1.0,
    residual: bool = True,
    rank: int = 32,
    weights: Path | None = None,
    seed: int = 0,
    beside: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Header:
    """Write a compressed scan, completely or not at all; the header has the bits of a frame and the error.

    method, step, residual: see `ptycho.codec.compress.compress`. rank: shapes of 'lowrank'. weights: of
    'learned', None: the built-in ones. seed: of the reconstruction that 'object' makes first. beside: arrays
    and texts to keep with the scan (`ptycho.io.companions`). Time: two to five passes; for 'object' a
    reconstruction. Memory: one block of frames; for 'object' that of `ptycho reconstruct`. Raises
    ConfigError, DataError before anything is written.
    """
    check_choice(method, step, method in PREDICTING)
    if weights is not None and method != "learned":
        raise ConfigError(f"weights belong to method 'learned', not to {method!r}; leave them out")
    if rank < 1:
        raise ConfigError(f"rank = {rank}: must be at least 1")
    counts = Counts(raw)
    survey = counts.survey(progress)
    if method != "lossless":
        check_whole(survey, raw, method)
    prediction: Prediction | None = None
    if method == "lowrank":
        prediction = lowrank_prediction(counts, survey, rank, seed)
    elif method == "object":
        prediction = _object(raw, seed, not residual, progress)
    elif method == "learned":
        prediction = _learned(counts, survey, weights, progress)
    return compress(
        raw, path, method, step=step, prediction=prediction, residual=residual, survey=survey,
        beside=beside, progress=progress,
    )  # fmt: skip


def _object(raw: RawData, seed: int, alone: bool, progress: Progress | None) -> Prediction:
    if raw.probe_made:
        from ptycho.workflows.probe_choice import choose_probe

        raw = raw.with_probe(choose_probe(raw, seed=seed, progress=progress).probe)
    made = backends.engine().reconstruct(raw, seed=seed, progress=progress)
    found = object_prediction(
        made.object, made.probe, made.origin_xy, made.positions_px, made.coverage, alone=alone
    )
    return Prediction(found.arrays, {**found.about, "r_factor": made.r, "sweeps": len(made.history)})


def _learned(counts: Counts, survey: Survey, weights: Path | None, progress: Progress | None) -> Prediction:
    from ptycho_torch.codec.latents import learned_prediction

    known = None
    if weights is not None:
        from ptycho.io.tensors import read_tensors

        known, _ = read_tensors(weights)
    return learned_prediction(counts, survey, known, progress)
