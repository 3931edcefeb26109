"""Compresses one scan to one file: survey, prediction, levels, error."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.codec.counts import Counts, Progress, Survey, check_whole
from ptycho.errors import ConfigError, DataError
from ptycho.io.compressed.file import EXACT_ARRAYS, block_of, write_compressed
from ptycho.io.compressed.header import METHODS, PREDICTING, Header
from ptycho.io.compressed.levels import folded, smallest_unsigned, stabilised, to_levels
from ptycho.io.compressed.prediction import Predictor, predictor_of
from ptycho.io.compressed.reading import decoded_block, predicted_levels
from ptycho.io.geometry import Geometry
from ptycho.scan.raw_data import RawData


@dataclass(frozen=True)
class Prediction:
    """The prediction of all frames by a method: arrays for `ptycho.io.compressed.prediction`, and numbers and
    text for the header.
    """

    arrays: Mapping[str, NDArray[Any]]
    about: dict[str, Any] = field(default_factory=dict)


def compress(
    raw: RawData,
    path: str | os.PathLike[str],
    method: str = "poisson",
    *,
    step: float = 1.0,
    prediction: Prediction | None = None,
    residual: bool = True,
    survey: Survey | None = None,
    beside: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Header:
    """Write a compressed scan, completely or not at all; the header has the bits of a frame and the error.

    method: 'lossless', bit for bit; 'poisson', counts in levels of `step` Poisson standard deviations; or one
    that predicts ('lowrank', 'object', 'learned'), whose `prediction` is given. residual: levels are stored
    as differences from the predicted levels, so the decoded counts equal those of 'poisson' for any
    prediction; without it frames are the expected counts, float32. survey: the result of `Counts.survey`, if
    known. beside: arrays and texts to keep with it (`ptycho.io.companions`). Labels (Y) are left out. Time:
    two passes and the prediction of each frame; memory: one block of frames. Raises ConfigError, DataError
    before anything is written.
    """
    check_choice(method, step, prediction is not None)
    counts = Counts(raw)
    found = counts.survey(progress) if survey is None else survey
    if method != "lossless":
        check_whole(found, raw, method)
    header = _header(raw, found, method, step, residual and method in PREDICTING)
    arrays = {} if prediction is None else dict(prediction.arrays)
    about = {} if prediction is None else prediction.about
    header = replace(header, parameters={**about, "brightest": found.brightest})
    predict = predictor_of(method, arrays, header.shape) if arrays else None
    lost = _Lost(raw.bad_pixels)
    stored = _stored_type(header, found)
    blocks = _blocks(counts, header, predict, lost, stored, progress)
    if stored is None:
        for _ in blocks:
            pass
    scan = {
        name: raw.as_arrays()[name] for name in EXACT_ARRAYS if not (raw.probe_made and name == "probeGuess")
    }
    return write_compressed(
        path, header, scan, arrays, blocks if stored is not None else None, stored,
        lambda made: replace(made, error_rms=lost.rms, error_max=lost.largest), beside,
    )  # fmt: skip


def check_choice(method: str, step: float, predicts: bool) -> None:
    """ConfigError for an unknown method, an invalid step or a missing prediction."""
    if method not in METHODS:
        raise ConfigError(f"method = {method!r}: must be one of {', '.join(METHODS)}")
    if not (math.isfinite(step) and 0.01 <= step <= 100):
        raise ConfigError(f"step = {step!r}: must lie between 0.01 and 100 Poisson standard deviations")
    if (method in PREDICTING) != predicts:
        need = "needs" if method in PREDICTING else "takes no"
        raise ConfigError(f"method = {method!r} {need} prediction")


def _header(raw: RawData, found: Survey, method: str, step: float, residual: bool) -> Header:
    shape = (raw.n_positions, raw.N, raw.N)
    original = np.dtype(raw.diff3d.dtype)
    lossless = method == "lossless"
    kept = original.kind in "ui"
    if lossless:
        dtype, unit = original, raw.diffraction_unit
    elif method in PREDICTING and not residual:
        dtype, unit = np.dtype(np.float32), "counts"
    else:
        dtype, unit = original if kept else smallest_unsigned(found.brightest), "counts"
    levels = method == "poisson" or residual
    known = {} if raw.geometry == Geometry() else raw.geometry.as_dict()
    return Header(
        method=method, shape=shape, dtype=dtype.str, unit=unit,
        original_dtype=original.str, original_unit=raw.diffraction_unit, sha256=found.sha256,
        step=step if levels else None, residual=residual, block=block_of(shape, 8),
        masked=0 if lossless or raw.bad_pixels is None else int(raw.bad_pixels.sum()),
        geometry=known, error_bound=0.0 if lossless else step if levels else None,
    )  # fmt: skip


def _stored_type(header: Header, found: Survey) -> np.dtype[Any] | None:
    """The type of `frames` in the file; None if no frames are stored."""
    if header.method == "lossless":
        own = np.dtype(header.dtype)
        narrow = own.kind in "ui" and found.lowest >= 0
        return smallest_unsigned(int(found.highest)) if narrow else own
    if header.step is None:
        return None
    highest = int(to_levels(found.brightest, header.step))
    return smallest_unsigned(2 * highest + 1 if header.residual else highest)


def _blocks(
    counts: Counts,
    header: Header,
    predict: Predictor | None,
    lost: _Lost,
    stored: np.dtype[Any] | None,
    progress: Progress | None,
) -> Iterator[NDArray[Any]]:
    """The stored values of each block of frames; `lost` gets the decoded counts."""
    M = header.shape[0]
    for begin in range(0, M, header.block):
        end = min(begin + header.block, M)
        expected = None if predict is None else predict(begin, end)
        if header.method == "lossless":
            yield np.ascontiguousarray(counts.original(begin, end), stored)
        else:
            given = counts[begin:end]
            made: NDArray[Any] | None = None
            if header.step is not None:
                levels = to_levels(given, header.step)
                if expected is not None:
                    levels = folded(levels - predicted_levels(expected, header))
                made = levels.astype(stored)
            lost.see(given, decoded_block(header, made, expected))
            if made is not None:
                yield made
        if progress is not None:
            progress(end, M)


class _Lost:
    """Differences between decoded and given counts on the stabilised axis, outside bad pixels."""

    def __init__(self, bad: NDArray[np.bool_] | None) -> None:
        self._good = None if bad is None else ~bad
        self._squares, self._number, self.largest = 0.0, 0, 0.0

    def see(self, given: NDArray[np.int64], decoded: NDArray[Any]) -> None:
        """Count a block in."""
        wrong = np.abs(stabilised(decoded) - stabilised(given))
        if self._good is not None:
            wrong = wrong[:, self._good]
        if not np.isfinite(wrong).all():
            raise DataError("a decoded frame is not finite; the scan cannot be compressed this way")
        self._squares += float(np.sum(wrong**2))
        self._number += wrong.size
        self.largest = max(self.largest, float(wrong.max(initial=0.0)))

    @property
    def rms(self) -> float:
        """Root mean square so far."""
        return math.sqrt(self._squares / max(self._number, 1))
