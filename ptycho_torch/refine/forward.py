"""The forward model of one batch, its residual, and the sums that every rule needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ptycho_torch.refine.noise import factor
from ptycho_torch.refine.operators import (
    fft2,
    gather,
    ifft2,
    power,
    scatter_add,
    shift_fourier,
    shift_ramps,
    split_positions,
    unshift_sum,
)
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.state import RefineState


@dataclass
class Exit:
    """A batch at the detector.

    index (B,); corners_yx (B, 2); ramps (B, N, N); patches (B, N, N) object windows; probes (B, P, N, N)
    moved to their sub-pixel place and times the pattern's intensity factor; far (B, P, N, N) waves;
    intensity (B, N, N) counts.
    """

    index: Tensor
    corners_yx: Tensor
    ramps: Tensor
    patches: Tensor
    probes: Tensor
    far: Tensor
    intensity: Tensor


def predict(scan: RefineScan, state: RefineState, index: Tensor) -> Exit:
    """Forward model I = sum_p |FFT_ortho(s P_p(r - d) O(window))|^2 + background for `index` (B,)."""
    corners, fraction = split_positions(state.positions_xy[index], state.canvas, scan.n)
    ramps = shift_ramps(fraction, scan.n, state.probe.dtype)
    patches = gather(state.object, corners, scan.n)
    probes = shift_fourier(state.probe, ramps)
    if state.intensity is not None:
        probes = probes * state.intensity[index, None, None, None]
    far = fft2(probes * patches[:, None], norm="ortho")
    model = power(far[:, 0]) if far.shape[1] == 1 else power(far).sum(1)
    if state.background is not None:
        model = model + state.background
    return Exit(index, corners, ramps, patches, probes, far, model)


def residual(scan: RefineScan, exit: Exit, noise: str) -> Tensor:
    """The change (B, P, N, N) of the exit waves that reduces the misfit to the data."""
    change = factor(noise, scan.of(exit.index), exit.intensity, scan.floor, scan.good)
    return ifft2(exit.far * change[:, None], norm="ortho")


class Overlap(NamedTuple):
    """The part of the object that a batch reaches (a view), window corners on it, overlap sums."""

    part: Tensor
    corners_yx: Tensor
    pulled: Tensor
    weight: Tensor


def object_sums(scan: RefineScan, state: RefineState, index: Tensor, exit: Exit, change: Tensor) -> Overlap:
    """Sums on the box that holds the batch: sum_j sum_p conj(P) change, and sum_j sum_p |P|^2, both (h, w).

    index (B,): the whole batch, `exit` and `change` this process's part of it: the first sum is that part's
    (see `shared.add_up`), the second is the batch's. The second uses the probe before its sub-pixel shift: it
    only sets the step size, and this saves a pass over the batch. A box instead of the whole canvas keeps the
    time of a sweep linear in positions, for any canvas size.
    """
    n = exit.patches.shape[-1]
    reached = exit.corners_yx
    if scan.team is not None:
        reached, _ = split_positions(state.positions_xy[index], state.canvas, n)
    low, high = reached.amin(0), (reached.amax(0) + n).tolist()
    top, left = low.tolist()
    part, corners = state.object[top : high[0], left : high[1]], exit.corners_yx - low
    pulled = exit.probes.conj() * change
    pulled = pulled[:, 0] if pulled.shape[1] == 1 else pulled.sum(1)
    numerator = torch.zeros_like(part)
    scatter_add(numerator, pulled, corners)
    weight = power(state.probe).sum(0)
    weights = weight.expand(len(index), *weight.shape)
    if state.intensity is not None:
        weights = weights * state.intensity[index, None, None].square()
    denominator = torch.zeros(part.shape, dtype=weight.dtype, device=weight.device)
    scatter_add(denominator, weights, reached - low)
    return Overlap(part, corners, numerator, denominator)


def probe_sums(state: RefineState, exit: Exit, change: Tensor) -> tuple[Tensor, Tensor]:
    """sum_j conj(O_j) change_j moved back by the sub-pixel shift (P, N, N), and sum_j |O_j|^2 (N, N)."""
    patches = exit.patches
    if state.intensity is not None:
        patches = patches * state.intensity[exit.index, None, None]
    numerator = unshift_sum(patches.conj()[:, None] * change, exit.ramps)
    return numerator, power(patches).sum(0)


def regularised(weight: Tensor, alpha: float, peak: Tensor | float) -> Tensor:
    """Denominator of rPIE for a batch: weight + alpha * max(peak - weight, 0).

    One pattern: (1 - alpha) w + alpha max w, the paper's. A batch whose windows overlap: never less than the
    overlap sum itself, so the step is a weighted mean and no batch size diverges. alpha = 1 is ePIE.
    """
    return weight + alpha * (peak - weight).clamp_min(0)
