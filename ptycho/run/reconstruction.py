"""What inference hands on, whichever backend computed it: the image, the probe, and how well they explain."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho.evaluation.rfactor import r_factor
from ptycho.image.canvas import (
    Frame,
    Stitched,
    auto_window_side,
    chunks,
    make_frame,
    scan_order,
    transform_positions,
    window_weights,
)
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.pattern_store import room_for_patches

#: patterns in a batch when nothing else is asked: large enough for the cores, small enough for the cache
PATTERNS_A_BATCH = 64


@dataclass(frozen=True)
class Reconstruction:
    """One reconstructed scan: the image, the probe (P, N, N), and the patches (K, N, N) if they were kept."""

    image: Stitched
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    patches: NDArray[np.complex64] | None
    groups_per_s: float


class Stitches(Protocol):
    """A backend's stitcher: takes its own tensors, gives NumPy."""

    def add(self, patches: Any, positions_xy: NDArray[np.float64]) -> None:
        """Patches (K, N, N) at the object pixels (K, 2) under their pixel (N//2, N//2)."""

    def result(self) -> Stitched:
        """The image as it stands."""


def reconstruct(
    container: PtychoDataContainer,
    probe: NDArray[np.complex64],
    predict: Callable[[NDArray[np.float32]], Any],
    stitcher: Callable[[Frame, NDArray[np.float32]], Stitches],
    as_numpy: Callable[[Any], NDArray[np.complex64]],
    *,
    one_patch_a_group: bool = False,
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

    `predict` maps x (b, C, N, N) to the backend's patches (b, C_out, N, N). `one_patch_a_group`: object_big
    off, the patch lies at the group's mean. `weighting` is 'probe' or 'uniform'; M the stitched window's side
    in px, None: what the probe lights. Time linear in groups; memory: canvas, one batch, and the patches only
    if `keep_patches`; they are on disk where the container's patterns are.
    """
    N, C = container.N, container.gridsize**2
    weights = window_weights(probe, auto_window_side(probe) if M is None else M, weighting)
    positions = transform_positions(
        container.positions_px, flip_x=flip_x, flip_y=flip_y, transpose=transpose, coord_scale=coord_scale
    )
    canvas = stitcher(make_frame(positions, weights.shape[0], canvas_shape), weights)
    size = batch_size or max(1, PATTERNS_A_BATCH // C)
    order = scan_order(positions[container.nn_indices[:, 0]], size)
    shape = (len(order), 1 if one_patch_a_group else C, N, N)
    kept = room_for_patches(shape, container) if keep_patches else None
    begun = time.perf_counter()
    for part in chunks(len(order), size):
        groups = order[part]
        members = container.nn_indices[groups]
        patches = predict(container.patterns[members])
        places = positions[members]
        if one_patch_a_group:
            places = places.mean(1, keepdims=True)
        canvas.add(patches, places.reshape(-1, 2))
        if kept is not None:
            kept.put(groups, as_numpy(patches))
        if progress is not None:
            progress(min(part.stop, len(order)), len(order))
    rate = len(order) / max(time.perf_counter() - begun, 1e-9)
    flat = kept.array().reshape(-1, N, N) if kept is not None else None
    return Reconstruction(canvas.result(), probe, positions, flat, rate)


def as_outputs(made: Reconstruction, container: PtychoDataContainer) -> tuple[Any, Any, dict[str, Any]]:
    """(amplitude, phase, results) in the names that callers know."""
    amplitude, phase = np.abs(made.image.object), np.angle(made.image.object)
    results = {
        "obj_tensor_full": made.patches,
        "global_offsets": container.global_offsets,
        "coords_nominal": container.coords_nominal,
        "recon_amp": amplitude,
        "recon_phase": phase,
        "object": made.image.object,
        "coverage": made.image.coverage,
        "origin_xy": made.image.frame.origin_xy,
        "probe": made.probe,
        "positions_px": made.positions_px,
        "groups_per_s": made.groups_per_s,
    }
    return amplitude, phase, results


def judged_by_data(made: Reconstruction, container: PtychoDataContainer) -> dict[str, Any]:
    """`r_factor` and `r_per_pattern` (M,): the stitched object re-diffracted at every position.

    Time O(M N^2 log N), memory one pattern.
    """
    agreement = r_factor(
        made.image.object,
        made.probe,
        container.positions_px[:, 0],
        container.positions_px[:, 1],
        container.patterns,
        origin_xy=made.image.frame.origin_xy,
        bad_pixels=container.bad_pixels,
    )
    return {"r_factor": agreement.whole, "r_per_pattern": agreement.per_pattern}
