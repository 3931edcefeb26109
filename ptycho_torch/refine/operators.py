"""Windows on the canvas and exact sub-pixel shifts: the only operators an iterative solver needs.

A solver visits every pattern many times, so the windows are plain slices (CPU) or one gather (other
devices), and the sub-pixel part of a position is a phase ramp on the probe's spectrum: exact for a
band-limited probe, unitary, and its adjoint is the conjugate ramp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ptycho.image.canvas import check_canvas


@dataclass(frozen=True)
class Canvas:
    """The frame of a canvas: its shape (height, width) and the object pixel [x, y] of canvas[0, 0]."""

    shape: tuple[int, int]
    origin_xy: tuple[int, int]

    @staticmethod
    def around(positions_xy: np.ndarray, n: int, margin_px: int = 1) -> Canvas:
        """The smallest canvas that holds every N x N window of (M, 2) centres, plus a margin for moves."""
        low = np.floor(positions_xy.min(0)).astype(int) - n // 2 - margin_px
        high = np.ceil(positions_xy.max(0)).astype(int) - n // 2 + n + margin_px
        width, height = (high - low).tolist()
        check_canvas((height, width))
        return Canvas((height, width), (int(low[0]), int(low[1])))


def split_positions(positions_xy: Tensor, canvas: Canvas, n: int) -> tuple[Tensor, Tensor]:
    """Whole and fractional part of window corners.

    positions_xy (M, 2) float64 centres [x, y] in object pixels -> corners_yx (M, 2) int64 on the canvas,
    kept inside it, and fraction_xy (M, 2) float64 that the probe is moved by.
    """
    origin = torch.tensor(canvas.origin_xy, dtype=positions_xy.dtype, device=positions_xy.device)
    corner = positions_xy - n // 2 - origin
    limit = torch.tensor([canvas.shape[1] - n, canvas.shape[0] - n], dtype=corner.dtype, device=corner.device)
    whole = torch.minimum(corner.round().clamp_min(0), limit)
    return whole.flip(-1).to(torch.int64), corner - whole


class _Windows(torch.autograd.Function):
    """`gather` for autograd, with `scatter_add` as its gradient: a plain indexed view would be far slower."""

    @staticmethod
    def forward(ctx: Any, canvas: Tensor, corners_yx: Tensor, n: int) -> Tensor:
        ctx.shape = canvas.shape
        ctx.save_for_backward(corners_yx)
        return gather(canvas.detach(), corners_yx, n)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (corners_yx,) = ctx.saved_tensors
        total = torch.zeros(ctx.shape, dtype=gradients[0].dtype, device=gradients[0].device)
        scatter_add(total, gradients[0], corners_yx)
        return total, None, None


def gather(canvas: Tensor, corners_yx: Tensor, n: int) -> Tensor:
    """Cut (B, N, N) windows out of a (H, W) canvas; differentiable in the canvas."""
    if canvas.requires_grad:
        return cast(Tensor, _Windows.apply(canvas, corners_yx, n))
    if canvas.device.type == "cpu":
        plain = canvas.detach().numpy()
        windows = [plain[y : y + n, x : x + n] for y, x in corners_yx.tolist()]
        if not windows:
            return canvas.new_zeros((0, n, n))
        return torch.from_numpy(np.stack(windows))
    return gather_indexed(canvas, corners_yx, n)


def gather_indexed(canvas: Tensor, corners_yx: Tensor, n: int) -> Tensor:
    """`gather` in one indexing operation, for devices on which a loop of slices is slow (kernel launches)."""
    view = canvas.unfold(0, n, 1).unfold(1, n, 1)
    return view[corners_yx[:, 0], corners_yx[:, 1]]


def scatter_add(canvas: Tensor, patches: Tensor, corners_yx: Tensor) -> None:
    """Add (B, N, N) patches onto a (H, W) canvas in place: the adjoint of `gather`, in a fixed order."""
    n = patches.shape[-1]
    if canvas.device.type == "cpu":
        target, source = canvas.numpy(), patches.detach().resolve_conj().numpy()
        for patch, (y, x) in zip(source, corners_yx.tolist(), strict=True):
            target[y : y + n, x : x + n] += patch
        return
    scatter_add_indexed(canvas, patches, corners_yx)


def scatter_add_indexed(canvas: Tensor, patches: Tensor, corners_yx: Tensor) -> None:
    """`scatter_add` as one indexing, for devices other than the CPU."""
    n = patches.shape[-1]
    steps = torch.arange(n, device=canvas.device)
    rows = corners_yx[:, 0, None, None] + steps[:, None]
    columns = corners_yx[:, 1, None, None] + steps
    # index_put_ with accumulate sorts its indices, so the sum does not depend on thread order
    canvas.index_put_((rows.expand_as(patches), columns.expand_as(patches)), patches, accumulate=True)


def fft2(x: Tensor, norm: str = "backward") -> Tensor:
    """`torch.fft.fft2`, also for zero patterns: a process may have no pattern of a small batch."""
    return torch.fft.fft2(x, norm=norm) if x.numel() else x.to(torch.promote_types(x.dtype, torch.complex64))


def ifft2(x: Tensor, norm: str = "backward") -> Tensor:
    """`torch.fft.ifft2`, also for zero patterns."""
    return torch.fft.ifft2(x, norm=norm) if x.numel() else x.to(torch.promote_types(x.dtype, torch.complex64))


def shift_ramps(fraction_xy: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """Spectral ramps (B, N, N) exp(-2 pi i (kx dx + ky dy)) that move an image by +fraction pixels."""
    k = torch.fft.fftfreq(n, dtype=torch.float64, device=fraction_xy.device)
    phase = -2 * torch.pi * fraction_xy[:, :, None] * k
    line = torch.polar(torch.ones_like(phase), phase).to(dtype)
    return line[:, 1, :, None] * line[:, 0, None, :]


def shift_fourier(images: Tensor, ramps: Tensor) -> Tensor:
    """Images (P, N, N) moved by each of (B, N, N) ramps -> (B, P, N, N)."""
    return ifft2(fft2(images)[None] * ramps[:, None])


def unshift_sum(images: Tensor, ramps: Tensor) -> Tensor:
    """Adjoint of `shift_fourier`: (B, P, N, N) moved back and summed over B -> (P, N, N)."""
    return ifft2((fft2(images) * ramps.conj()[:, None]).sum(0))


def power(field: Tensor) -> Tensor:
    """|z|^2 without the slow hypot of abs()."""
    if not field.is_complex():
        return field * field
    if field.device.type == "cpu" and not field.requires_grad:
        # NumPy squares every second number much faster; the rounding is the same
        squared = torch.from_numpy(np.square(field.resolve_conj().numpy().real))
        return squared.addcmul_(field.imag, field.imag)
    return torch.addcmul(field.real * field.real, field.imag, field.imag)
