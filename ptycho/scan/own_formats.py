"""What `ptycho import` takes: this package's own scans (NPZ, ptychodus) first, then every foreign format."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.io.formats import registry as foreign
from ptycho.io.formats.foreign import ForeignFormat, Paths
from ptycho.io.formats.found import Found
from ptycho.io.geometry import Geometry
from ptycho.io.hdf5_read import is_hdf5
from ptycho.io.lazy import NotByRows
from ptycho.io.npz import patterns_key
from ptycho.io.ptychodus_scan import is_ptychodus
from ptycho.io.registry import read_scan
from ptycho.scan.raw_data import RawData


def _is_npz(path: Path) -> bool:
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        keys = {name.removesuffix(".npy") for name in archive.namelist()}
    return patterns_key(keys) in keys


def _found(title: str, arrays: dict[str, Any]) -> Found:
    """A scan as it stands; its positions keep their object pixels."""
    try:
        arrays: dict[str, Any] = read_scan(path, patterns="auto")
    except NotByRows:
        arrays = read_scan(path)
    raw = RawData(**{"xcoords_start": None, "ycoords_start": None, **arrays})
    found = Found(title, unit=str(raw.diffraction_unit))
    found.frames = raw.diff3d
    found.positions_px = np.asarray(raw.positions_px)
    found.geometry = arrays.get("geometry") or Geometry()
    found.bad_pixels = arrays.get("bad_pixels")
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


def all_formats() -> dict[str, ForeignFormat]:
    """Every format that can be imported, by name: own ones first."""
    return {one.name: one for one in FORMATS} | foreign.formats()


def find_any(path: Path, paths: Paths | None = None, name: str | None = None) -> Found:
    """What a file of any format holds, own or foreign. Raises as `ptycho.io.formats.registry.format_of`."""
    for one in FORMATS:
        if name == one.name or (name is None and path.is_file() and one.recognises(path)):
            return one.find(path, paths or {})
    return foreign.find(path, paths, name)
