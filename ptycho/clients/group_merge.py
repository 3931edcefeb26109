"""The C patches of a group as one patch around the group's mean, for clients that know one place a group.

ptychodus stitches whatever `predict` returns with one offset a group; patches that lie at different places
must be brought together before. The same mean as the merge of training (`ptycho.physics.merge`), cut to
N x N and computed for many groups at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.physics import MERGE_EPSILON


def merge_groups(
    patches: NDArray[np.complex64], local_offsets: NDArray[Any], window: NDArray[Any]
) -> NDArray[np.complex64]:
    """Weighted mean (B, N, N) complex64 of the patches of each group, each at its own place (bilinear).

    Shapes: patches (B, C, N, N) complex; local_offsets (B, 1, 2, C) px [x, y], mean minus position, as
    `PtychoDataContainer.local_offsets`; window (N, N) weights, such as |P|^2. Pixel (N//2, N//2) is the
    group's mean; pixels that no patch reaches are zero. Raises DataError for other shapes of the offsets.
    Time and memory O(B C N^2).
    """
    B, C, N, _ = patches.shape
    offsets = np.asarray(local_offsets, np.float64)
    if offsets.shape != (B, 1, 2, C):
        raise DataError(f"local_offsets have shape {offsets.shape}; expected {(B, 1, 2, C)}, [x, y] in px")
    if not np.isfinite(offsets).all():
        raise DataError("local_offsets hold NaN or infinite values")
    weight = (np.asarray(window, np.float32) / np.max(window) + np.float32(MERGE_EPSILON)).astype(np.float32)
    total = np.zeros((B, N, N), np.complex64)
    weights = np.zeros((B, N, N), np.float32)
    for k in range(C):
        shift = -offsets[:, 0, :, k]
        total += _moved(weight * patches[:, k], shift)
        weights += _moved(np.broadcast_to(weight, (B, N, N)), shift)
    return np.divide(total, weights, out=np.zeros_like(total), where=weights > 0)


def _moved(images: NDArray[Any], shift_xy: NDArray[np.float64]) -> NDArray[Any]:
    """Content of images (B, N, N) moved by +shift (B, 2) px, bilinear, zero fill."""
    rows = _moved_along(images, shift_xy[:, 1], 1)
    return _moved_along(rows, shift_xy[:, 0], 2)


def _moved_along(images: NDArray[Any], shift: NDArray[np.float64], axis: int) -> NDArray[Any]:
    N = images.shape[axis]
    whole = np.floor(shift).astype(np.int64)
    fraction = (shift - whole).astype(np.float32)[:, None, None]
    source = np.arange(N)[None, :] - whole[:, None]

    def taken(index: NDArray[np.int64]) -> NDArray[Any]:
        inside = (index >= 0) & (index < N)
        shape = (len(index), N, 1) if axis == 1 else (len(index), 1, N)
        found = np.take_along_axis(images, np.clip(index, 0, N - 1).reshape(shape), axis=axis)
        kept: NDArray[Any] = found * inside.reshape(shape).astype(np.float32)
        return kept

    moved: NDArray[Any] = (1 - fraction) * taken(source) + fraction * taken(source - 1)
    return moved
