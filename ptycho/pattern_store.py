"""Network input x = amplitude * x_scale of a whole scan: in memory, or in a scratch file that is mapped."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho import normalization
from ptycho.io.lazy import LazyPatterns, Patterns, as_lazy
from ptycho.raw_data import RawData
from ptycho.scratch import ScratchArray, goes_to_disk


class Stored(NamedTuple):
    """patterns (M,N,N) float32, an array or a read-only `np.memmap`; the gauges they are in."""

    patterns: NDArray[np.float32]
    x_scale: float
    nphotons: float


def store_patterns(
    raw: RawData,
    x_scale: float | None = None,
    nphotons: float | None = None,
    *,
    place: str = "auto",
    folder: Path | None = None,
) -> Stored:
    """Normalise a scan; gauges that are None are taken from it. The same bits wherever the patterns are.

    `place`: 'memory', 'disk' (a scratch file in `folder`, see `ptycho.scratch`), or 'auto': on disk where a
    scan stays there already, or where the result would need more than half of the available memory.
    Time: one pass, and one for each gauge that is taken. Memory: amplitude and result; on disk, one chunk.
    Raises InputError where the disk has too little room, DataError as `ptycho.normalization` does.
    """
    if place == "auto" and isinstance(raw.diff3d, LazyPatterns):
        place = "disk"
    on_disk = goes_to_disk(raw.diff3d.size * 4, place)
    array = ScratchArray(raw.diff3d.shape, np.float32, folder) if on_disk else None
    amplitude: Patterns = raw.amplitude_by_rows() if on_disk else raw.amplitude()
    scale = normalization.x_scale(amplitude, raw.bad_pixels) if x_scale is None else float(x_scale)
    if nphotons is None:
        nphotons = normalization.photons_from_amplitude(amplitude, raw.diffraction_unit, raw.bad_pixels)
    if array is None:
        return Stored(np.asarray(amplitude) * np.float32(scale), scale, float(nphotons))
    for begin, chunk in as_lazy(amplitude).chunks():
        array.write(begin, chunk * np.float32(scale))
    return Stored(array.map(), scale, float(nphotons))


def is_on_disk(patterns: NDArray[np.float32]) -> bool:
    """Whether patterns are mapped from a file, so that no copy of all of them may be made."""
    return isinstance(patterns, np.memmap)
