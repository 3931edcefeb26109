"""Any other HDF5 file: the user names the places, `--set path.frames=/a/b path.positions_x=/c/d` and so on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptycho.errors import DataError
from ptycho.io.formats.found import Found
from ptycho.io.formats.hdf5_habits import complex_of
from ptycho.io.formats.registry import ForeignFormat, Paths
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


def _find_plain(path: Path, paths: Paths) -> Found:
    """The named places of an HDF5 file; units by the `units` attributes, metres and eV without them."""
    named = {key: place for key, place in paths.items() if key != "links"}
    if not named:
        raise DataError(
            f"{path}: an HDF5 layout that is not known; name its places: --set path.frames=/place "
            "path.positions_x=/place path.positions_y=/place"
        )
    found = Found("HDF5 with named places")
    with open_hdf5(path) as archive:
        for key, place in named.items():
            dataset(archive, place)  # what is not there is said with its name
            del key
        if "frames" in paths:
            holder = dataset(archive, paths["frames"])
            found.codec = codec_of(holder)
            if holder.ndim == 4:
                found.grid = (int(holder.shape[0]), int(holder.shape[1]))
        for axis in ("positions", "positions_x", "positions_y"):
            if axis in paths and dataset(archive, paths[axis]).dtype.kind not in "uif":
                raise DataError(f"{path}: {paths[axis]!r} holds no numbers; name the positions")
        if "positions" in paths:
            holder = dataset(archive, paths["positions"])
            values = np.asarray(values_of(holder), float)
            if values.ndim != 2 or 2 not in values.shape:
                raise DataError(f"{path}: {paths['positions']!r} has shape {values.shape}; expected (M, 2)")
            values = values if values.shape[1] == 2 else values.T
            found.positions_m = values * factor_of(holder, LENGTHS_M, "m")
        elif "positions_x" in paths and "positions_y" in paths:
            columns = []
            for axis in "xy":
                holder = dataset(archive, paths[f"positions_{axis}"])
                columns.append(
                    np.asarray(values_of(holder), float).ravel() * factor_of(holder, LENGTHS_M, "m")
                )
            if len(columns[0]) != len(columns[1]):
                raise DataError(f"{path}: {len(columns[0])} values of x but {len(columns[1])} of y")
            found.positions_m = np.stack(columns, axis=1)
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
        energy = number_of(archive, ENERGIES_EV, "ev", paths.get("energy", ""))
        found.geometry = Geometry(
            number_of(archive, LENGTHS_M, "m", paths.get("wavelength", ""))
            or (HC_EV_M / energy if energy else None),
            distance_m=number_of(archive, LENGTHS_M, "m", paths.get("distance", "")),
            detector_pixel_size_m=number_of(archive, LENGTHS_M, "m", paths.get("detector_pixel_size", "")),
        )
    if "frames" in paths:
        found.frames = frames_of(path, paths["frames"])
    return found


FORMATS = (
    ForeignFormat(
        "hdf5", "any HDF5, places named by --set path.*", (".h5", ".hdf5", ".nxs"), "what is named", "h5py",
        is_hdf5, _find_plain,
    ),
)  # fmt: skip
