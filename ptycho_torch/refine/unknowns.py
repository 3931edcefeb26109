"""Updates of the unknowns besides object and probe, and the constraints; they work with any rule."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ptycho_torch.refine.forward import Exit, predict
from ptycho_torch.refine.operators import fft2, ifft2, power
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.portions import portions
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.shared import add_up, own
from ptycho_torch.refine.state import RefineState

# how many times the noise's variance the moves must show before any is believed: with object and probe
# unknown positions wander by a little more than the noise of each pattern
_NOISE_MARGIN = 4.0
# variance of a strain with object and probe unknown, over that with both known (measured)
_JOINT_STRAIN = 30.0
_SURE_TURN = 3.0  # standard deviations under which a rotation is taken for noise


def position_step(scan: RefineScan, state: RefineState, exit: Exit) -> tuple[Tensor, Tensor]:
    """Gauss-Newton step (B, 2) [x, y] px of each pattern's position and its information (B, 2, 2), px^-2.

    The step is taken in the modulus sqrt(I) that is measured:

    d sqrt(I) / dx = sum_p Re(conj(Psi_p) FFT(O ifft(-2 pi i k_x FFT P_p))) / sqrt(I): only the change of the
    detected intensity counts, so the common shift of an exit wave, which has no effect on it, does not damp
    the step. A 2 x 2 real least-squares problem a pattern; five more FFTs a mode. The information is scaled
    by the actual misfit where its weight lies, so model errors count as noise.
    """
    n = exit.far.shape[-1]
    k = torch.fft.fftfreq(n, device=exit.far.device, dtype=exit.intensity.dtype)
    spectrum = fft2(exit.probes)
    modulus = (exit.intensity + scan.floor).sqrt()
    slopes = []
    for axis in (k, k[:, None]):
        wave = ifft2(spectrum * (-2j * torch.pi * axis)) * exit.patches[:, None]
        far = fft2(wave, norm="ortho")
        slope = (exit.far.real * far.real + exit.far.imag * far.imag).sum(1) / modulus
        slopes.append(slope if scan.good is None else slope * scan.good)
    missing = ((scan.counts[exit.index] + scan.floor).sqrt() - modulus).flatten(1)
    missing = missing if scan.good is None else missing * scan.good.flatten()
    basis = torch.stack(slopes, 1).flatten(2)
    normal = (basis @ basis.transpose(1, 2)).to(torch.float64)
    right = (basis @ missing[:, :, None])[..., 0].to(torch.float64)
    slope2 = basis.square().sum(1)
    noise = (
        ((slope2 * missing.square()).sum(1) / slope2.sum(1).clamp_min(1e-30))
        .to(torch.float64)
        .clamp_min(1e-30)
    )
    information = normal / noise[:, None, None]
    ridge = 1e-3 * information.diagonal(dim1=1, dim2=2).sum(-1).clamp_min(1e-30)
    information = information + ridge[:, None, None] * torch.eye(2, dtype=normal.dtype, device=normal.device)
    return torch.linalg.solve(information, right / noise[:, None]), information


def affine_part(positions_xy: Tensor, moves_xy: Tensor, trusted: Tensor | None = None) -> Tensor:
    """The part (M, 2) of `moves_xy` that a global affine map of the positions explains, by least squares.

    trusted (M,) bool: the rows used in the fit; the map is evaluated for all rows.
    """
    centred = positions_xy - positions_xy.mean(0)
    basis = torch.cat([centred, torch.ones_like(centred[:, :1])], 1)
    asked = slice(None) if trusted is None else trusted
    return basis @ torch.linalg.lstsq(basis[asked], moves_xy[asked]).solution


def believe_positions(scan: RefineScan, state: RefineState, options: RefineOptions) -> None:
    """Take back, in place, the part of the position moves that photon noise explains: maximum a posteriori.

    The precision of a position is 1/sqrt(information), so smaller moves are not significant. The deviations
    from an affine map of the scan (positions="affine") or from the scan get a Gaussian prior. Its variance is
    their variance in excess of the noise; without excess there is no move. One pass over the scan.
    """
    information = torch.zeros((scan.size, 2, 2), dtype=torch.float64, device=state.positions_xy.device)
    every = torch.arange(scan.size, device=information.device)
    for part in portions(own(scan, every), 64, state.probe):
        information[part] = position_step(scan, state, predict(scan, state, part))[1]
    add_up(scan, information)
    information = information / _NOISE_MARGIN
    trusted = None if state.lost is None else ~state.lost
    whole = affine_part(scan.positions_xy, state.positions_xy - scan.positions_xy, trusted)
    away = state.positions_xy - scan.positions_xy - whole
    # medians: a few poorly constrained patterns at the border of a scan must not dominate
    spread = away.square().sum(1).median() / (2 * math.log(2))
    noise = torch.linalg.inv(information).diagonal(dim1=1, dim2=2).mean(1).median()
    excess = float(spread - noise)
    whole = _sure_strain(scan, state, whole, float(noise) / _NOISE_MARGIN, float(spread), options)
    if excess <= 0:
        away = torch.zeros_like(away)
    else:
        prior = torch.eye(2, dtype=away.dtype, device=away.device) / excess
        away = torch.linalg.solve(information + prior, (information @ away[:, :, None])[..., 0])
    state.positions_xy = scan.positions_xy + whole + away


def _sure_strain(
    scan: RefineScan,
    state: RefineState,
    moves_xy: Tensor,
    noise: float,
    spread: float,
    options: RefineOptions,
) -> Tensor:
    """The significant part of an affine move (M, 2), given photon noise (variance of a position and axis,
    px^2): all of it, the shift and the rotation, or the shift alone.

    A false strain has two causes. One is the noise of the positions. The other is the noise of the object,
    which favours a larger scan: half a nat for each unknown of the object, against the strain's information.
    Only the first can rotate a scan, so a rotation is tested against it alone if the whole move is not
    significant. Independent errors of the patterns ("free") of variance `spread` have a small affine part
    too.
    """
    shift = moves_xy.mean(0)
    centred = scan.positions_xy - scan.positions_xy.mean(0)
    found = torch.linalg.lstsq(centred, moves_xy - shift).solution
    size = float(found.square().mean())
    extent = float(centred.square().sum().clamp_min(1e-30)) / 2
    if options.positions == "free":
        return moves_xy if size < 9 * spread / extent else shift.expand_as(moves_xy)
    variance = noise / extent
    light = illumination(scan, state)
    lit = int((light > 0.1 * light.max()).sum())
    if size > 36 * variance + (_JOINT_STRAIN * variance * lit) ** 2:
        return moves_xy
    turn = 0.5 * (found - found.T)
    # an angle is the mean of two entries: half their variance
    if float(turn[0, 1]) ** 2 > _SURE_TURN**2 * _JOINT_STRAIN * variance / 2:
        return shift + centred @ turn
    return shift.expand_as(moves_xy)


def clipped(vectors: Tensor, longest: float) -> Tensor:
    """Vectors (M, 2) no longer than `longest`."""
    return vectors * (longest / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)


def intensity_step(scan: RefineScan, state: RefineState, exit: Exit, strength: float) -> None:
    """Move the batch's amplitude factors towards sqrt(counts / model), in place."""
    assert state.intensity is not None
    model = exit.intensity if scan.good is None else exit.intensity * scan.good
    ratio = scan.counts[exit.index].sum((-2, -1)) / model.sum((-2, -1)).clamp_min(1e-30)
    state.intensity[exit.index] *= ratio.clamp(0.25, 4.0) ** (0.5 * strength)


def background_ratio(scan: RefineScan, exit: Exit) -> Tensor:
    """Sum over the batch of counts / model (N, N): the multiplicative EM step of a Poisson background."""
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
    padded = torch.nn.functional.pad(
        torch.view_as_real(image).permute(2, 0, 1)[None], (1, 1, 1, 1), mode="replicate"
    )[0]
    around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    neighbours = torch.view_as_complex(around.permute(1, 2, 0).contiguous())
    pull = strength * weight.max()
    return (weight * image + pull * neighbours) / (weight + 4 * pull)


def illumination(scan: RefineScan, state: RefineState) -> Tensor:
    """Counts that reach each canvas pixel through an open object, sum_j |P_j|^2, (H, W). One pass."""
    from ptycho_torch.refine.operators import scatter_add, split_positions

    corners, _ = split_positions(state.positions_xy, state.canvas, scan.n)
    weight = power(state.probe).sum(0)
    total = torch.zeros(state.object.shape, dtype=weight.dtype, device=weight.device)
    for part in corners.split(256):
        scatter_add(total, weight.expand(len(part), *weight.shape), part)
    return total
