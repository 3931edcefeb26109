"""What inference hands on, whichever backend computed it: the image, the probe, and how well they explain."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.evaluation.rfactor import RFactor, r_factor
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
from ptycho.image.stitcher import Stitcher
from ptycho.io.geometry import Geometry
from ptycho.ops import ops_of
from ptycho.ops.team import ALONE, Team
from ptycho.run.reference import coarse_reference, dealt, frame_of, moved, placed_on
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.normalization import intensity_scale
from ptycho.scan.pattern_store import room_for_patches
from ptycho.scan.reference import Reference

#: patterns in a batch when nothing else is asked: large enough for the cores, small enough for the cache
PATTERNS_A_BATCH = 64

#: patches as a backend holds them: its own tensors
Patches = TypeVar("Patches")
Given = TypeVar("Given", covariant=True)


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


class Predicts(Protocol[Given]):
    """x (b, C, N, N), and the reference around each where the network has one, to patches."""

    def __call__(self, x: NDArray[np.float32], reference: NDArray[np.complex64] | None = None) -> Given:
        """(b, C_out, N, N)."""


@dataclass(frozen=True)
class Predictor(Generic[Patches]):
    """A trained network as it sees one scan: its numbers, and what a backend does for it.

    config: of the training. x_scale, nphotons: the normalisation of the scan, see
    `ptycho.scan.normalization`. probe (P, N, N) complex64. log_scale: the trained correction of the intensity
    scale. predict: x (b, C, N, N) float32, and the reference around each (b, C, N, N) complex64 where the
    network has one, to patches (b, C_out, N, N).
    """

    config: TrainingConfig
    x_scale: float
    nphotons: float
    probe: NDArray[np.complex64]
    log_scale: float
    predict: Predicts[Patches]

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
    frame = make_frame(positions, weights.shape[0], canvas_shape)
    size = batch_size or max(1, PATTERNS_A_BATCH // C)
    order = scan_order(positions[container.nn_indices[:, 0]], size)
    shape = (len(order), 1 if seen.one_patch_a_group else C, N, N)
    patch_store = room_for_patches(shape, container) if keep_patches else None
    course = _Course(seen, container, positions, weights, size, patch_store, progress, team)
    begun = time.perf_counter()
    flat = seen.config.model.reference == "flat"
    image = course.stitched(order, frame) if flat else placed_on(*course.rounds(order), frame)
    rate = len(order) / max(time.perf_counter() - begun, 1e-9)
    return Reconstruction(
        image=image,
        probe=seen.probe,
        positions_px=positions,
        global_offsets=container.global_offsets,
        coords_nominal=container.coords_nominal,
        to_counts=seen.to_counts,
        groups_per_s=rate,
        patches=patch_store.array().reshape(-1, N, N) if patch_store is not None else None,
        geometry=container.geometry,
    )


@dataclass
class _Course(Generic[Patches]):
    """The way of the patterns of one scan through the network, batch by batch, shared by a team."""

    seen: Predictor[Patches]
    container: PtychoDataContainer
    positions: NDArray[np.float64]
    weights: NDArray[np.float32]
    size: int
    patch_store: Any
    progress: Callable[[int, int], None] | None
    team: Team
    done: int = 0

    def stitched(self, order: NDArray[np.int64], frame: Frame, around: Reference | None = None) -> Stitched:
        """The patches of these groups on one canvas, or what they change in a reference."""
        canvas = Stitcher(frame, self.weights)
        for number, part in enumerate(chunks(len(order), self.size)):
            self.done += part.stop - part.start
            if number % self.team.size != self.team.rank:
                continue
            groups = order[part]
            members = self.container.nn_indices[groups]
            places = self.positions[members]
            near = None if around is None else around.around(places, self.container.N)
            patches: Any = self.seen.predict(self.container.patterns[members], near)
            if self.patch_store is not None:
                self.patch_store.put(groups, ops_of(patches).to_numpy(patches))
            if near is not None:
                patches = ops_of(patches).to_numpy(patches) - near
            if self.seen.one_patch_a_group:
                places = places.mean(1, keepdims=True)
            canvas.add(patches, places.reshape(-1, 2))
            if self.progress is not None:
                total = len(self.container.nn_indices)
                self.progress(min(self.done, total), total)
        canvas.pool(self.team)
        return canvas.result()

    def rounds(self, order: NDArray[np.int64]) -> tuple[Reference, NDArray[np.float32]]:
        """The image that starts as the coarse object and is changed by one round of patterns after the other,
        and how well patches cover it."""
        container, seen = self.container, self.seen
        image = coarse_reference(container.patterns, self.positions, seen.probe, container.bad_pixels)
        own = frame_of(image)
        coverage = np.zeros(own.shape, np.float32)
        for part in dealt(order, seen.config.model.rounds):
            change = self.stitched(part, own, image)
            image = moved(image, change)
            coverage += change.coverage
        return image, coverage


def image_of(
    seen: Predictor[Any], container: PtychoDataContainer, batch_size: int | None = None
) -> Reference:
    """The image that a network makes of a scan in rounds, on the canvas of the coarse object, as it is where
    no patch lies. Time and memory of `reconstruct`."""
    weights = window_weights(seen.probe, auto_window_side(seen.probe))
    size = batch_size or max(1, PATTERNS_A_BATCH // container.gridsize**2)
    order = scan_order(container.positions_px[container.nn_indices[:, 0]], size)
    course = _Course(seen, container, container.positions_px, weights, size, None, None, ALONE)
    return course.rounds(order)[0]


def judged_by_data(
    reconstruction: Reconstruction, container: PtychoDataContainer, team: Team = ALONE
) -> Reconstruction:
    """The same with `agreement`: the stitched object re-diffracted at every position, by all of `team`.

    Time O(M N^2 log N), memory one pattern.
    """
    agreement = r_factor(
        reconstruction.image.object,
        reconstruction.probe,
        container.positions_px[:, 0],
        container.positions_px[:, 1],
        container.patterns,
        origin_xy=reconstruction.image.frame.origin_xy,
        bad_pixels=container.bad_pixels,
        team=team,
    )
    return dataclasses.replace(reconstruction, agreement=agreement)
