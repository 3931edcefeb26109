"""What inference hands on, whichever backend computed it: the image, the probe, and how well they explain."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.evaluation.rfactor import RFactor, r_factor
from ptycho.image.canvas import (
    Stitched,
    auto_window_side,
    chunks,
    make_frame,
    scan_order,
    transform_positions,
    window_weights,
)
from ptycho.image.stitcher import Stitcher
from ptycho.io.geometry import Geometry
from ptycho.ops import ops_of
from ptycho.ops.team import ALONE, Team
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.normalization import intensity_scale
from ptycho.scan.pattern_store import room_for_patches

#: patterns in a batch when nothing else is asked: large enough for the cores, small enough for the cache
PATTERNS_A_BATCH = 64

#: patches as a backend holds them: its own tensors
Patches = TypeVar("Patches")


@dataclass(frozen=True)
class Reconstruction:
    """One reconstructed scan.

    image: the stitched object and its coverage. probe (P, N, N) complex64. positions_px (M, 2) [x, y] px, as
    stitched. global_offsets (G, 1, 2, 1) and coords_nominal (G, 1, 2, C): the groups' places, px.
    to_counts: the factor that makes the probe's power counts. groups_per_s: speed of prediction and
    stitching. patches (K, N, N) complex64, where they were kept. agreement: how well object and probe explain
    the patterns, where that was asked. geometry: what the scan says of its metres.
    """

    image: Stitched
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    global_offsets: NDArray[np.float64]
    coords_nominal: NDArray[np.float64]
    to_counts: float
    groups_per_s: float
    patches: NDArray[np.complex64] | None = None
    agreement: RFactor | None = None
    geometry: Geometry = Geometry()

    @property
    def object_pixel_size_m(self) -> float | None:
        """Side of an object pixel, m; None where the scan does not say what it follows from."""
        return self.geometry.object_pixel_size_m(int(self.probe.shape[-1]))

    @property
    def object(self) -> NDArray[np.complex64]:
        """The stitched object (H, W) complex64."""
        return self.image.object

    @property
    def origin_xy(self) -> tuple[float, float]:
        """Object pixel [x, y] of the canvas' [0, 0]."""
        return self.image.frame.origin_xy


@dataclass(frozen=True)
class Predictor(Generic[Patches]):
    """A trained network as it sees one scan: its numbers, and what a backend does for it.

    config: of the training. x_scale, nphotons: the normalisation of the scan, see
    `ptycho.scan.normalization`. probe (P, N, N) complex64. log_scale: the trained correction of the intensity
    scale. predict: x (b, C, N, N) float32 to patches (b, C_out, N, N).
    """

    config: TrainingConfig
    x_scale: float
    nphotons: float
    probe: NDArray[np.complex64]
    log_scale: float
    predict: Callable[[NDArray[np.float32]], Patches]

    @property
    def to_counts(self) -> float:
        """The factor that makes the power of the probe counts."""
        return intensity_scale(self.nphotons, self.config.model.N) * math.exp(self.log_scale)

    @property
    def one_patch_a_group(self) -> bool:
        """Whether a group of several patterns has one patch, at its mean (object_big off)."""
        return self.config.model.gridsize > 1 and not self.config.model.object_big


def reconstruct(
    seen: Predictor[Patches],
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
    team: Team = ALONE,
) -> Reconstruction:
    """Predict every group of a container and stitch all patches, each at its own position.

    `flip_x`, `flip_y` mirror the positions, `transpose` exchanges x and y (in this order), `coord_scale`
    multiplies them. `weighting` is 'probe' or 'uniform'; M the stitched window's side in px, None: what the
    probe lights. Time linear in groups; memory: canvas, one batch, and the patches only if `keep_patches`;
    they are on disk where the container's patterns are. Of several processes (`team`) each takes every
    K-th batch, and all have the whole image in the end; patches are kept by one process only.
    """
    if keep_patches and team.size > 1:
        raise ConfigError("patches are kept by one process only; leave --devices out")
    N, C = container.N, container.gridsize**2
    weights = window_weights(seen.probe, auto_window_side(seen.probe) if M is None else M, weighting)
    positions = transform_positions(
        container.positions_px, flip_x=flip_x, flip_y=flip_y, transpose=transpose, coord_scale=coord_scale
    )
    canvas = Stitcher(make_frame(positions, weights.shape[0], canvas_shape), weights)
    size = batch_size or max(1, PATTERNS_A_BATCH // C)
    order = scan_order(positions[container.nn_indices[:, 0]], size)
    shape = (len(order), 1 if seen.one_patch_a_group else C, N, N)
    kept = room_for_patches(shape, container) if keep_patches else None
    begun = time.perf_counter()
    for number, part in enumerate(chunks(len(order), size)):
        if number % team.size != team.rank:
            continue
        groups = order[part]
        members = container.nn_indices[groups]
        patches = seen.predict(container.patterns[members])
        places = positions[members]
        if seen.one_patch_a_group:
            places = places.mean(1, keepdims=True)
        canvas.add(patches, places.reshape(-1, 2))
        if kept is not None:
            kept.put(groups, ops_of(patches).to_numpy(patches))
        if progress is not None:
            progress(min(part.stop, len(order)), len(order))
    canvas.pool(team)
    rate = len(order) / max(time.perf_counter() - begun, 1e-9)
    return Reconstruction(
        image=canvas.result(),
        probe=seen.probe,
        positions_px=positions,
        global_offsets=container.global_offsets,
        coords_nominal=container.coords_nominal,
        to_counts=seen.to_counts,
        groups_per_s=rate,
        patches=kept.array().reshape(-1, N, N) if kept is not None else None,
        geometry=container.geometry,
    )


def judged_by_data(
    made: Reconstruction, container: PtychoDataContainer, team: Team = ALONE
) -> Reconstruction:
    """The same with `agreement`: the stitched object re-diffracted at every position, by all of `team`.

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
        team=team,
    )
    return dataclasses.replace(made, agreement=agreement)
