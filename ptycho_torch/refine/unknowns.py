"""The unknowns beside object and probe, and the constraints, as updates that any rule's batch feeds."""

from __future__ import annotations

import torch
from torch import Tensor

from ptycho_torch.refine.forward import Exit
from ptycho_torch.refine.operators import power
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.rule import Stepped
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.state import RefineState


def position_step(state: RefineState, stepped: Stepped) -> Tensor:
    """Gauss-Newton step (B, 2) [x, y] px of each pattern's position that best explains its residual.

    The exit wave moves by d_x (dpsi/dx) + d_y (dpsi/dy), dpsi/dx = O ifft(-2 pi i k_x FFT P_j); a 2 x 2 real
    least-squares problem a pattern (Odstrcil et al., Opt. Express 26, 3108 (2018), eq. 26). Two FFTs and modes more.
    """
    exit, change = stepped
    n = change.shape[-1]
    k = torch.fft.fftfreq(n, device=change.device, dtype=change.real.dtype)
    spectrum = torch.fft.fft2(exit.probes)
    slope_x = torch.fft.ifft2(spectrum * (-2j * torch.pi * k)) * exit.patches[:, None]
    slope_y = torch.fft.ifft2(spectrum * (-2j * torch.pi * k[:, None])) * exit.patches[:, None]
    slopes = torch.view_as_real(torch.stack([slope_x, slope_y], 1)).flatten(2).to(torch.float64)
    wanted = torch.view_as_real(change.resolve_conj()).flatten(1).to(torch.float64)
    normal = slopes @ slopes.transpose(1, 2)
    right = (slopes @ wanted[:, :, None])[..., 0]
    ridge = 1e-6 * normal.diagonal(dim1=1, dim2=2).sum(-1).clamp_min(1e-30)
    normal = normal + ridge[:, None, None] * torch.eye(2, dtype=normal.dtype, device=normal.device)
    return torch.linalg.solve(normal, right)


def affine_part(positions_xy: Tensor, moves_xy: Tensor) -> Tensor:
    """The part (M, 2) of `moves_xy` that a global affine map of the positions explains, by least squares."""
    centred = positions_xy - positions_xy.mean(0)
    basis = torch.cat([centred, torch.ones_like(centred[:, :1])], 1)
    return basis @ torch.linalg.lstsq(basis, moves_xy).solution


def move_positions(
    state: RefineState, scan: RefineScan, steps_xy: Tensor, options: RefineOptions, affine_only: bool
) -> None:
    """Apply a sweep's steps (M, 2): clipped, affine part only if asked, mean move removed (a common shift is free)."""
    length = steps_xy.norm(dim=1, keepdim=True).clamp_min(1e-12)
    steps_xy = steps_xy * (options.position_step_px / length).clamp_max(1)
    if affine_only:
        steps_xy = affine_part(state.positions_xy, steps_xy)
    moved = state.positions_xy + steps_xy
    moved = moved - (moved - scan.positions_xy).mean(0)
    origin = torch.tensor(state.canvas.origin_xy, dtype=moved.dtype, device=moved.device) + scan.n // 2
    size = torch.tensor(state.canvas.shape[::-1], dtype=moved.dtype, device=moved.device) - scan.n
    state.positions_xy = torch.minimum(torch.maximum(moved, origin), origin + size)


def intensity_step(scan: RefineScan, state: RefineState, exit: Exit, strength: float) -> None:
    """Move the batch's amplitude factors towards sqrt(counts / model), in place."""
    assert state.intensity is not None
    model = exit.intensity if scan.good is None else exit.intensity * scan.good
    ratio = scan.counts[exit.index].sum((-2, -1)) / model.sum((-2, -1)).clamp_min(1e-30)
    state.intensity[exit.index] *= ratio.clamp(0.25, 4.0) ** (0.25 * strength)


def background_ratio(scan: RefineScan, exit: Exit) -> Tensor:
    """Sum over the batch of counts / model (N, N): the multiplicative EM step of an additive Poisson background."""
    return ((scan.counts[exit.index] + scan.floor) / (exit.intensity + scan.floor)).sum(0)


def orthogonalise(probe: Tensor) -> Tensor:
    """Probe modes (P, N, N) made orthogonal, the strongest first; the sum of intensities does not change."""
    if probe.shape[0] == 1:
        return probe
    flat = probe.flatten(1)
    _, vectors = torch.linalg.eigh(flat.conj() @ flat.T)
    vectors = vectors.flip(-1)
    phase = torch.sgn(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)))
    return ((vectors * phase.conj()).T @ flat).reshape(probe.shape)


def constrain(state: RefineState, options: RefineOptions, illumination: Tensor, with_probe: bool) -> None:
    """After a sweep: probe support and order of modes, then the object's limits and smoothness, in place."""
    if with_probe:
        if options.probe_support is not None:
            support = torch.from_numpy(options.probe_support).to(state.probe.real)
            state.probe = state.probe * support
        state.probe = orthogonalise(state.probe)
    if state.intensity is not None:
        mean = state.intensity.square().mean().sqrt()
        state.intensity /= mean
        state.probe = state.probe * mean
    if options.smoothness:
        state.object = smoothed(state.object, illumination, options.smoothness)
    if options.amplitude_limits is not None:
        low, high = options.amplitude_limits
        size = power(state.object).sqrt().clamp_min(1e-12)
        state.object = state.object * (size.clamp(low, high) / size)


def smoothed(image: Tensor, weight: Tensor, strength: float) -> Tensor:
    """One Jacobi sweep of weight |x - image|^2 + strength max(weight) |grad x|^2, edges replicated."""
    padded = torch.nn.functional.pad(torch.view_as_real(image).permute(2, 0, 1)[None], (1, 1, 1, 1), mode="replicate")[0]
    around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    neighbours = torch.view_as_complex(around.permute(1, 2, 0).contiguous())
    pull = strength * weight.max()
    return (weight * image + pull * neighbours) / (weight + 4 * pull)


def illumination(scan: RefineScan, state: RefineState) -> Tensor:
    """Counts that reach each canvas pixel through an open object, sum_j |P_j|^2, (H, W). One pass over positions."""
    from ptycho_torch.refine.operators import scatter_add, split_positions

    corners, _ = split_positions(state.positions_xy, state.canvas, scan.n)
    weight = power(state.probe).sum(0)
    total = torch.zeros(state.object.shape, dtype=weight.dtype, device=weight.device)
    for part in corners.split(256):
        scatter_add(total, weight.expand(len(part), *weight.shape), part)
    return total
