"""Any other HDF5 file: the user names the places, as in `--set path.frames=/a/b path.positions_x=/c/d`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.formats.foreign import ForeignFormat, Paths
from ptycho.io.formats.found import Found
from ptycho.io.formats.hdf5_habits import complex_of
from ptycho.io.geometry import HC_EV_M, Geometry
from ptycho.io.hdf5_read import (
    ENERGIES_EV,
    LENGTHS_M,
    array_of,
    codec_of,
    dataset,
    factor_of,
    frames_of,
    is_hdf5,
    number_of,
    values_of,
)
from ptycho.io.ptychodus_hdf5 import open_hdf5

#: what can be named inside a file, and its meaning
PLACES = {
    "frames": "frames (M, rows, columns), or a grid of them",
    "positions": "positions (M, 2) [x, y]",
    "positions_x": "x of the positions (M,)",
    "positions_y": "y of the positions (M,)",
    "frame_index": "numbers of the frames, paired with position_index",
    "position_index": "numbers of the positions",
    "frame_time": "times of the frames, s",
    "position_time": "times of the positions, s",
    "mask": "bad pixels (rows, columns), nonzero = ignored",
    "dark": "dark frame to subtract",
    "flat": "flat field to divide by",
    "probe": "probe, complex",
    "object": "object, complex",
    "energy": "photon energy",
    "wavelength": "wavelength",
    "distance": "sample to detector",
    "detector_pixel_size": "side of a detector pixel",
    "links": "'anywhere' follows links out of the folder of the file",
}


#: arrays that are looked at, and named, where nothing is known of a file
_MOST_SEEN, _NAMED = 2000, 6


def _find_plain(path: Path, paths: Paths) -> Found:
    if not paths:
        raise DataError(
            f"{path}: an HDF5 layout that is not known; name its places: --set path.frames=/place "
            f"path.positions_x=/place path.positions_y=/place{_held(path)}"
        )
    return find_named(path, paths)


def _held(path: Path) -> str:
    """The largest arrays of the file with their shapes, in words; of very many only the first are seen."""
    import h5py

    seen: list[tuple[int, str]] = []

    def note(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset) and item.ndim:
            seen.append((int(item.size), " ".join(f"/{name} {tuple(map(int, item.shape))}".split())))
        return True if len(seen) >= _MOST_SEEN else None

    with open_hdf5(path) as archive:
        archive.visititems(note)
    largest = [words for _, words in sorted(seen, key=lambda one: -one[0])[:_NAMED]]
    return f"; it holds {', '.join(largest)}" if largest else ""


def find_named(path: Path, paths: Paths, grid: tuple[int, int] | None = None) -> Found:
    """The named places of an HDF5 file; units by the `units` attributes, metres and eV without them.

    Of frames on a grid (rows, columns), x may have one value a column and y one a row.
    """
    found = Found("HDF5 with named places", grid=grid)
    with open_hdf5(path) as archive:
        for place in paths.values():
            dataset(archive, place)  # what is not there is said with its name
        if "frames" in paths:
            holder = dataset(archive, paths["frames"])
            found.codec = codec_of(holder)
            four = holder.ndim == 4
            found.grid = (int(holder.shape[0]), int(holder.shape[1])) if four else None
        found.positions_m = _positions(archive, paths, found.grid)
        found.frame_index = array_of(archive, paths.get("frame_index", ""))
        found.position_index = array_of(archive, paths.get("position_index", ""))
        found.frame_time_s = array_of(archive, paths.get("frame_time", ""))
        found.position_time_s = array_of(archive, paths.get("position_time", ""))
        mask = array_of(archive, paths.get("mask", ""))
        found.bad_pixels = None if mask is None else mask != 0
        found.dark = array_of(archive, paths.get("dark", ""))
        found.flat = array_of(archive, paths.get("flat", ""))
        found.probe = complex_of(array_of(archive, paths.get("probe", "")))
        found.object = complex_of(array_of(archive, paths.get("object", "")))
        found.geometry = _geometry(archive, paths)
    if "frames" in paths:
        found.frames = frames_of(path, paths["frames"])
    return found


def _positions(archive: Any, paths: Paths, grid: tuple[int, int] | None) -> NDArray[np.float64] | None:
    """Positions (M, 2) [x, y] in metres from the named places; None where none is named."""
    if "positions" in paths:
        columns = [_metres(archive, paths["positions"])]
        whole = columns[0] if columns[0].ndim == 2 and columns[0].shape[1] == 2 else columns[0].T
        if whole.ndim != 2 or whole.shape[1] != 2:
            raise DataError(
                f"{archive.filename}: {paths['positions']!r} has shape {columns[0].shape}; expected (M, 2)"
            )
        return whole
    named = [axis for axis in "xy" if f"positions_{axis}" in paths]
    if len(named) == 1:
        raise DataError(f"{archive.filename}: path.positions_{named[0]} alone; name both x and y")
    if not named:
        return None
    x, y = (_metres(archive, paths[f"positions_{axis}"]).ravel() for axis in "xy")
    if grid is not None and (len(y), len(x)) == grid and len(x) * len(y) > max(grid):
        x, y = np.tile(x, grid[0]), np.repeat(y, grid[1])
    if len(x) != len(y):
        raise DataError(f"{archive.filename}: {len(x)} values of x but {len(y)} of y")
    return np.stack([x, y], axis=1)


def _metres(archive: Any, place: str) -> NDArray[np.float64]:
    holder = dataset(archive, place)
    if holder.dtype.kind not in "uif":
        raise DataError(f"{archive.filename}: {place!r} holds no numbers; name the positions")
    return np.asarray(values_of(holder), float) * factor_of(holder, LENGTHS_M, "m")


def _geometry(archive: Any, paths: Paths) -> Geometry:
    energy = number_of(archive, ENERGIES_EV, "ev", paths.get("energy", ""))
    wavelength = number_of(archive, LENGTHS_M, "m", paths.get("wavelength", ""))
    return Geometry(
        wavelength or (HC_EV_M / energy if energy else None),
        distance_m=number_of(archive, LENGTHS_M, "m", paths.get("distance", "")),
        detector_pixel_size_m=number_of(archive, LENGTHS_M, "m", paths.get("detector_pixel_size", "")),
    )


FORMATS = (
    ForeignFormat(
        "hdf5", "any HDF5, places named by --set path.*", (".h5", ".hdf5", ".nxs"), "what is named", "h5py",
        is_hdf5, _find_plain,
    ),
)  # fmt: skip
