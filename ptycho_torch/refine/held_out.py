"""Held-out patterns ("judges"): their Poisson likelihood judges a step in which they take no part."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.portions import portions
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.shared import own, total
from ptycho_torch.refine.state import RefineState

_MOST = 64
_SHARE = 16  # one pattern out of this many
_BATCH = 64


def judges(scan: RefineScan, seed: int) -> Tensor:
    """Indices (H,) of at most 64 patterns, one in 16, from the denser three quarters of the scan: there other
    patterns cover the same area. Fewer than 32 patterns: none.
    """
    if scan.size < 2 * _SHARE:
        return torch.empty(0, dtype=torch.int64, device=scan.counts.device)
    from scipy.spatial import cKDTree

    places = scan.positions_xy.cpu().numpy()
    gap = cKDTree(places).query(places, k=5)[0][:, 1:].mean(1)
    dense = np.argsort(gap, kind="stable")[: max(1, 3 * scan.size // 4)]
    chosen = np.random.default_rng([seed, 2]).permutation(dense)[: min(_MOST, scan.size // _SHARE)]
    return torch.from_numpy(np.sort(chosen)).to(scan.counts.device)


def some(scan: RefineScan) -> Tensor:
    """At most 64 patterns spread over the scan, for a choice in which no pattern takes part."""
    count = min(scan.size, _MOST)
    return torch.linspace(0, scan.size - 1, count, device=scan.counts.device).round().to(torch.int64)


def verdict(scan: RefineScan, state: RefineState, index: Tensor) -> float:
    """Minus the log-likelihood of the patterns `index` up to a constant, with the model's total scaled to
    fit.

    The scales of probe and object are not determined separately, so the scale must not decide between two
    objects.
    """
    floor = 1e-2 * scan.mean_counts / scan.n**2
    seen = []
    for part in portions(own(scan, index), _BATCH, state.probe):
        model, count = predict(scan, state, part).intensity, scan.counts[part]
        seen.append((model, count) if scan.good is None else (model * scan.good, count * scan.good))
    counted, expected = total(
        scan,
        sum(float(count.sum(dtype=torch.float64)) for _, count in seen),
        sum(float(model.sum(dtype=torch.float64)) for model, _ in seen),
    )
    scale, found = counted / max(expected, 1e-30), 0.0
    for model, count in seen:
        lost = scale * model - (count + floor) * torch.log(scale * model + floor)
        lost = lost if scan.good is None else lost * scan.good
        found += float(lost.sum(dtype=torch.float64))
    return total(scan, found)[0]
