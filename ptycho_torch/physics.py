"""The forward model in torch: differentiable twins of `ptycho.physics`, batched over groups.

Letters: B groups, C patterns a group, K patches in a flat list, P probe modes, N patch side, S canvas side.
Positions and shifts are [x, y] in pixels, float64, sub-pixel exact; arrays are [row, column].
`splat` and `gather` are adjoint to each other and serve every route: the merge inside a group, the region
canvas of training, and the stitched image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ptycho.physics import MERGE_EPSILON, RATE_EPSILON

__all__ = [
    "amplitude", "central_window", "diffract", "extract_group", "gather", "merge", "merge_and_extract",
    "propagate", "rate", "splat",
]  # fmt: skip


def _split(corners_xy: Tensor, real: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Whole-pixel corners (K, 2) int64 and the fractions fx, fy (K, 1, 1) of bilinear interpolation."""
    whole = torch.floor(corners_xy)
    fraction = (corners_xy - whole).to(real)
    return whole.to(torch.int64), fraction[:, 0, None, None], fraction[:, 1, None, None]


def _flat_index(whole: Tensor, canvas: Tensor, side: int, height: int, width: int) -> Tensor:
    """Index (K, side, side) into n flattened canvases of height x width."""
    steps = torch.arange(side, device=whole.device)
    rows = whole[:, 1, None, None] + steps[None, :, None]
    columns = whole[:, 0, None, None] + steps[None, None, :]
    return (canvas[:, None, None] * height + rows) * width + columns


def _real_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.empty((), dtype=dtype).real.dtype


def splat(
    patches: Tensor, corners_xy: Tensor, canvas: Tensor, n_canvases: int, shape: tuple[int, int]
) -> Tensor:
    """Add every patch to its canvas at its own sub-pixel place (bilinear).

    Shapes: patches (K, N, N) real or complex; corners_xy (K, 2) float64, the canvas pixel under patch pixel
    (0, 0), at least 0 and at most side - N - 1; canvas (K,) int64, which canvas; returns (n_canvases, H, W).
    Time and memory O(K N^2). Deterministic on the CPU.
    """
    whole, fx, fy = _split(corners_xy, _real_dtype(patches.dtype))
    pad = torch.nn.functional.pad
    rows = (1 - fy) * pad(patches, (0, 0, 0, 1)) + fy * pad(patches, (0, 0, 1, 0))
    spread = (1 - fx) * pad(rows, (0, 1)) + fx * pad(rows, (1, 0))
    height, width = shape
    index = _flat_index(whole, canvas, patches.shape[-1] + 1, height, width)
    flat = torch.zeros(n_canvases * height * width, dtype=patches.dtype, device=patches.device)
    return flat.index_add(0, index.reshape(-1), spread.reshape(-1)).view(n_canvases, height, width)


def gather(canvases: Tensor, corners_xy: Tensor, canvas: Tensor, N: int) -> Tensor:
    """Cut the patch under every corner out of its canvas (bilinear): the adjoint of `splat`.

    Shapes: canvases (n, H, W); corners_xy (K, 2) float64; canvas (K,) int64; returns (K, N, N).
    """
    whole, fx, fy = _split(corners_xy, _real_dtype(canvases.dtype))
    index = _flat_index(whole, canvas, N + 1, canvases.shape[-2], canvases.shape[-1])
    window = canvases.reshape(-1)[index]
    rows = (1 - fy) * window[:, :-1] + fy * window[:, 1:]
    return (1 - fx) * rows[:, :, :-1] + fx * rows[:, :, 1:]


def central_window(
    N: int, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Tensor:
    """(N, N) window, one on the central N/2 x N/2."""
    window = torch.zeros(N, N, dtype=dtype, device=device)
    window[N // 4 : N // 4 + N // 2, N // 4 : N // 4 + N // 2] = 1
    return window


def _group_corners(relative_xy: Tensor, N: int) -> tuple[Tensor, Tensor, int]:
    """Corners (B*C, 2) on a canvas of the size that the widest group of the batch needs, and that size.

    Splatting needs one pixel more than the oracle's canvas, for the fraction; it is cropped by nobody.
    """
    B, C = relative_xy.shape[:2]
    reach = int(torch.ceil(relative_xy.abs().max()).item()) if relative_xy.numel() else 0
    canvas = torch.arange(B, device=relative_xy.device).repeat_interleave(C)
    return relative_xy.reshape(-1, 2) + reach, canvas, N + 2 * reach + 1


def _merge_on(patches: Tensor, window: Tensor, corners: Tensor, canvas: Tensor, n: int, side: int) -> Tensor:
    """Weighted mean of patches (K, N, N) on n canvases (n, side, side)."""
    w = (window.to(_real_dtype(patches.dtype)) + MERGE_EPSILON).expand(patches.shape)
    total = splat(w * patches, corners, canvas, n, (side, side))
    weights = splat(w.contiguous(), corners, canvas, n, (side, side))
    return torch.where(weights > 0, total / torch.where(weights > 0, weights, 1), 0)


def merge(patches: Tensor, relative_xy: Tensor, window: Tensor) -> Tensor:
    """Lay the C patches of every group on a common canvas: the constraint map of `ptycho.physics.merge`.

    Shapes: patches (B, C, N, N) complex, relative_xy (B, C, 2) float64 = position minus group mean, window
    (N, N); returns (B, S, S), S = N + 2 ceil(max |r|) over the batch, pixel (S//2, S//2) at the group mean.
    """
    B, C, N, _ = patches.shape
    corners, canvas, side = _group_corners(relative_xy, N)
    merged = _merge_on(patches.reshape(B * C, N, N), window, corners, canvas, B, side)
    return merged[:, :-1, :-1]


def extract_group(canvases: Tensor, relative_xy: Tensor, N: int) -> Tensor:
    """Cut every pattern's own view out of its group's canvas: (B, S, S) and (B, C, 2) give (B, C, N, N)."""
    B, C = relative_xy.shape[:2]
    margin = canvases.shape[-1] // 2 - N // 2
    canvas = torch.arange(B, device=canvases.device).repeat_interleave(C)
    padded = torch.nn.functional.pad(canvases, (0, 1, 0, 1))
    return gather(padded, relative_xy.reshape(-1, 2) + margin, canvas, N).view(B, C, N, N)


def merge_and_extract(patches: Tensor, relative_xy: Tensor, window: Tensor) -> Tensor:
    """O'_k of the contract: merge the group, cut each pattern's view; the identity for C = 1."""
    if patches.shape[1] == 1 and relative_xy.shape[1] == 1:
        return patches
    if (
        patches.shape[1] == 1
    ):  # one shared patch a group (object_big off): the canvas is that patch, zero outside
        reach = int(torch.ceil(relative_xy.abs().max()).item())
        canvases = torch.nn.functional.pad(patches[:, 0], (reach, reach, reach, reach))
    else:
        canvases = merge(patches, relative_xy, window)
    return extract_group(canvases, relative_xy, patches.shape[-1])


def propagate(waves: Tensor) -> Tensor:
    """Unitary far-field propagation, zero frequency at (N//2, N//2)."""
    return torch.fft.fftshift(torch.fft.fft2(waves, norm="ortho"), dim=(-2, -1))


def diffract(patches: Tensor, probe: Tensor) -> Tensor:
    """Intensity sum_p |FFT2_ortho(P_p O)|^2: (..., N, N) real, of patches (..., N, N), probe (P, N, N)."""
    waves = torch.fft.fft2(patches.unsqueeze(-3) * probe, norm="ortho")
    intensity = (waves.real.square() + waves.imag.square()).sum(-3)
    return torch.fft.fftshift(intensity, dim=(-2, -1))


def amplitude(intensity: Tensor) -> Tensor:
    """Square root with a gradient that stays finite at zero intensity."""
    return torch.sqrt(intensity + 1e-12)


def rate(intensity: Tensor, intensity_scale: Tensor | float) -> Tensor:
    """Expected counts a pixel: s^2 A^2 + 1e-6."""
    return intensity_scale**2 * intensity + RATE_EPSILON
