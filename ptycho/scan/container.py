"""Grouped and normalised data in NumPy: each pattern is stored once, groups are built on request."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.geometry import Geometry
from ptycho.scan import normalization
from ptycho.scan.grouping import group_offsets, group_positions
from ptycho.scan.labels import cut_patches
from ptycho.scan.pattern_store import store_patterns
from ptycho.scan.placement import with_canvas_shape
from ptycho.scan.raw_data import RawData
from ptycho.scan.reference import Reference


@dataclass(frozen=True, eq=False)
class PtychoDataContainer:
    """Groups over one scan (M patterns, B groups of C = gridsize**2).

    Stored: patterns, positions and indices, M N^2 4 bytes + B C 8 bytes. `X`, `Y`, `Y_I` and `Y_phi` are
    built at each access, B C N^2 4 bytes (twice that for Y). In loops, index `patterns` with `nn_indices`.

    Attributes:
        patterns: (M,N,N) float32, x = amplitude * x_scale; a read-only np.memmap where they do not fit.
        positions_px: (M,2) float64 px, [x, y].
        nn_indices: (B,C) int64 into patterns and positions_px; column 0 is the anchor.
        probe: (P,N,N) complex64, the raw guess in its own gauge.
        x_scale, nphotons: the gauges, see `ptycho.scan.normalization`.
        source_rows: (M,) int64, the scan row that each pattern was.
        true_positions_px: (M,2) as positions_px, what `coords_true` is made of: nominal start positions if
            given.
        objectGuess: (H,W) complex or None; pattern_Y: (M,N,N) complex labels or None. Where both are there,
            pattern_Y is used.
        bad_pixels: (N,N) bool, True = ignore in the loss, or None.
        geometry: wavelength, distance and pixel sizes of the scan; empty where it does not say.
        reference: the starting image of a network, or None for a flat object.
        scratch_folder: folder for temporary files of patterns on disk; None: the system's.
    """

    patterns: NDArray[np.float32]
    positions_px: NDArray[np.float64]
    nn_indices: NDArray[np.int64]
    probe: NDArray[np.complex64]
    x_scale: float
    nphotons: float
    source_rows: NDArray[np.int64]
    true_positions_px: NDArray[np.float64]
    objectGuess: NDArray[Any] | None = None
    pattern_Y: NDArray[Any] | None = None
    bad_pixels: NDArray[np.bool_] | None = None
    scratch_folder: Path | None = None
    geometry: Geometry = Geometry()
    reference: Reference | None = None

    @classmethod
    def from_raw(
        cls,
        raw: RawData,
        gridsize: int,
        n_groups: int | None = None,
        n_neighbors: int = 4,
        seed: int | None = 0,
        enable_oversampling: bool = False,
        sequential: bool = False,
        neighbor_pool_size: int | None = None,
        x_scale: float | None = None,
        nphotons: float | None = None,
    ) -> PtychoDataContainer:
        """Group and normalise a scan; `x_scale` and `nphotons` None are taken from it (training), see
        `group_positions`. `raw` determines where the patterns are stored, see `ptycho.scan.pattern_store`.

        Raises DataError as grouping and normalisation do. Time O(M N^2 + M log M), memory as for the class.
        """
        groups = group_positions(
            raw.xcoords,
            raw.ycoords,
            gridsize,
            n_groups=n_groups,
            n_neighbors=n_neighbors,
            seed=seed,
            enable_oversampling=enable_oversampling,
            sequential=sequential,
            neighbor_pool_size=neighbor_pool_size,
        )
        stored = store_patterns(raw, x_scale, nphotons)
        return cls(
            patterns=stored.patterns,
            positions_px=raw.positions_px,
            nn_indices=groups,
            probe=raw.probe_modes,
            x_scale=stored.x_scale,
            nphotons=stored.nphotons,
            source_rows=np.arange(raw.n_positions, dtype=np.int64),
            true_positions_px=np.stack([raw.xcoords_start, raw.ycoords_start], axis=1),
            objectGuess=raw.objectGuess,
            pattern_Y=raw.Y,
            bad_pixels=raw.bad_pixels,
            scratch_folder=raw.scratch_folder,
            geometry=raw.geometry,
        )

    def __len__(self) -> int:
        return len(self.nn_indices)

    @property
    def N(self) -> int:
        """Side of a pattern, px."""
        return int(self.patterns.shape[-1])

    @property
    def gridsize(self) -> int:
        """Root of the number of patterns in a group."""
        return math.isqrt(self.nn_indices.shape[1])

    @property
    def intensity_scale(self) -> float:
        """s, for which (s x)^2 are counts."""
        return normalization.intensity_scale(self.nphotons, self.N)

    @property
    def X(self) -> NDArray[np.float32]:
        """(B,N,N,C) float32 network input, built at each access."""
        return np.ascontiguousarray(np.moveaxis(self.patterns[self.nn_indices], 1, -1))

    @property
    def has_labels(self) -> bool:
        """Whether the scan has an object or labels, so that Y exists."""
        return self.objectGuess is not None or self.pattern_Y is not None

    @property
    def Y(self) -> NDArray[np.complex64] | None:
        """(B,N,N,C) complex64 object patches at each pattern's own position, or None; in the object's own
        gauge."""
        if not self.has_labels:
            return None
        return np.moveaxis(self.pattern_labels(self.nn_indices), 1, -1)

    @property
    def Y_I(self) -> NDArray[np.float32] | None:
        """Amplitude of Y, (B,N,N,C) float32, or None."""
        labels = self.Y
        return None if labels is None else np.abs(labels)

    @property
    def Y_phi(self) -> NDArray[np.float32] | None:
        """Phase of Y, (B,N,N,C) float32 rad, or None."""
        labels = self.Y
        return None if labels is None else np.angle(labels)

    def pattern_labels(self, rows: NDArray[np.int64], scale: float = 1.0) -> NDArray[np.complex64]:
        """Labels (..., N, N) complex64 of these patterns times `scale`, any shape of `rows`. Raises DataError
        without labels."""
        if self.pattern_Y is not None:
            return np.asarray(self.pattern_Y[rows], dtype=np.complex64) * np.float32(scale)
        if self.objectGuess is None:
            raise DataError(
                "the scan has no objectGuess, so there are no labels: add one, or train unsupervised"
            )
        return cut_patches(self.objectGuess, self.positions_px[rows], self.N) * np.float32(scale)

    def pattern_references(self, rows: NDArray[np.int64]) -> NDArray[np.complex64]:
        """The reference around these patterns (..., N, N) complex64, any shape of `rows`. Raises DataError
        without one."""
        if self.reference is None:
            raise DataError("the scan has no reference image: make one with ptycho.run.reference")
        return self.reference.around(self.positions_px[rows], self.N)

    @property
    def global_offsets(self) -> NDArray[np.float64]:
        """(B,1,2,1) float64 px [x, y], centre of each group. Its `canvas_shape` is that of the scan's
        object.
        """
        canvas = None if self.objectGuess is None else self.objectGuess.shape
        return with_canvas_shape(group_offsets(*_columns(self.positions_px), self.nn_indices)[0], canvas)

    @property
    def local_offsets(self) -> NDArray[np.float64]:
        """(B,1,2,C) float64 px [x, y], centre minus position of each member."""
        return group_offsets(*_columns(self.positions_px), self.nn_indices)[1]

    @property
    def coords_nominal(self) -> NDArray[np.float64]:
        """The same as `local_offsets`; clients use this name."""
        return self.local_offsets

    @property
    def coords_true(self) -> NDArray[np.float64]:
        """(B,1,2,C) as `local_offsets`, from the start positions if the scan has them."""
        return group_offsets(*_columns(self.true_positions_px), self.nn_indices)[1]

    def select(self, groups: NDArray[np.integer[Any]]) -> PtychoDataContainer:
        """A container of these groups only; the patterns are shared, not copied."""
        return replace(self, nn_indices=self.nn_indices[groups])

    def split(self, val_fraction: float, seed: int | None = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Group numbers (train, validation), each ascending, drawn with `seed`.

        Both get at least one group if there are two or more; a single group is used for training.
        """
        if not 0 <= val_fraction <= 1:
            raise DataError(f"val_fraction is {val_fraction}; it must be between 0 and 1")
        count = len(self)
        held = min(max(1, round(val_fraction * count)), count - 1)
        order = np.random.default_rng(0 if seed is None else seed).permutation(count).astype(np.int64)
        return np.sort(order[held:]), np.sort(order[:held])


def _columns(positions_px: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return positions_px[:, 0], positions_px[:, 1]
