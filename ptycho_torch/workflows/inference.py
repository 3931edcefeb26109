"""From a trained module and a scan to one image: predict in batches, stitch as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho.errors import ConfigError
from ptycho.loader import PtychoDataContainer
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.reassembly import (
    Stitched,
    Stitcher,
    auto_window_side,
    chunks,
    make_frame,
    scan_order,
    window_weights,
)

#: patterns in a batch when nothing else is asked: large enough for the cores, small enough for the cache
_PATTERNS_A_BATCH = 64


@dataclass(frozen=True)
class Reconstruction:
    """One reconstructed scan: the image, the probe (P, N, N), and the patches (K, N, N) if they were kept."""

    image: Stitched
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    patches: NDArray[np.complex64] | None
    groups_per_s: float


def turned(
    positions_xy: NDArray[np.float64], *, flip_x: bool, flip_y: bool, transpose: bool, coord_scale: float
) -> NDArray[np.float64]:
    """Positions (..., 2) with mirrored axes, exchanged axes and scale, in this order."""
    if not (np.isfinite(coord_scale) and coord_scale > 0):
        raise ConfigError(f"coord_scale = {coord_scale}: must be a positive number")
    signs = np.array([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0])
    moved = positions_xy * signs * coord_scale
    return moved[..., ::-1] if transpose else moved


@torch.inference_mode()
def predict_groups(module: PtychoPINN_Lightning, x: torch.Tensor) -> torch.Tensor:
    """Complex patches (B, C_out, N, N) of a batch x (B, C, N, N), on its device, without gradients."""
    patches: torch.Tensor = module(x.to(module.probe.device))
    return patches


def reconstruct_container(
    module: PtychoPINN_Lightning,
    container: PtychoDataContainer,
    *,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    coord_scale: float = 1.0,
    M: int | None = None,
    weighting: str = "probe",
    canvas_shape: tuple[int, int] | None = None,
    batch_size: int | None = None,
    keep_patches: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Reconstruction:
    """Predict every group of a container and stitch all patches, each at its own position.

    Time linear in groups; memory: canvas, one batch, and the patches only if `keep_patches`.
    """
    module.eval()
    N, C = container.N, container.gridsize**2
    probe = module.complex_probe.detach().cpu().numpy()
    weights = window_weights(probe, auto_window_side(probe) if M is None else M, weighting)
    positions = turned(
        container.positions_px, flip_x=flip_x, flip_y=flip_y, transpose=transpose, coord_scale=coord_scale
    )
    shared = module.config.model.gridsize > 1 and not module.config.model.object_big
    stitcher = Stitcher(make_frame(positions, weights.shape[0], canvas_shape), weights)
    size = batch_size or max(1, _PATTERNS_A_BATCH // C)
    order = scan_order(positions[container.nn_indices[:, 0]], size)
    kept = np.empty((len(order), 1 if shared else C, N, N), np.complex64) if keep_patches else None
    begun = time.perf_counter()
    for part in chunks(len(order), size):
        groups = order[part]
        members = container.nn_indices[groups]
        x = torch.from_numpy(container.patterns[members])
        patches = predict_groups(module, x).cpu()
        places = positions[members]
        if shared:
            places = places.mean(1, keepdims=True)
        stitcher.add(patches.reshape(-1, N, N), torch.from_numpy(places.reshape(-1, 2)))
        if kept is not None:
            kept[groups] = patches.numpy()
        if progress is not None:
            progress(min(part.stop, len(order)), len(order))
    rate = len(order) / max(time.perf_counter() - begun, 1e-9)
    flat = kept.reshape(-1, N, N) if kept is not None else None
    return Reconstruction(stitcher.result(), probe, positions, flat, rate)
