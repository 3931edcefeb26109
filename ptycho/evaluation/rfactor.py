"""How well a stitched object explains the measured patterns when it is diffracted again; no truth is
needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import InputError
from ptycho.io.lazy import Patterns
from ptycho.ops.team import ALONE, Team


@dataclass(frozen=True)
class RFactor:
    """R of the whole scan, R of each pattern (M,) float64, and the fitted amplitude scale (1 if none)."""

    whole: float
    per_pattern: NDArray[np.float64]
    scale: float


def r_factor(
    obj: ArrayLike,
    probe: ArrayLike,
    xcoords: ArrayLike,
    ycoords: ArrayLike,
    amplitude: ArrayLike | Patterns,
    origin_xy: tuple[float, float] = (0.0, 0.0),
    bad_pixels: ArrayLike | None = None,
    chunk: int = 64,
    fit_scale: bool = True,
    progress: Callable[[int, int], None] | None = None,
    unit: str = "amplitude",
    team: Team = ALONE,
) -> RFactor:
    """R = sqrt(sum (a |F| - sqrt I)^2 / sum I) of an object diffracted again at every sub-pixel position.

    |F|^2 = sum_p |FFT2_ortho(P_p(r - d) O[window])|^2: windows at whole pixels, the probe moved by the
    sub-pixel part d (Fourier shift). a is one scale for the whole scan, fitted by least squares when
    `fit_scale`. Shapes: obj (H, W) complex; probe (N, N) or (P, N, N) complex; xcoords, ycoords (M,) object
    px; origin_xy [x, y] is the object pixel of obj[0, 0]; amplitude (M, N, N) in `unit` ('amplitude', or
    'counts' to save a copy of the scan), zero frequency at (N//2, N//2); bad_pixels (N, N) bool, True =
    ignored. Windows that leave the canvas see its edge pixels repeated: beyond the canvas nothing is known,
    and repeating adds no edge that would diffract. Centres more than N/2 outside the canvas are refused.
    Time O(M P N^2 log N), memory canvas + chunk * P * N^2. Patterns without a photon get 0. Several
    processes (`team`) share the patterns. Raises InputError.

    >>> rng = np.random.default_rng(0)
    >>> obj, probe = np.exp(1j * rng.random((16, 16))), np.ones((8, 8))
    >>> x, y = [6.0, 8.0], [7.0, 9.5]
    >>> measured = predicted_amplitudes(obj, probe, x, y)
    >>> bool(r_factor(obj, probe, x, y, measured).whole < 1e-3)
    True
    >>> bool(r_factor(np.ones((16, 16)), probe, x, y, measured).whole > 0.1)
    True
    """
    canvas, modes, positions, measured, good = _checked(
        obj, probe, xcoords, ycoords, amplitude, origin_xy, bad_pixels, chunk, unit
    )
    M, N = len(positions), modes.shape[-1]
    padded = np.pad(canvas, N, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (N, N))
    # Sums over the pixels of |F|^2, |F| sqrt(I) and I: all that any scale needs, from one pass.
    sums = np.zeros((3, M))
    for begin in range(team.rank * chunk, M, team.size * chunk):
        part = slice(begin, min(begin + chunk, M))
        predicted = _amplitudes(windows, modes, positions[part])
        data = np.asarray(measured[part], np.float32)
        if unit == "counts":
            data = np.sqrt(data)
        # Detector pixels that are left out count in none of the sums.
        predicted, data = predicted * good, np.where(good, data, np.float32(0))
        for row, (a, b) in enumerate(((predicted, predicted), (predicted, data), (data, data))):
            sums[row, part] = np.einsum("mij,mij->m", a, b, dtype=np.float64)
        if progress is not None:
            progress(part.stop, M)
    team.add_up(sums)
    predicted_power, cross, power = sums
    if not power.sum() > 0:
        raise InputError(
            "amplitude is zero everywhere that is not a bad pixel; R is not defined: check the patterns"
        )
    scale = float(cross.sum() / predicted_power.sum()) if fit_scale and predicted_power.sum() > 0 else 1.0
    misfit = np.maximum(scale**2 * predicted_power - 2 * scale * cross + power, 0.0)
    each = np.sqrt(np.divide(misfit, power, out=np.zeros(M), where=power > 0))
    return RFactor(float(np.sqrt(misfit.sum() / power.sum())), each, scale)


def predicted_amplitudes(
    obj: ArrayLike,
    probe: ArrayLike,
    xcoords: ArrayLike,
    ycoords: ArrayLike,
    origin_xy: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float32]:
    """|F| of the object at the given positions, (M, N, N) float32; shapes and edges as for `r_factor`."""
    modes = np.asarray(probe)
    M, N = np.size(xcoords), modes.shape[-1]
    nothing = np.broadcast_to(np.float32(0), (M, N, N))
    canvas, modes, positions, _, _ = _checked(
        obj, probe, xcoords, ycoords, nothing, origin_xy, None, 1, "amplitude"
    )
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(canvas, N, mode="edge"), (N, N))
    return _amplitudes(windows, modes, positions)


def _amplitudes(
    windows: NDArray[Any], modes: NDArray[Any], positions: NDArray[np.float64]
) -> NDArray[np.float32]:
    from scipy import fft

    N = modes.shape[-1]
    whole = np.floor(positions + 0.5).astype(np.int64)
    fraction = positions - whole
    k = np.fft.fftfreq(N)
    ramp_y = np.exp(-2j * np.pi * k * fraction[:, 1, None]).astype(np.complex64)[:, :, None]
    ramp_x = np.exp(-2j * np.pi * k * fraction[:, 0, None]).astype(np.complex64)[:, None, :]
    # The canvas is padded by N on every side, so window row = centre row + N - N//2.
    patches = windows[whole[:, 1] + N - N // 2, whole[:, 0] + N - N // 2]
    intensity = np.zeros((len(positions), N, N), np.float32)
    for mode in modes:
        moved = fft.ifft2(fft.fft2(mode) * ramp_y * ramp_x, overwrite_x=True)
        wave = fft.fft2(moved * patches, norm="ortho", overwrite_x=True)
        intensity += wave.real**2 + wave.imag**2
    return np.fft.fftshift(np.sqrt(intensity), axes=(-2, -1))


def _checked(
    obj: ArrayLike,
    probe: ArrayLike,
    xcoords: ArrayLike,
    ycoords: ArrayLike,
    amplitude: ArrayLike | Patterns,
    origin_xy: tuple[float, float],
    bad_pixels: ArrayLike | None,
    chunk: int,
    unit: str,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64], Any, NDArray[np.bool_]]:
    canvas = np.asarray(obj)
    if canvas.ndim != 2 or canvas.size == 0:
        raise InputError(f"obj has shape {canvas.shape}; expected one canvas (H, W)")
    if not np.isfinite(canvas).all():
        raise InputError(
            "obj holds NaN or infinite values; replace the pixels that no patch reached by 1 or 0"
        )
    measured: Any = amplitude if hasattr(amplitude, "shape") else np.asarray(amplitude)
    if len(measured.shape) != 3 or measured.shape[1] != measured.shape[2]:
        raise InputError(f"amplitude has shape {tuple(measured.shape)}; expected (M, N, N)")
    M, N = measured.shape[:2]
    modes = np.asarray(probe)
    if modes.ndim == 2:
        modes = modes[None]
    if modes.ndim != 3 or modes.shape[1:] != (N, N):
        raise InputError(
            f"probe has shape {np.shape(probe)}; the patterns need ({N}, {N}) or modes (P, {N}, {N})"
        )
    coords = []
    for name, values, start in (("xcoords", xcoords, origin_xy[0]), ("ycoords", ycoords, origin_xy[1])):
        array = np.asarray(values, np.float64)
        if array.shape != (M,):
            raise InputError(
                f"{name} has shape {array.shape} but amplitude holds {M} patterns; they must match"
            )
        coords.append(array - float(start))
    positions = np.stack(coords, axis=1)
    limits = np.array([canvas.shape[1], canvas.shape[0]]) - 1
    inside = np.all((positions >= -N / 2) & (positions <= limits + N / 2), axis=1)
    if not inside.all():
        raise InputError(
            f"{np.count_nonzero(~inside)} positions lie over N/2 outside the canvas {canvas.shape}, first "
            f"pattern {int(np.argmin(inside))}: check origin_xy {tuple(origin_xy)} and the positions' unit"
        )
    good = np.ones((N, N), np.bool_) if bad_pixels is None else ~np.asarray(bad_pixels, np.bool_)
    if good.shape != (N, N):
        raise InputError(f"bad_pixels has shape {good.shape}; expected ({N}, {N})")
    if chunk < 1:
        raise InputError(f"chunk is {chunk}; at least 1 pattern must be processed at a time")
    if unit not in ("amplitude", "counts"):
        raise InputError(f"unit is {unit!r}; it must be 'amplitude' or 'counts'")
    return canvas.astype(np.complex64), modes.astype(np.complex64), positions, measured, good
