"""LSQML: the least-squares maximum-likelihood step, Gaussian ("amplitude") or Poisson noise.

M. Odstrcil, A. Menzel, M. Guizar-Sicairos, Opt. Express 26, 3108 (2018), eqs. 16-24. With the residual
chi_j of exit wave j and the batch's mean directions
    dO = sum_j conj(P_j) chi_j / (sum_j |P_j|^2 + d),    dP = sum_j conj(O_j) chi_j / (sum_j |O_j|^2 + d)
each pattern's steps solve   min_{a_j, b_j}  | chi_j - a_j dO P_j - b_j dP O_j |^2,  a real 2 x 2 problem, and
    O += s * sum_j a_j |P_j|^2 dO / (sum_j |P_j|^2 + d),    P += s * mean_j b_j dP.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ptycho_torch.refine.forward import Exit, object_sums, predict, probe_sums, regularised, residual
from ptycho_torch.refine.noise import check_noise
from ptycho_torch.refine.operators import gather, power, scatter_add, shift_fourier
from ptycho_torch.refine.rule import Rule
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.shared import add_up, own
from ptycho_torch.refine.state import RefineState


class LSQML(Rule):
    """noise: see noise.py; damping: d, in parts of each sum's peak; largest: bound on a_j and b_j."""

    name: ClassVar[str] = "lsqml"
    batch_size: ClassVar[int] = 32

    def __init__(self, noise: str = "bounded", damping: float = 0.1, largest: float = 2.0) -> None:
        self.noise = check_noise(noise)
        self.damping = damping
        self.largest = largest

    def step(
        self, scan: RefineScan, state: RefineState, index: Tensor, strength: float, with_probe: bool
    ) -> Exit:
        """One batch; one more FFT a pattern and mode than rPIE, to move the probe's direction."""
        exit = predict(scan, state, own(scan, index))
        change = residual(scan, exit, self.noise)
        overlap = object_sums(scan, state, index, exit, change)
        of_probe = probe_sums(state, exit, change) if with_probe else ()
        add_up(scan, overlap.pulled, *of_probe)
        denominator = regularised(overlap.weight, self.damping, overlap.weight.max())
        towards = overlap.pulled / denominator
        along = [gather(towards, overlap.corners_yx, scan.n)[:, None] * exit.probes]
        direction: Tensor | None = None
        if of_probe:
            pulled_probe, weight_probe = of_probe
            direction = pulled_probe / regularised(weight_probe, self.damping, weight_probe.max())
            along.append(shift_fourier(direction, exit.ramps) * exit.patches[:, None])
        steps = self._line_search(along, change)
        weights = power(state.probe).sum(0)[None] * steps[:, 0, None, None]
        mean_step = torch.zeros_like(overlap.weight)
        scatter_add(mean_step, weights, overlap.corners_yx)
        probe_step = steps[:, 1:].sum(0)
        add_up(scan, mean_step, probe_step)
        overlap.part.add_(strength * towards * (mean_step / denominator))
        if direction is not None:
            state.probe += strength * (probe_step[0] / len(index)) * direction
        return exit

    def _line_search(self, along: list[Tensor], change: Tensor) -> Tensor:
        """Steps (B, 1 or 2) along each direction (B, P, N, N) that best explain the change."""
        basis = torch.view_as_real(torch.stack(along, 1)).flatten(2)
        wanted = torch.view_as_real(change).flatten(1)
        normal = basis @ basis.transpose(1, 2)
        right = (basis @ wanted[:, :, None])[..., 0]
        ridge = 1e-3 * normal.diagonal(dim1=1, dim2=2)
        normal = normal + torch.diag_embed(ridge + 1e-30)
        return torch.linalg.solve(normal, right).clamp(0, self.largest)
