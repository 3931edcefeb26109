"""A client's scan: the one of the package, which also lays its groups out as a dictionary of arrays.

Kept for ptychodus (1.2 to 1.7) and older scripts; `ptycho.clients.loading.load` makes a container of the
dictionary.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.clients import params
from ptycho.errors import DataError
from ptycho.scan import raw_data
from ptycho.scan.grouping import group_coordinates, group_offsets, group_positions, possible_groups
from ptycho.scan.labels import cut_patches
from ptycho.scan.normalization import x_scale

logger = logging.getLogger(__name__)


class RawData(raw_data.RawData):
    """One scan, see `ptycho.scan.raw_data.RawData`, with the layout of groups that clients ask for."""

    def generate_grouped_data(
        self,
        N: int,
        K: int = 4,
        nsamples: int = 1,
        dataset_path: str | None = None,
        seed: int | None = None,
        sequential_sampling: bool = False,
        gridsize: int | None = None,
        enable_oversampling: bool = False,
        neighbor_pool_size: int | None = None,
        normalization: float | None = None,
    ) -> dict[str, Any]:
        """`nsamples` groups of gridsize**2 patterns as arrays, for clients that want them laid out.

        Keys: diffraction (B,N,N,C) float32 amplitude; X_full the same times `normalization` (x_scale; None
        takes it from this scan); Y (B,N,N,C) complex64 labels or None; coords_nn (B,1,2,C), coords_offsets
        (B,1,2,1), coords_relative (B,1,2,C) float64 px [x, y], the three again as coords_start_*; nn_indices
        (B,C) int32; objectGuess. gridsize None is read from params.cfg; `dataset_path` is accepted and not
        used: nothing is cached on disk; seed None is 0. More groups than there are give every position once,
        with a warning; what is drawn: `ptycho.scan.grouping.group_positions`.

        Time and memory O(B C N^2); `PtychoDataContainer.from_raw` of `ptycho.scan.container` holds each
        pattern once instead.
        """
        if N != self.N:
            raise DataError(f"N is {N} but the patterns are {self.N} x {self.N}: set N to {self.N}")
        if gridsize is None:
            gridsize = int(params.cfg.get("gridsize", 1))
        if nsamples == 1 < self.n_positions:
            logger.warning(
                "nsamples is 1: only 1 of %d positions is taken; ask for %d (ptychodus: NumSamples)",
                self.n_positions,
                self.n_positions,
            )
        groups = group_positions(
            self.xcoords,
            self.ycoords,
            gridsize,
            n_groups=possible_groups(
                nsamples, self.n_positions, gridsize, K, enable_oversampling, neighbor_pool_size
            ),
            n_neighbors=K,
            seed=seed,
            enable_oversampling=enable_oversampling,
            sequential=sequential_sampling,
            neighbor_pool_size=neighbor_pool_size,
        )
        amplitude = self.amplitude()
        scale = x_scale(amplitude, self.bad_pixels) if normalization is None else normalization
        diffraction = np.moveaxis(amplitude[groups], 1, -1)
        offsets, relative = group_offsets(self.xcoords, self.ycoords, groups)
        start_offsets, start_relative = group_offsets(self.xcoords_start, self.ycoords_start, groups)
        return {
            "diffraction": diffraction,
            "Y": _labels(self, groups),
            "coords_offsets": offsets,
            "coords_relative": relative,
            "coords_start_offsets": start_offsets,
            "coords_start_relative": start_relative,
            "coords_nn": group_coordinates(self.xcoords, self.ycoords, groups),
            "coords_start_nn": group_coordinates(self.xcoords_start, self.ycoords_start, groups),
            "nn_indices": groups.astype(np.int32),
            "objectGuess": self.objectGuess,
            "X_full": diffraction * np.float32(scale),
        }


def _labels(raw: raw_data.RawData, groups: NDArray[np.int64]) -> NDArray[np.complex64] | None:
    """Object patches (B,N,N,C) at every member's own position, or None without an object."""
    if raw.Y is not None:
        return np.moveaxis(raw.Y[groups].astype(np.complex64), 1, -1)
    if raw.objectGuess is None:
        return None
    return np.moveaxis(cut_patches(raw.objectGuess, raw.positions_px[groups], raw.N), 1, -1)
