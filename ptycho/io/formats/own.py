"""The scans that this package reads by itself, for `ptycho import` to complete."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.errors import DataError
from ptycho.io.compressed.reading import compressed_by_rows, is_compressed
from ptycho.io.formats.foreign import ForeignFormat, Paths
from ptycho.io.formats.found import Found
from ptycho.io.geometry import Geometry
from ptycho.io.hdf5_read import is_hdf5
from ptycho.io.npz import patterns_key, read_npz
from ptycho.io.ptychodus_scan import is_ptychodus, read_ptychodus_scan


def _is_npz(path: Path) -> bool:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            keys = {name.removesuffix(".npy") for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError):
        return False
    return patterns_key(keys) in keys


def _found(title: str, arrays: dict[str, Any]) -> Found:
    """A scan as it stands; its positions keep their object pixels."""
    frames = arrays["diff3d"]
    if frames.ndim == 4 and frames.shape[-1] == 1:
        frames = frames[..., 0] if isinstance(frames, np.ndarray) else frames.without_last_axis()
    if frames.ndim != 3:
        raise DataError(f"the frames have shape {frames.shape}; expected three axes (M, N, N)")
    places = np.stack([np.ravel(arrays["xcoords"]), np.ravel(arrays["ycoords"])], axis=1).astype(np.float64)
    last = arrays.get("pattern_order") == "NNM" or len(frames) != len(places)
    if last and frames.shape[-1] == len(places) and isinstance(frames, np.ndarray):
        frames = np.moveaxis(frames, -1, 0)
    whole = np.dtype(frames.dtype).kind in "ui"
    found = Found(title, frames=frames, positions_px=places)
    found.unit = arrays.get("diffraction_unit") or ("counts" if whole else None)
    # such positions lie along the detector's axes, whatever angle the file tells
    found.geometry = replace(arrays.get("geometry") or Geometry(), rotation_rad=0.0)
    found.bad_pixels = arrays.get("bad_pixels")
    marks = arrays.get("bad_frames")
    found.bad_frames = None if marks is None else np.asarray(marks) != 0
    found.object = arrays.get("objectGuess")
    found.centre_px = (float(frames.shape[1] // 2), float(frames.shape[2] // 2))
    probe = arrays.get("probeGuess")
    if probe is not None:
        probe = probe[..., 0] if probe.ndim == 3 and probe.shape[-1] == 1 else probe
        found.probe = probe.reshape(-1, *probe.shape[-2:])
    return found


def _find_npz(path: Path, paths: Paths) -> Found:
    return _found("NPZ scan", read_npz(path, probe_required=False))


def _find_ptychodus(path: Path, paths: Paths) -> Found:
    return _found("ptychodus", read_ptychodus_scan(path, by_rows=True))


def _find_compressed(path: Path, paths: Paths) -> Found:
    return _found("compressed scan", compressed_by_rows(path))


FORMATS = (
    ForeignFormat(
        "compressed", "compressed scan", (".h5", ".hdf5"), "frames, positions, geometry, mask, probe, object",
        "h5py, hdf5plugin", is_compressed, _find_compressed, places=(),
    ),
    ForeignFormat(
        "npz", "NPZ scan", (".npz",), "frames, positions, geometry, mask, probe, object", "numpy",
        _is_npz, _find_npz, places=(),
    ),
    ForeignFormat(
        "ptychodus", "ptychodus diffraction and product", (".h5", ".hdf5"),
        "frames, positions, geometry, mask, probe, object", "h5py",
        lambda path: is_hdf5(path) and is_ptychodus(path), _find_ptychodus, places=(),
    ),
)  # fmt: skip
