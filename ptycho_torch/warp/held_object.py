"""Positions fitted to the patterns with the object held: the reference image is the object, the probe is
free.

An image averages the errors of its patterns over the probe. A pattern compared with a known object tells its
own error. The probe takes up all that ptychography leaves free between the two: scale, phase, ramp, common
shift.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho.errors import DataError
from ptycho.warp.smooth_errors import misfit, smooth_errors, standard_errors
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.initial import fit_probe_scale, lay
from ptycho_torch.refine.joint import joint_step
from ptycho_torch.refine.operators import Canvas, gather, power, split_positions
from ptycho_torch.refine.scan import RefineScan, with_probe
from ptycho_torch.refine.search import clip_to_canvas
from ptycho_torch.refine.state import RefineState
from ptycho_torch.refine.unknowns import position_step

Complex = NDArray[np.complex128]
Floats = NDArray[np.float64]
#: rounds of a step for all patterns and a smooth model of their errors, at most; iterations of each step. A
#: noisy reference has more slope than the object, so each step falls short
ROUNDS, _ITERATIONS = 10, 12
#: rms change of the positions after which no further round is made, px
_SETTLED_PX = 0.005
#: share of the probe's power that must fall on known object; else a pattern has no say
_KNOWN = 0.98
_MARGIN_PX = 8
_BATCH = 64


class HeldFit(NamedTuple):
    """places_px (M, 2) [x, y] px of the reference: positions whose distance from the written ones is smooth;
    own_px (M, 2): each pattern's own position; used (M,) bool: patterns on known object; better: standard
    errors by which the smooth model of the other patterns predicts a pattern's own position better than the
    start did; rows: one for each round."""

    places_px: Floats
    own_px: Floats
    used: NDArray[np.bool_]
    better: float
    rows: list[dict[str, Any]]


def fit_held_object(
    scan: RefineScan,
    reference: Complex,
    known: NDArray[np.bool_],
    places_px: Floats,
    written_px: Floats,
    probe: Complex,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> HeldFit:
    """How far each position of a scan must move to fit a known object, by maximum likelihood.

    reference (H, W): the object; known (H, W): its pixels that are trusted; places_px (M, 2) [x, y]:
    positions in its pixels, right to about a pixel; written_px (M, 2): positions as written, in the order of
    measurement and in any frame with the same axes; probe (P, N, N) in the reference's gauge (ramp), any
    scale. Each round is a Gauss-Newton step of probe and positions on the engine's own model, then
    `smooth_errors`. Raises DataError if no pattern lies on known object. Time: `rounds` times some 30 forward
    models, linear in patterns; memory: the scan, and at most 5 exit waves a pattern.
    """
    n = scan.n
    scan = with_probe(
        replace(scan, positions_xy=torch.from_numpy(places_px.copy()).to(scan.counts.device)), probe
    )
    canvas = Canvas.around(places_px, n, _MARGIN_PX)
    filled = np.where(known, reference, reference[known].mean())
    image = torch.full(canvas.shape, complex(reference[known].mean()), dtype=scan.probe.dtype)
    lay(image, filled, canvas.origin_xy, (0, 0))
    seen = torch.zeros(canvas.shape, dtype=scan.probe.dtype)
    lay(seen, known.astype(np.complex64), canvas.origin_xy, (0, 0))
    device = scan.counts.device
    state = RefineState(canvas, image.to(device), scan.probe.clone(), scan.positions_xy.clone())
    state.lost = ~_on_known(state, seen.real.to(device), n)
    if bool(state.lost.all()):
        raise DataError("no pattern lies on the known part of the reference")
    fit_probe_scale(scan, state)
    shared = _diameter_px(scan.probe)
    rows: list[dict[str, Any]] = []
    used = ~state.lost.cpu().numpy()
    own = moved = places_px
    better = 0.0
    for number in range(rounds):
        if progress is not None:
            progress(number, rounds)
        wrong = joint_step(
            scan, state, iterations=_ITERATIONS, damping=1e-3, with_strain=False, with_object=False
        )
        information = _information(scan, state)
        own = state.positions_xy.cpu().numpy()
        error = own - written_px
        shift = np.median(error, 0)
        found = smooth_errors(error - shift, information, written_px, seed=seed, shared_px=shared)
        before, moved = moved, written_px + shift + found.errors_px
        guess = written_px + shift + found.predicted_px
        start = places_px + np.median(own - places_px, 0)
        gains = misfit(own - start, information) - misfit(own - guess, information)
        better = standard_errors(gains[used])
        state.positions_xy = clip_to_canvas(scan, state, torch.from_numpy(moved).to(device))
        rms = float(np.sqrt((found.errors_px**2).sum(1).mean()))
        rows.append({"misfit": wrong, "model": found.model, "rms_px": rms, "tried": found.rows})
        change = moved - before
        if number and np.sqrt(((change - change.mean(0)) ** 2).sum(1).mean()) < _SETTLED_PX:
            break
    return HeldFit(moved, own, used, better, rows)


def _diameter_px(probe: Tensor) -> float:
    """Twice the rms radius of the probe (P, N, N): patterns so close see the same noise of the reference."""
    weight = power(probe).sum(0)
    weight = (weight / weight.sum()).double()
    axis = torch.arange(len(weight), dtype=weight.dtype, device=weight.device)
    spread = 0.0
    for share in (weight.sum(0), weight.sum(1)):
        spread += float((share * (axis - (share * axis).sum()) ** 2).sum())
    return 2 * float(np.sqrt(spread))


def _on_known(state: RefineState, known: Tensor, n: int) -> Tensor:
    """Whether the probe of each pattern falls on known pixels, (M,) bool."""
    weight = power(state.probe).sum(0)
    weight = weight / weight.sum()
    corners, _ = split_positions(state.positions_xy, state.canvas, n)
    share = [(gather(known, part, n) * weight).sum((-2, -1)) for part in corners.split(_BATCH)]
    return torch.cat(share) > _KNOWN


def _information(scan: RefineScan, state: RefineState) -> Floats:
    """Inverse covariance (M, 2, 2) px^-2 of each position, 0 for a pattern without a say."""
    made = torch.zeros((scan.size, 2, 2), dtype=torch.float64, device=scan.counts.device)
    assert state.lost is not None
    for part in torch.nonzero(~state.lost)[:, 0].split(_BATCH):
        made[part] = position_step(scan, state, predict(scan, state, part))[1]
    return made.cpu().numpy()
