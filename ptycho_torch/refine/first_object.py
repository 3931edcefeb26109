"""The first object of a reconstruction: flat, or with the low frequencies estimated from all patterns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ptycho.run.coarse_start import coarse_from_moments
from ptycho.run.moments import Moments, detector_weights
from ptycho_torch.refine.held_out import some, verdict
from ptycho_torch.refine.initial import fit_probe_scale
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.shared import of_all, own
from ptycho_torch.refine.state import RefineState

_CHUNK = 256


def scan_moments(scan: RefineScan) -> Moments:
    """Sums of every pattern of a scan. One pass, 256 patterns at a time."""
    bad = None if scan.good is None else np.fft.fftshift(scan.good.cpu().numpy() == 0)
    weights = np.fft.ifftshift(detector_weights(scan.n, bad), axes=(-2, -1)).reshape(3, -1).T
    columns = torch.from_numpy(np.ascontiguousarray(weights)).to(scan.counts)
    every = torch.arange(scan.size, device=scan.counts.device)
    mine = own(scan, every)
    rows = slice(int(mine[0]), int(mine[-1]) + 1) if len(mine) else slice(0, 0)
    sums = [part.flatten(1) @ columns for part in scan.counts[rows].split(_CHUNK)]
    return Moments.of_sums(of_all(scan, every, torch.cat(sums)).cpu().numpy())


def coarse_objects(scan: RefineScan, state: RefineState) -> dict[str, Tensor]:
    """The coarse object (H, W) on the state's canvas, and its amplitude alone."""
    bad = None if scan.good is None else np.fft.fftshift(scan.good.cpu().numpy() == 0)
    start = coarse_from_moments(
        scan_moments(scan),
        state.positions_xy.cpu().numpy(),
        state.probe.cpu().numpy(),
        bad_pixels=bad,
        shape=state.canvas.shape,
        origin_xy=state.canvas.origin_xy,
    )
    # a copy has torch's own memory alignment, so a resumed run rounds in the same way
    field = torch.from_numpy(start.object).to(state.object).clone()
    return {"coarse": field, "coarse amplitude": field.abs().to(field.dtype)}


def choose_start(scan: RefineScan, state: RefineState, kind: str) -> tuple[RefineState, str]:
    """The state with its first object, and its name: "flat", "coarse" or "coarse amplitude".

    kind: "flat", "coarse", or "auto": the one that explains about 64 patterns best. Time: one pass over the
    sums of the patterns, three predictions of 64 patterns. With free intensity factors the counts do not
    determine the object, so "auto" means flat.
    """
    if kind == "flat" or (kind == "auto" and state.intensity is not None):
        return state, "flat"
    found = {name: replace(state, object=field) for name, field in coarse_objects(scan, state).items()}
    for one in found.values():
        fit_probe_scale(scan, one)
    if kind == "coarse":
        return found["coarse"], "coarse"
    asked = some(scan)
    found = {"flat": state} | found
    name = min(found, key=lambda one: verdict(scan, found[one], asked))
    return found[name], name
