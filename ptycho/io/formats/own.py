"""The scans that this package has always read, NPZ and ptychodus', for `ptycho import` to complete."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.io.formats.found import Found
from ptycho.io.formats.registry import ForeignFormat, Paths
from ptycho.io.geometry import Geometry
from ptycho.io.hdf5_read import is_hdf5
from ptycho.io.lazy import NotByRows
from ptycho.io.npz import patterns_key
from ptycho.io.ptychodus_scan import is_ptychodus


def _is_npz(path: Path) -> bool:
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        keys = {name.removesuffix(".npy") for name in archive.namelist()}
    return patterns_key(keys) in keys


def _find_own(title: str, path: Path) -> Found:
    """A scan as it stands; its positions keep their object pixels."""
    from ptycho.io.registry import read_scan
    from ptycho.scan.raw_data import RawData

    try:
        arrays: dict[str, Any] = read_scan(path, patterns="auto", probe_required=False)
    except NotByRows:
        arrays = read_scan(path, probe_required=False)
    raw = RawData(**{"xcoords_start": None, "ycoords_start": None, **arrays})
    found = Found(title, unit=str(raw.diffraction_unit))
    found.frames = raw.diff3d
    found.positions_px = np.asarray(raw.positions_px)
    found.geometry = arrays.get("geometry") or Geometry()
    found.bad_pixels = raw.bad_pixels
    found.probe = None if raw.probe_made else raw.probe_modes
    found.object = raw.objectGuess
    found.centre_px = (raw.N // 2, raw.N // 2)
    return found


def _find_npz(path: Path, paths: Paths) -> Found:
    return _find_own("NPZ scan", path)


def _find_ptychodus(path: Path, paths: Paths) -> Found:
    return _find_own("ptychodus", path)


FORMATS = (
    ForeignFormat(
        "npz", "NPZ scan", (".npz",), "frames, positions, geometry, mask, probe, object", "numpy",
        _is_npz, _find_npz,
    ),
    ForeignFormat(
        "ptychodus", "ptychodus diffraction and product", (".h5", ".hdf5"),
        "frames, positions, geometry, mask, probe, object", "h5py",
        lambda path: is_hdf5(path) and is_ptychodus(path), _find_ptychodus,
    ),
)  # fmt: skip
