"""The illumination: one array shape for all inputs of clients, masks, and orthogonal modes.

Its power gauge is in `ptycho.scan.normalization.normalize_probe`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError

Modes = NDArray[np.complex64]


def as_modes(probe: NDArray[Any]) -> Modes:
    """Incoherent modes (P,N,N) complex64 from (N,N), (N,N,1) or (P,N,N), real or complex.

    Raises DataError for other shapes and for non-numeric values.

    >>> [as_modes(np.ones(shape)).shape for shape in ((8, 8), (8, 8, 1), (3, 8, 8))]
    [(1, 8, 8), (1, 8, 8), (3, 8, 8)]
    """
    array = np.asarray(probe)
    if array.dtype.kind not in "uifc":
        raise DataError(f"probeGuess has dtype {array.dtype}; it must be complex numbers")
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[2] == 1 and array.shape[0] == array.shape[1]:
        array = np.moveaxis(array, 2, 0)
    if array.ndim != 3 or array.shape[1] != array.shape[2] or 0 in array.shape:
        raise DataError(f"probeGuess has shape {np.shape(probe)}; expected (N,N), (N,N,1) or modes (P,N,N)")
    return np.ascontiguousarray(array, dtype=np.complex64)


def probe_mask(N: int, sigma: float = 1.0, diameter: float | None = None) -> NDArray[np.float32]:
    """Soft disk (N,N) float32 around (N//2, N//2), in [0, 1]: 1/2 on the circle of `diameter` px (default
    N/2).

    The edge falls like the integral of a Gaussian of standard deviation `sigma` px; sigma 0 gives a hard
    edge.

    >>> mask = probe_mask(16, sigma=0, diameter=8)
    >>> mask[8, 8:14].tolist()  # from the centre outwards
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    """
    width = N / 2 if diameter is None else float(diameter)
    if not (math.isfinite(width) and width > 0):
        raise DataError(f"probe_mask_diameter is {diameter}; it must be a positive number of pixels")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise DataError(f"probe_mask_sigma is {sigma}; it must be zero or a positive number of pixels")
    inside = width / 2 - radius_px(N)
    if sigma == 0:
        return (inside >= 0).astype(np.float32)
    from scipy.special import ndtr

    return np.asarray(ndtr(inside / sigma), dtype=np.float32)


def radius_px(N: int) -> NDArray[np.float64]:
    """Distance of every pixel from (N//2, N//2), (N,N) float64 px.

    >>> radius_px(4)[2].tolist()
    [2.0, 1.0, 0.0, 1.0]
    """
    axis = np.arange(N, dtype=np.float64) - N // 2
    return np.hypot(axis[:, None], axis[None, :])


def orthogonalise_modes(modes: NDArray[Any]) -> Modes:
    """Mutually orthogonal modes of the same mixed state, strongest first, (P,N,N) complex64.

    sum_p |P_p|^2 does not change at any pixel, and neither does any diffraction pattern. The modes are
    rotated by the unitary matrix that makes their Gram matrix diagonal (Thibault & Menzel, Nature 494, 68
    (2013)).

    >>> modes = np.random.default_rng(0).standard_normal((2, 4, 4))
    >>> a, b = orthogonalise_modes(modes)
    >>> bool(abs(np.vdot(a, b)) < 1e-5), bool(np.vdot(a, a).real >= np.vdot(b, b).real)
    (True, True)
    """
    stack = as_modes(modes)
    flat = stack.reshape(len(stack), -1).astype(np.complex128)
    _, rotation = np.linalg.eigh(flat @ flat.conj().T)
    rotated = rotation[:, ::-1].conj().T @ flat
    return rotated.reshape(stack.shape).astype(np.complex64)


def illuminated_diameter_px(probe: NDArray[Any], fraction: float = 0.9) -> float:
    """Diameter in px of the disk around the probe's centre of mass that holds `fraction` of its power.

    >>> round(illuminated_diameter_px(probe_mask(64, sigma=0, diameter=20), fraction=1.0), 1)
    20.0
    """
    intensity = np.sum(np.abs(as_modes(probe)).astype(np.float64) ** 2, axis=0)
    total = intensity.sum()
    if not total > 0:
        raise DataError("the probe is zero or not finite: it has no diameter")
    rows, columns = np.indices(intensity.shape)
    row, column = (rows * intensity).sum() / total, (columns * intensity).sum() / total
    radius = np.hypot(rows - row, columns - column).ravel()
    order = np.argsort(radius, kind="stable")
    held = np.cumsum(intensity.ravel()[order])
    # A single pixel has area 1, so the radius is at least sqrt(1 / pi).
    outer = min(int(np.searchsorted(held, fraction * total)), len(order) - 1)
    return 2 * max(float(radius[order[outer]]), math.sqrt(1 / math.pi))
