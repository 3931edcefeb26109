"""The diffraction file of ptychodus (`diffraction.h5`): patterns with the scan index that pairs each one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, InputError
from ptycho.io.atomic import atomic_write
from ptycho.io.lazy import Patterns
from ptycho.io.lazy_files import hdf5_patterns
from ptycho.io.ptychodus_hdf5 import SUFFIXES, open_hdf5, read_dataset, read_number, read_optional
from ptycho.io.sealed_hdf5 import new_file, put


@dataclass(frozen=True, eq=False)
class Diffraction:
    """Patterns (M,N,N) in counts, zero frequency at (N//2, N//2); `indexes` (M,) int pairs them to positions.

    bad_pixels (N,N) bool, True = ignore; detector_pixel_xy_m [x, y]; probe_photon_counts (M,) or None.
    """

    patterns: Patterns
    indexes: NDArray[Any]
    bad_pixels: NDArray[np.bool_]
    detector_pixel_xy_m: tuple[float, float]
    probe_photon_counts: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.patterns.ndim != 3 or self.patterns.dtype.kind not in "uif":
            raise DataError(
                f"patterns have shape {self.patterns.shape} and dtype {self.patterns.dtype}; "
                "expected real numbers (M,H,W)"
            )
        if self.indexes.ndim != 1 or self.indexes.dtype.kind not in "ui":
            raise DataError(f"indexes have dtype {self.indexes.dtype}; expected whole numbers (M,)")
        if len(self.indexes) != len(self.patterns):
            raise DataError(
                f"there are {len(self.patterns)} patterns but {len(self.indexes)} indexes: one each"
            )
        if self.bad_pixels.shape != self.patterns.shape[1:]:
            raise DataError(
                f"bad_pixels have shape {self.bad_pixels.shape} but patterns {self.patterns.shape[1:]}"
            )


def read_diffraction(path: str | os.PathLike[str], *, by_rows: bool = False) -> Diffraction:
    """Read `diffraction.h5`; `by_rows`: the patterns stay there. Raises DataError naming file and key.

    Time and memory: the patterns, once, unless they stay on disk.
    """
    with open_hdf5(path) as archive:
        stay = by_rows and "patterns" in archive
        patterns = hdf5_patterns(path, "patterns") if stay else read_dataset(archive, "patterns")
        holder = archive["patterns"]
        pixel = (
            read_number(archive, holder, "detector_pixel_width_m"),
            read_number(archive, holder, "detector_pixel_height_m"),
        )
        indexes, bad = read_dataset(archive, "indexes"), read_dataset(archive, "bad_pixels")
        counts = read_optional(archive, "probe_photon_counts")
    try:
        return Diffraction(patterns, indexes, bad.astype(np.bool_), pixel, counts)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def write_diffraction(path: str | os.PathLike[str], diffraction: Diffraction) -> None:
    """Write `diffraction.h5` whole or not at all, compressed without loss as ptychodus does."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise InputError(f"cannot write {path}: a diffraction file of ptychodus ends in .h5")
    packed = {"compression": "lzf", "fletcher32": True}
    with atomic_write(path) as temporary, new_file(temporary) as archive:
        archive.create_dataset("indexes", data=diffraction.indexes, **packed)
        patterns = archive.create_dataset("patterns", data=diffraction.patterns, **packed)
        patterns.attrs["detector_pixel_width_m"], patterns.attrs["detector_pixel_height_m"] = (
            diffraction.detector_pixel_xy_m
        )
        archive.create_dataset("bad_pixels", data=diffraction.bad_pixels, **packed)
        if diffraction.probe_photon_counts is not None:
            put(archive, "probe_photon_counts", diffraction.probe_photon_counts)
