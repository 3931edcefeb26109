"""What a file of another program holds of a scan, before it is made one: None where the file does not say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.geometry import Geometry
from ptycho.io.lazy import Patterns


@dataclass
class Found:
    """The contents of one source.

    Attributes (M frames, K positions, H x W detector pixels):
        format: title of the format, for people.
        frames: (M, H, W) real, read by rows; None where this file holds only positions or a probe.
        grid: rows and columns of a raster scan whose frames lie on a grid.
        codec: how the frames are compressed in the file, for people.
        positions_m: (K, 2) float64 [x, y] metres: where the probe is on the sample. x grows with the column
            of the detector, y with its row.
        positions_px: the same in object pixels; at most one of the two.
        frame_index, position_index: (M,), (K,) numbers that pair frames with positions; None: by order.
        frame_time_s, position_time_s: (M,), (K,) times that pair them instead.
        geometry: what the file says of it.
        bad_pixels: (H, W) bool, True = ignore.
        bad_frames: (M,) bool, True = marked as bad.
        dark, flat: (H, W) to subtract, and to divide by.
        probe: (P, N, N) complex; object: (H', W') complex.
        unit: 'counts' or 'amplitude'.
        centre_px: (row, column) of the beam on the detector.
        notes: what a user should know, one sentence each.
    """

    format: str
    frames: Patterns | None = None
    grid: tuple[int, int] | None = None
    codec: str = ""
    positions_m: NDArray[np.float64] | None = None
    positions_px: NDArray[np.float64] | None = None
    frame_index: NDArray[Any] | None = None
    position_index: NDArray[Any] | None = None
    frame_time_s: NDArray[np.float64] | None = None
    position_time_s: NDArray[np.float64] | None = None
    geometry: Geometry = field(default_factory=Geometry)
    bad_pixels: NDArray[np.bool_] | None = None
    bad_frames: NDArray[np.bool_] | None = None
    dark: NDArray[Any] | None = None
    flat: NDArray[Any] | None = None
    probe: NDArray[Any] | None = None
    object: NDArray[Any] | None = None
    unit: str | None = None
    centre_px: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def n_positions(self) -> int | None:
        """How many positions the source has; None where it has none."""
        for positions in (self.positions_m, self.positions_px):
            if positions is not None:
                return len(positions)
        return None

    def overruled_by(self, other: Found) -> Found:
        """The same contents, with those of `other` wherever it has any."""
        if other.frames is not None:
            self.frames, self.grid, self.codec = other.frames, other.grid, other.codec
            self.bad_frames = other.bad_frames
        if other.n_positions is not None:
            self.positions_m, self.positions_px = other.positions_m, other.positions_px
        for name in (
            "frame_index", "position_index", "frame_time_s", "position_time_s", "bad_pixels", "dark", "flat",
            "probe", "object",
        ):  # fmt: skip
            if getattr(other, name) is not None:
                setattr(self, name, getattr(other, name))
        self.geometry = self.geometry.overruled_by(other.geometry)
        return self

    def with_positions_of(self, other: Found) -> Found:
        """The same contents with the positions of a second file; DataError where it has none."""
        if other.n_positions is None:
            raise DataError(f"the positions file ({other.format}) holds no positions")
        self.positions_m, self.positions_px = other.positions_m, other.positions_px
        self.position_index, self.position_time_s = other.position_index, other.position_time_s
        self.geometry = self.geometry.completed_by(other.geometry)
        self.probe = self.probe if self.probe is not None else other.probe
        self.object = self.object if self.object is not None else other.object
        self.notes += other.notes
        return self
