"""The initial state of a reconstruction: canvas, first object, modes, intensities and background."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ptycho.errors import DataError
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.operators import Canvas
from ptycho_torch.refine.portions import portions
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.state import RefineState


def start_state(
    scan: RefineScan,
    *,
    modes: int | None = None,
    margin_px: int = 1,
    initial_object: np.ndarray | None = None,
    initial_origin_xy: tuple[int, int] | None = None,
    intensity: bool = False,
    background: bool = False,
) -> RefineState:
    """A flat object (or `initial_object`, whose [0, 0] is object pixel `initial_origin_xy`) and the scan's
    probe.

    Missing probe modes are the first one times x, y, xy, ... with 5 % of its power each. The probe's power
    is then set so that the model explains the mean pattern.
    """
    canvas = Canvas.around(scan.positions_xy.cpu().numpy(), scan.n, margin_px)
    field = torch.ones(canvas.shape, dtype=scan.probe.dtype)
    if initial_object is not None:
        lay(field, np.asarray(initial_object), canvas.origin_xy, initial_origin_xy or canvas.origin_xy)
    state = RefineState(
        canvas,
        field.to(scan.counts.device),
        more_modes(scan.probe, modes or scan.probe.shape[0]),
        scan.positions_xy.clone(),
        torch.ones(scan.size, dtype=scan.counts.dtype, device=scan.counts.device) if intensity else None,
        first_background(scan) if background else None,
    )
    fit_probe_scale(scan, state)
    return state


def fit_probe_scale(scan: RefineScan, state: RefineState) -> None:
    """Scale the probe, in place, so that the model has the total counts of about 64 patterns."""
    some = torch.linspace(0, scan.size - 1, min(scan.size, 64)).round().to(torch.int64)
    counted, expected = 0.0, 0.0
    for part in portions(some, len(some), state.probe):
        model = predict(scan, state, part).intensity
        model = model if scan.good is None else model * scan.good
        counted += float(scan.counts[part].sum(dtype=torch.float64))
        expected += float(model.sum(dtype=torch.float64))
    state.probe = state.probe * math.sqrt(counted / max(expected, 1e-30))


def first_background(scan: RefineScan) -> Tensor:
    """Half of the mean counts of the scan's dark pixels (5th percentile), in every pixel, (N, N) counts."""
    mean = torch.zeros_like(scan.counts[0])
    for part in scan.counts.split(256):
        mean += part.sum(0)
    seen = mean[scan.good > 0] if scan.good is not None else mean.flatten()
    dark = float(seen.sort().values[len(seen) // 20]) / scan.size
    return torch.full_like(mean, max(0.5 * dark, 1e-3 * scan.mean_counts / scan.n**2))


def lay(
    field: Tensor, image: np.ndarray, origin_xy: tuple[int, int], image_origin_xy: tuple[int, int]
) -> None:
    """Copy the part of `image` (H, W) that lies on `field`, whose [0, 0] is at `origin_xy`, in place."""
    if image.ndim != 2 or not np.isfinite(image).all():
        raise DataError(f"the starting object has shape {image.shape}; give a finite (H, W) complex image")
    x, y = image_origin_xy[0] - origin_xy[0], image_origin_xy[1] - origin_xy[1]
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + image.shape[0], field.shape[0]), min(x + image.shape[1], field.shape[1])
    if bottom > top and right > left:
        part = np.ascontiguousarray(image[top - y : bottom - y, left - x : right - x])
        field[top:bottom, left:right] = torch.from_numpy(part).to(field.dtype)


def more_modes(probe: Tensor, modes: int) -> Tensor:
    """Probe (P, N, N) cut or extended to `modes` modes."""
    if modes <= probe.shape[0]:
        return probe[:modes].clone()
    n = probe.shape[-1]
    line = torch.linspace(-1, 1, n, dtype=probe.real.dtype, device=probe.device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    made = list(probe)
    for order in range(probe.shape[0], modes):
        vertical = order // 2
        mode = probe[0] * x ** (order - vertical) * y**vertical
        made.append(mode * torch.linalg.vector_norm(probe[0]) / torch.linalg.vector_norm(mode) * 0.05**0.5)
    return torch.stack(made)
