"""The affine error of a scan, seen inside its patterns.

If all positions are scaled, rotated or sheared by a few parts in a thousand, no single pattern gains by
moving: its neighbours have nearly the same error. But the reconstructed object is strained too, while each
measured pattern is not. So least squares estimates the strain from the change that a strain of every window
causes. Positions and object are corrected together; otherwise the object would need fifty sweeps to follow.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ptycho_torch.refine.forward import Exit, predict
from ptycho_torch.refine.operators import fft2, gather, ifft2
from ptycho_torch.refine.portions import portions
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.shared import add_up, own, total
from ptycho_torch.refine.state import RefineState

_GAIN = 2.5  # the object follows strained positions in part, so its windows show less than the whole strain
_LARGEST = 0.01
_SMALL_PX = 0.1
_SURE = 4.0  # standard deviations below which a strain is taken as noise


def strain(scan: RefineScan, state: RefineState, index: Tensor) -> tuple[Tensor, Tensor]:
    """The strain S (2, 2) of the object from the patterns `index`, [x, y] by [x, y], and its standard
    deviation.

    Object features under a pattern centred at c lie at c + (1 + S)(r - c). The model is linear in S and in a
    shift of each pattern, which is eliminated; residuals in the measured modulus. Cost: 7 FFTs a pattern and
    mode.
    """
    n, floor = scan.n, 1e-2 * scan.mean_counts / scan.n**2
    across = torch.arange(n, device=index.device, dtype=state.probe.real.dtype) - n // 2
    down = across[:, None]
    slope_x, slope_y = slopes(state.object)
    normal = torch.zeros((4, 4), dtype=torch.float64, device=index.device)
    right = torch.zeros(4, dtype=torch.float64, device=index.device)
    wrong, seen = 0.0, 0.0
    for part in portions(own(scan, index), 32, state.probe):
        exit = predict(scan, state, part)
        modulus = (exit.intensity + floor).sqrt()
        shifts = [exit.probes * gather(s, exit.corners_yx, n)[:, None] for s in (slope_x, slope_y)]
        waves = shifts + [shift * arm for shift in shifts for arm in (across, down)]
        basis = torch.stack([_change(exit, wave, modulus, scan.good) for wave in waves], 1).to(torch.float64)
        # n - I has no bias for few photons; the difference of square roots has one
        missing = 0.5 * (scan.counts[part] - exit.intensity) / modulus
        missing = (missing if scan.good is None else missing * scan.good).flatten(1).to(torch.float64)
        inner = basis @ basis.transpose(1, 2)
        asked = (basis @ missing[:, :, None])[..., 0]
        ridge = 1e-6 * inner.diagonal(dim1=1, dim2=2)[:, :2] + 1e-30
        solved = torch.linalg.solve(
            inner[:, :2, :2] + torch.diag_embed(ridge), torch.cat([inner[:, :2, 2:], asked[:, :2, None]], 2)
        )
        normal += (inner[:, 2:, 2:] - inner[:, 2:, :2] @ solved[:, :, :4]).sum(0)
        right += (asked[:, 2:] - (inner[:, 2:, :2] @ solved[:, :, 4:])[..., 0]).sum(0)
        wrong, seen = wrong + float(missing.square().sum()), seen + missing.numel()
    add_up(scan, normal, right)
    wrong, seen = total(scan, wrong, seen)
    normal += torch.diag_embed(1e-9 * normal.diagonal() + 1e-30)
    deviation = (torch.linalg.inv(normal).diagonal().clamp_min(0) * wrong / max(seen, 1)).sqrt()
    return torch.linalg.solve(normal, right).reshape(2, 2), deviation.reshape(2, 2)


def slopes(image: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of a (H, W) canvas by x and y, per px, through its spectrum: exact where band-limited."""
    spectrum = fft2(image)
    height, width = image.shape
    kx = torch.fft.fftfreq(width, device=image.device, dtype=image.real.dtype)
    ky = torch.fft.fftfreq(height, device=image.device, dtype=image.real.dtype)[:, None]
    return ifft2(2j * torch.pi * kx * spectrum), ifft2(2j * torch.pi * ky * spectrum)


def _change(exit: Exit, wave: Tensor, modulus: Tensor, good: Tensor | None) -> Tensor:
    """Change of the modulus (B, N N) if `wave` (B, P, N, N) is added to the exit waves."""
    far = fft2(wave, norm="ortho")
    change = (exit.far.real * far.real + exit.far.imag * far.imag).sum(1) / modulus
    return (change if good is None else change * good).flatten(1)


def undo_strain(scan: RefineScan, state: RefineState, epoch: int) -> None:
    """Measure the strain on every other pattern and remove its significant part from positions and object.

    A common scale is left to joint.py: before the probe has converged, its curvature has the same effect.
    """
    index = torch.arange(epoch // 2 % 2, scan.size, 2, device=scan.counts.device)
    found, deviation = strain(scan, state, index)
    identity = torch.eye(2, dtype=found.dtype, device=found.device)
    shape = _sure(found - 0.5 * found.trace() * identity, _SURE * deviation)
    step = (_GAIN * shape).clamp(-_LARGEST, _LARGEST)
    if bool((step != 0).any()):
        stretch(state, torch.linalg.inv(identity + step))


def _sure(value: Tensor, limit: Tensor) -> Tensor:
    return value * (1 - limit.square() / value.square().clamp_min(1e-30)).clamp_min(0)


def stretch(state: RefineState, matrix: Tensor) -> None:
    """Positions and object mapped by r -> c + matrix (r - c), c the mean position, in place.

    Bicubic; if nothing moves by more than 0.1 px, first order by the object's slopes, so that many small maps
    do not smooth the object.
    """
    centre = state.positions_xy.mean(0)
    state.positions_xy = (state.positions_xy - centre) @ matrix.T + centre
    height, width = state.canvas.shape
    y, x = torch.meshgrid(
        torch.arange(height, dtype=matrix.dtype, device=matrix.device),
        torch.arange(width, dtype=matrix.dtype, device=matrix.device),
        indexing="ij",
    )
    middle = centre - torch.tensor(state.canvas.origin_xy, dtype=matrix.dtype, device=matrix.device)
    away = torch.stack([x, y], -1) - middle
    from_xy = away @ torch.linalg.inv(matrix).T + middle
    moves = (from_xy - middle - away).to(state.object.real.dtype)
    if float(moves.abs().max()) < _SMALL_PX:
        slope_x, slope_y = slopes(state.object)
        state.object = state.object + slope_x * moves[..., 0] + slope_y * moves[..., 1]
        return
    size = torch.tensor([width - 1, height - 1], dtype=matrix.dtype, device=matrix.device)
    grid = (2 * from_xy / size - 1).to(state.object.real.dtype)[None]
    planes = torch.view_as_real(state.object).permute(2, 0, 1)[None]
    moved = torch.nn.functional.grid_sample(
        planes, grid, mode="bicubic", padding_mode="border", align_corners=True
    )
    state.object = torch.view_as_complex(moved[0].permute(1, 2, 0).contiguous())
