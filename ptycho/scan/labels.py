"""Supervised labels: the piece of the object under each pattern, at that pattern's own position."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 256


def cut_patches(obj: NDArray[Any], positions_px: NDArray[np.float64], N: int) -> NDArray[np.complex64]:
    """Patches (..., N, N) complex64 of `obj` (H,W) at positions (..., 2) px [x, y]; bilinear, zero outside.

    In the gauge of `obj`. Time O(n N^2), memory the result and one chunk of 256 patches in complex128.

    >>> cut_patches(np.arange(64.0).reshape(8, 8), np.array([[4.0, 3.0]]), 2).real.tolist()
    [[[19.0, 20.0], [27.0, 28.0]]]
    """
    from ptycho.physics import extract

    flat = positions_px.reshape(-1, 2)
    patches = np.empty((len(flat), N, N), dtype=np.complex64)
    for begin in range(0, len(flat), _CHUNK):
        part = flat[begin : begin + _CHUNK]
        patches[begin : begin + _CHUNK] = extract(obj, part[:, 0], part[:, 1], N)
    return patches.reshape(*positions_px.shape[:-1], N, N)
