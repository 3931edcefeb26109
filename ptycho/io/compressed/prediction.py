"""Predicts frames from a few arrays in the file: expected counts, float64.

Each prediction is a pure function of the arrays and the requested rows. Numbers are integer multiples of a
stored step. This makes the file small, and writer and reader predict the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.compressed.levels import expected_counts
from ptycho.io.compressed.network import decoded_frames, decoder_names
from ptycho.physics import diffract, shift_fourier

Arrays = Mapping[str, NDArray[Any]]
#: rows (begin, end) to expected counts (end - begin, N, N) float64
Predictor = Callable[[int, int], NDArray[np.float64]]
#: the mean frame is stored in multiples of this, on the stabilised axis
MEAN_STEP = 0.1


def whole_steps(values: NDArray[Any], step: float) -> NDArray[Any]:
    """Real numbers as whole multiples of a step, int16 where they fit, else int32. DataError beyond that."""
    scaled = np.rint(np.asarray(values, np.float64) / step)
    largest = float(np.abs(scaled).max(initial=0.0))
    if largest > np.iinfo(np.int32).max:
        raise DataError(f"a prediction reaches {largest:.3g} steps; the scan cannot be compressed this way")
    return scaled.astype(np.int16 if largest <= np.iinfo(np.int16).max else np.int32)


def complex_steps(values: NDArray[Any], step: float) -> NDArray[Any]:
    """Complex numbers (...) as whole multiples of a step, real and imaginary part first: (2, ...)."""
    return whole_steps(np.stack([values.real, values.imag]), step)


def predictor_of(method: str, arrays: Arrays, shape: tuple[int, int, int]) -> Predictor:
    """The prediction of a method; DataError if its arrays do not fit the frames."""
    try:
        made = _MAKERS[method](arrays, shape)
    except KeyError as error:
        raise DataError(f"the prediction of {method!r} lacks {error}") from None
    return made


def _lowrank(arrays: Arrays, shape: tuple[int, int, int]) -> Predictor:
    M, N, _ = shape
    weights, vectors = arrays["weights"], arrays["vectors"]
    mean, steps = arrays["mean"], arrays["steps"]
    rank = len(vectors)
    _check("mean", mean, (N, N))
    _check("weights", weights, (M, rank))
    _check("vectors", vectors, (rank, N, N))
    _check("steps", steps, (2,))
    basis = vectors.reshape(rank, N * N).astype(np.float64) * float(steps[1])

    def predict(begin: int, end: int) -> NDArray[np.float64]:
        parts = weights[begin:end].astype(np.float64) * float(steps[0])
        values = (parts @ basis).reshape(-1, N, N) + MEAN_STEP * mean
        return expected_counts(values)

    return predict


def _object(arrays: Arrays, shape: tuple[int, int, int]) -> Predictor:
    M, N, _ = shape
    steps, origin, places = arrays["steps"], arrays["origin_xy"], arrays["positions_px"]
    _check("steps", steps, (2,))
    _check("origin_xy", origin, (2,))
    _check("positions_px", places, (M, 2))
    if arrays["object"].ndim != 3 or arrays["probe"].ndim != 4 or arrays["probe"].shape[2:] != (N, N):
        raise DataError("the object or the probe of a compressed scan has the wrong shape")
    obj = _complex(arrays["object"], float(steps[0]))
    probe = _complex(arrays["probe"], float(steps[1]))
    height, width = obj.shape
    if height < N or width < N:
        raise DataError(f"the object of a compressed scan, {height} x {width}, is smaller than its frames")
    corner = places - N // 2 - origin
    whole = np.clip(np.rint(corner), 0, [width - N, height - N]).astype(np.int64)
    fraction = corner - whole

    def predict(begin: int, end: int) -> NDArray[np.float64]:
        frames = np.empty((end - begin, N, N))
        for row in range(begin, end):
            x, y = whole[row]
            moved = shift_fourier(probe, fraction[row])
            frames[row - begin] = diffract(obj[y : y + N, x : x + N], moved)
        return frames

    return predict


def _learned(arrays: Arrays, shape: tuple[int, int, int]) -> Predictor:
    M, N, _ = shape
    latents, mean, scale = arrays["latents"], arrays["mean"], arrays["scale"]
    _check("mean", mean, (N, N))
    _check("scale", scale, (1,))
    if latents.ndim != 4 or len(latents) != M:
        raise DataError(f"the latents of a compressed scan have shape {latents.shape}")
    own = {name: arrays[name] for name in decoder_names() if name in arrays}
    light = MEAN_STEP * mean.astype(np.float64)

    def predict(begin: int, end: int) -> NDArray[np.float64]:
        return expected_counts(decoded_frames(latents[begin:end], light, float(scale[0]), own or None))

    return predict


_MAKERS: dict[str, Callable[[Arrays, tuple[int, int, int]], Predictor]] = {
    "lowrank": _lowrank, "object": _object, "learned": _learned,
}  # fmt: skip


def _check(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise DataError(f"{name} of a compressed scan has shape {values.shape}; expected {shape}")


def _complex(parts: NDArray[Any], step: float) -> NDArray[np.complex128]:
    values = parts.astype(np.float64) * step
    return np.asarray(values[0] + 1j * values[1])
