"""The table of PyTorch. See `ptycho.ops.table` for the meanings; only this file of the core imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# ------------------------------------------------------------------------------------------ shapes and kinds


def _real_dtype(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype


def shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.reshape(tuple(shape))


def broadcast_like(x: Tensor, like: Tensor) -> Tensor:
    return x.expand(like.shape)


def concat(parts: Sequence[Tensor], axis: int) -> Tensor:
    return torch.cat(tuple(parts), axis)


def pad(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    # torch lists the last axis first
    return torch.nn.functional.pad(x, [side for pair in reversed(widths) for side in pair])


def cast_like(x: Tensor, like: Tensor) -> Tensor:
    return x.to(_real_dtype(like.dtype))


def constant(values: NDArray[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device, _real_dtype(like.dtype))


def double(values: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64)).to(like.device)


def to_numpy(x: Tensor) -> NDArray[Any]:
    made: NDArray[Any] = x.detach().cpu().numpy()
    return made


def take(x: Tensor, rows: NDArray[np.int64]) -> Tensor:
    return x[torch.from_numpy(rows).to(x.device)]


def number(size: int, like: Tensor) -> int:
    return size


def sizes(x: Tensor) -> list[int]:
    return [int(value) for value in x.tolist()]


def repeat_index(n: int, times: int, like: Tensor) -> Tensor:
    return torch.arange(n, device=like.device).repeat_interleave(times)


def masked(x: Tensor, mask: Tensor) -> Tensor:
    return x[..., mask]


# -------------------------------------------------------------------------------------------------- elements

real, imag, conj, angle, abs = torch.real, torch.imag, torch.conj, torch.angle, torch.abs
#: torch's own gradient of the modulus is zero at zero
modulus = torch.abs
square, sqrt, log, exp = torch.square, torch.sqrt, torch.log, torch.exp
floor, ceil, atan2, times = torch.floor, torch.ceil, torch.atan2, torch.mul
maximum, where = torch.clamp_min, torch.where

# ------------------------------------------------------------------------------------------------ reductions

sum = torch.sum


def mean(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    return torch.mean(x, axis, keepdim=keepdims)


def max(x: Tensor, axis: int | None = None) -> Tensor:
    return torch.max(x) if axis is None else torch.amax(x, axis)


def min(x: Tensor, axis: int | None = None) -> Tensor:
    return torch.min(x) if axis is None else torch.amin(x, axis)


# ---------------------------------------------------------------------------------------------- whole images


def fft2(x: Tensor) -> Tensor:
    made: Tensor = torch.fft.fft2(x)
    return made


def fftshift(x: Tensor) -> Tensor:
    made: Tensor = torch.fft.fftshift(x, dim=(-2, -1))
    return made


def correlate(x: Tensor, taps: Sequence[float], axis: int) -> Tensor:
    total = None
    for start, tap in enumerate(taps):
        if tap:
            part = slice(start, start - len(taps) + 1 or None)
            shifted = tap * (x[..., part, :] if axis == -2 else x[..., part])
            total = shifted if total is None else total + shifted
    assert total is not None, "a filter has a tap that is not zero"
    return total


def stop_gradient(x: Tensor) -> Tensor:
    return x.detach()


def _split(corners_xy: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Whole-pixel corners (K, 2) int64 and the fractions fx, fy (K, 1, 1) of bilinear interpolation."""
    whole = torch.floor(corners_xy)
    fraction = (corners_xy - whole).to(_real_dtype(dtype))
    return whole.to(torch.int64), fraction[:, 0, None, None], fraction[:, 1, None, None]


def _flat_index(whole: Tensor, canvas: Tensor, side: int, height: int, width: int) -> Tensor:
    """Index (K, side, side) into n flattened canvases of height x width."""
    steps = torch.arange(side, device=whole.device)
    rows = whole[:, 1, None, None] + steps[None, :, None]
    columns = whole[:, 0, None, None] + steps[None, None, :]
    return (canvas[:, None, None] * height + rows) * width + columns


def splat(
    patches: Tensor, corners_xy: Tensor, canvas: Tensor, n_canvases: int, shape: tuple[int, int]
) -> Tensor:
    whole, fx, fy = _split(corners_xy, patches.dtype)
    zeros = torch.nn.functional.pad
    rows = (1 - fy) * zeros(patches, (0, 0, 0, 1)) + fy * zeros(patches, (0, 0, 1, 0))
    spread = (1 - fx) * zeros(rows, (0, 1)) + fx * zeros(rows, (1, 0))
    height, width = shape
    index = _flat_index(whole, canvas, patches.shape[-1] + 1, height, width)
    flat = torch.zeros(n_canvases * height * width, dtype=patches.dtype, device=patches.device)
    return flat.index_add(0, index.reshape(-1), spread.reshape(-1)).view(n_canvases, height, width)


def gather(canvases: Tensor, corners_xy: Tensor, canvas: Tensor, N: int) -> Tensor:
    whole, fx, fy = _split(corners_xy, canvases.dtype)
    index = _flat_index(whole, canvas, N + 1, canvases.shape[-2], canvases.shape[-1])
    window = canvases.reshape(-1)[index]
    rows = (1 - fy) * window[:, :-1] + fy * window[:, 1:]
    return (1 - fx) * rows[:, :, :-1] + fx * rows[:, :, 1:]
