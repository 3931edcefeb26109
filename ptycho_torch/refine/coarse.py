"""The coarse step: low frequencies of the object's error by one Gauss-Newton step on a coarse grid.

One pattern corrects the object within one window. An error much longer than the probe is corrected window by
window, which takes tens of sweeps. Under one pattern such an error is a factor exp(u + i v) whose log
amplitude u and phase v are straight lines: five numbers m = (u, grad u, grad v). Each pattern determines them
by minimising  sum (n - I - J m)^2 / (I + f),    J = 2 Re(conj(Psi) FFT(b P O)),  b = 1, x, y, i x, i y ,
from two extra FFTs a mode (of x P O and y P O), and one pair of smooth fields on a coarse grid fits the 5 x 5
problems of all patterns together by conjugate gradients. Two-level correction as in S. W. Fung, Z. Di,
"Multigrid optimization for large-scale ptychographic phase retrieval", SIAM J. Imaging Sci. 13, 214 (2020).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ptycho.run.coarse_grid import CoarseGrid, Real, conjugate_gradients
from ptycho.run.coarse_start import grid_step_px
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.held_out import verdict
from ptycho_torch.refine.operators import fft2, power
from ptycho_torch.refine.portions import portions
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.shared import of_all, own, total
from ptycho_torch.refine.state import RefineState

_FLOOR = 1e-2  # f, in mean counts a pixel
_BATCH = 32
_JUDGES = 64
_ITERATIONS = 30
_TOLERANCE = 1e-2
_ROUND = 2.0**16
_STRENGTHS = (0.1, 0.3)  # rms of the log amplitude and phase of the error, assumed by the prior
_DERIVATIVES = ((0, 0), (1, 0), (0, 1))


def local_problems(
    scan: RefineScan, state: RefineState, index: Tensor
) -> tuple[Tensor, Tensor, Tensor, float]:
    """The 5 x 5 problem of each pattern of `index` (B,): normal matrices (B, 5, 5) and right sides (B, 5).

    Also the place (2,) [x, y] px in the window that x and y count from, relative to [N//2, N//2]: the
    middle of the probe's light; and the variance of the counts over the model's (1 for photons alone). Time:
    4 FFTs a pattern and mode. Memory: 32 patterns.
    """
    n, floor = scan.n, _FLOOR * scan.mean_counts / scan.n**2
    real = state.probe.real.dtype
    line = torch.arange(n, dtype=real, device=index.device) - n // 2
    light = power(state.probe).sum(0)
    middle = torch.stack([(light.sum(0) * line).sum(), (light.sum(1) * line).sum()]) / light.sum()
    across, down = line - middle[0], (line - middle[1])[:, None]
    mine = own(scan, index)
    normal = torch.empty((len(mine), 5, 5), dtype=torch.float64, device=index.device)
    right = torch.empty((len(mine), 5), dtype=torch.float64, device=index.device)
    wrong, expected, at = 0.0, 1e-30, 0
    for part in portions(mine, _BATCH, state.probe):
        exit = predict(scan, state, part)
        weight = (exit.intensity + floor).rsqrt_()
        weight = weight if scan.good is None else weight.mul_(scan.good)
        # rows: half of the five derivatives, and the residual; only their products are needed
        rows = torch.empty((len(part), 6, n, n), dtype=real, device=index.device)
        torch.mul(_mode_sum(power(exit.far)), weight, out=rows[:, 0])
        wave, weighted = exit.probes * exit.patches[:, None], exit.far.conj() * weight[:, None]
        for axis, arm in enumerate((across, down), 1):
            product = _mode_sum(fft2(wave * arm, norm="ortho").mul_(weighted))
            rows[:, axis], rows[:, axis + 2] = product.real, product.imag
        rows[:, 3:5].neg_()
        torch.sub(scan.of(part), exit.intensity, out=rows[:, 5]).mul_(weight)
        flat = rows.flatten(2)
        inner = (flat @ flat.transpose(1, 2)).to(torch.float64)
        here = slice(at, at + len(part))
        normal[here], right[here] = 4 * inner[:, :5, :5], 2 * inner[:, :5, 5]
        wrong += float(inner[:, 5, 5].sum())
        expected += float((exit.intensity.mul_(weight).mul_(weight)).sum(dtype=torch.float64))
        at += len(part)
    wrong, expected = total(scan, wrong, expected)
    return of_all(scan, index, normal), of_all(scan, index, right), middle, wrong / expected


def _mode_sum(fields: Tensor) -> Tensor:
    """The sum over the modes of (B, P, N, N)."""
    return fields[:, 0] if fields.shape[1] == 1 else fields.sum(1)


def coarse_field(scan: RefineScan, state: RefineState, index: Tensor) -> Tensor:
    """The factor (H, W) complex that corrects the object's low frequencies, from the patterns `index`.

    Time: 4 FFTs a pattern and mode, and grids linear in the canvas.
    """
    normal, right, middle, noise = local_problems(scan, state, index)
    light = power(state.probe).sum(0).to("cpu", torch.float64).numpy()
    grid = CoarseGrid(state.canvas.shape, grid_step_px(light), scan.n // 2)
    places = state.positions_xy[index].cpu().numpy() - state.canvas.origin_xy + middle.cpu().numpy()
    readers = [grid.reader(places, along) for along in _DERIVATIVES]
    matrices = (normal / noise).cpu().numpy()
    asked = (right / noise).cpu().numpy()
    root = np.asarray(_STRENGTHS)[:, None, None] * grid.prior
    spline = root * grid.prefilter
    size = grid.grid[0] * grid.grid[1]

    def read(move: Real) -> Real:
        """The five numbers (B, 5) of each place under white fields (2, Gy, Gx)."""
        amplitude, phase = grid.images(spline * grid.spectra(move)).reshape(2, size)
        values = [reader @ amplitude for reader in readers] + [reader @ phase for reader in readers[1:]]
        return np.stack(values, 1)

    def spread(values: Real) -> Real:
        """The transpose of `read`."""
        amplitude = sum(reader.T @ values[:, i] for i, reader in enumerate(readers))
        phase = sum(reader.T @ values[:, 3 + i] for i, reader in enumerate(readers[1:]))
        return grid.images(spline * grid.spectra(np.stack([amplitude, phase]).reshape(2, *grid.grid)))

    def pulled(move: Real) -> Real:
        return spread(np.einsum("bij,bj->bi", matrices, read(move)))

    move = conjugate_gradients(pulled, spread(asked), _ITERATIONS, _TOLERANCE)
    # the last bits of small matrix products depend on the memory address; a millionth does not
    change = np.round(grid.canvas(root * grid.spectra(move)) * _ROUND) / _ROUND
    field = torch.from_numpy(np.exp(change[0] + 1j * change[1]))
    return field.to(state.object)


def coarse_step(scan: RefineScan, state: RefineState, index: Tensor, judges: Tensor) -> bool:
    """Multiply the object by the coarse factor from `index`, in place, if the likelihood of `judges` rises.

    Both are indices of patterns, without any in common. Returns whether the step was taken.
    """
    field = coarse_field(scan, state, index)
    before = verdict(scan, state, judges)
    for gain in (1.0, 0.5):
        factor = field if gain == 1 else field.sqrt()
        tried = replace(state, object=state.object * factor)
        if verdict(scan, tried, judges) < before:
            if state.earlier_object is not None:
                # the step is not the move of a sweep, so the momentum must not continue it
                state.earlier_object = state.earlier_object * factor
            state.object = tried.object
            return True
    return False


def share(scan: RefineScan, state: RefineState, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """The patterns of a coarse step, and at most 64 others (a tenth) as its judges, from (seed, epoch)."""
    index = np.random.default_rng([seed, epoch, 3]).permutation(scan.size)
    if state.lost is not None:
        index = index[~state.lost.cpu().numpy()[index]]
    count = min(_JUDGES, len(index) // 10)
    device = scan.counts.device
    asked, others = (torch.from_numpy(np.sort(part)).to(device) for part in (index[count:], index[:count]))
    return asked, others
