"""Network input x = amplitude * x_scale of a whole scan: in memory, or in a memory-mapped scratch file."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import PyTorchExecutionConfig
from ptycho.io.lazy import LazyPatterns, Patterns, as_lazy
from ptycho.io.scratch import ScratchArray, folder_for, goes_to_disk
from ptycho.scan import normalization
from ptycho.scan.raw_data import RawData


class HasPatterns(Protocol):
    """The part of a container that is used here; `ptycho.scan.container.PtychoDataContainer` has it."""

    @property
    def patterns(self) -> NDArray[np.float32]:
        """Network input (M,N,N)."""
        ...

    @property
    def scratch_folder(self) -> Path | None:
        """Folder for temporary files; None: the system's."""
        ...


class Stored(NamedTuple):
    """Patterns (M,N,N) float32, an array or a read-only `np.memmap`, and the gauges they are in."""

    patterns: NDArray[np.float32]
    x_scale: float
    nphotons: float


def store_patterns(raw: RawData, x_scale: float | None = None, nphotons: float | None = None) -> Stored:
    """Normalise a scan. Gauges that are None are taken from it. The result does not depend on where it is
    stored.

    The patterns are stored where the scan says (`RawData.with_storage`): in memory, or in a scratch file
    (`ptycho.io.scratch`). 'auto' is on disk if the scan itself is read from disk, or if they need more than
    half of the available memory. Time: one pass, and one for each gauge that is taken. Memory: amplitude and
    result; on disk, one chunk. Raises InputError where the disk has too little room, DataError as
    `ptycho.scan.normalization` does.
    """
    place = raw.patterns_place
    if place == "auto" and isinstance(raw.diff3d, LazyPatterns):
        place = "disk"
    array = None
    if goes_to_disk(raw.diff3d.size * 4, place):
        array = ScratchArray(raw.diff3d.shape, np.float32, raw.scratch_folder)
    amplitude: Patterns = raw.amplitude() if array is None else raw.amplitude_by_rows()
    scale = normalization.x_scale(amplitude, raw.bad_pixels) if x_scale is None else float(x_scale)
    if nphotons is None:
        nphotons = normalization.photons_from_amplitude(amplitude, raw.diffraction_unit, raw.bad_pixels)
    if array is None:
        return Stored(np.asarray(amplitude) * np.float32(scale), scale, float(nphotons))
    for begin, chunk in as_lazy(amplitude).chunks():
        array.write(begin, chunk * np.float32(scale))
    return Stored(array.map(), scale, float(nphotons))


def is_on_disk(patterns: NDArray[np.float32]) -> bool:
    """Whether patterns are mapped from a file. Then nobody may copy all of them."""
    return isinstance(patterns, np.memmap)


def keep_patterns(data: Any, execution: PyTorchExecutionConfig | None, output_dir: Path | None) -> Any:
    """A scan, several, or None, whose containers store their patterns as the execution settings say.

    With 'auto', the choice made before (`RawData.with_storage`) stays. Scratch files go to the output folder,
    see `ptycho.io.scratch.folder_for`. Containers are returned as they are, because their patterns are stored
    already.
    """
    if isinstance(data, (list, tuple)):
        return type(data)(keep_patterns(one, execution, output_dir) for one in data)
    if not isinstance(data, RawData):
        return data
    settings = execution or PyTorchExecutionConfig()
    place = data.patterns_place if settings.patterns == "auto" else settings.patterns
    if settings.strategy == "ddp_spawn":  # processes started by 'spawn' would each copy the data
        place = "memory"
    return data.with_storage(place, data.scratch_folder or folder_for(output_dir))


def start_method(*scans: Any) -> str | None:
    """The start method of data-loading processes: 'fork' if patterns are on disk, so that they share the map.

    By pickling, the map would become a copy of all patterns. None: the system's default.
    """
    containers = [one for scan in scans for one in getattr(scan, "containers", (scan,)) if one is not None]
    on_disk = any(is_on_disk(container.patterns) for container in containers)
    return "fork" if on_disk and "fork" in multiprocessing.get_all_start_methods() else None


class Patches:
    """Patches (G, C, N, N) complex64 that inference stores: on disk if the patterns are on disk, else in
    memory.
    """

    def __init__(self, shape: tuple[int, ...], scratch: ScratchArray | None) -> None:
        self._scratch = scratch
        self._held = np.empty(shape, np.complex64) if scratch is None else None

    def put(self, groups: NDArray[np.int64], patches: NDArray[np.complex64]) -> None:
        """Store the patches (b, C, N, N) of these groups."""
        if self._held is not None:
            self._held[groups] = patches
        elif self._scratch is not None:
            for group, block in zip(groups, patches, strict=True):
                self._scratch.write(int(group), block[None])

    def array(self) -> NDArray[np.complex64]:
        """All patches, once every group is stored."""
        return self._held if self._held is not None else self._scratch.map()  # type: ignore[union-attr]


def room_for_patches(shape: tuple[int, ...], container: HasPatterns) -> Patches:
    """Room for the patches of a container's groups, where its patterns are."""
    on_disk = is_on_disk(container.patterns)
    return Patches(shape, ScratchArray(shape, np.complex64, container.scratch_folder) if on_disk else None)
