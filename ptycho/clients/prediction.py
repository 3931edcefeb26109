"""The call `predict` of a client: scaled input and offsets in, patches out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.clients.group_merge import merge_groups
from ptycho.config.settings import ModelConfig
from ptycho.errors import DataError


def predict_scaled(
    inputs: Sequence[Any],
    model: ModelConfig,
    scale: float,
    predict: Callable[[NDArray[np.float32]], NDArray[np.complex64]],
    batch_size: int,
    *,
    window: NDArray[Any] | None = None,
) -> NDArray[np.complex64]:
    """The call that clients know: patches from [X * intensity_scale (B, N, N, C), local_offsets].

    `predict` takes x (b, C, N, N) and gives (b, C_out, N, N). Without offsets, or with one patch a group, the
    answer is (B, N, N, C_out). With offsets (B, 1, 2, C) and a `window` (N, N) of weights, such as |P|^2, the
    patches of a group are merged around the group's mean, which is where clients put them: (B, N, N, 1).
    Raises DataError for another shape. Memory: the answer and one batch.
    """
    scaled = np.asarray(inputs[0], np.float32)
    wanted = (model.N, model.N, model.gridsize**2)
    if scaled.ndim != 4 or scaled.shape[1:] != wanted:
        raise DataError(
            f"predict: input has shape {scaled.shape}; this model takes "
            f"(B, {wanted[0]}, {wanted[1]}, {wanted[2]})"
        )
    offsets = np.asarray(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else None
    if offsets is not None and len(offsets) != len(scaled):
        raise DataError(f"predict: {len(scaled)} groups but local_offsets of {len(offsets)}")
    x = np.ascontiguousarray(np.moveaxis(scaled, -1, 1)) / np.float32(scale)
    parts = []
    for begin in range(0, len(x), batch_size):
        patches = predict(x[begin : begin + batch_size])
        if offsets is not None and window is not None and patches.shape[1] > 1:
            patches = merge_groups(patches, offsets[begin : begin + batch_size], window)[:, None]
        parts.append(patches)
    return np.moveaxis(np.concatenate(parts), 1, -1)
