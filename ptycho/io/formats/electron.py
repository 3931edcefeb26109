"""Files of electron microscopes, through rosettasciio: .mib, .dm4, .emd, .hspy, .blo and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho.errors import DataError, MissingDependencyError
from ptycho.io.formats.arrays import frames_from_array
from ptycho.io.formats.foreign import ForeignFormat, Paths
from ptycho.io.formats.found import Found
from ptycho.io.geometry import Geometry, electron_wavelength_m
from ptycho.io.hdf5_read import LENGTHS_M, holds, is_hdf5, peeked
from ptycho.io.reading import one_line

_SUFFIXES = (".mib", ".dm3", ".dm4", ".blo", ".emd", ".hspy", ".zspy", ".seq", ".mrc", ".xml")
_HYPERSPY = "Experiments"


def _is_microscope(path: Path) -> bool:
    if path.suffix.lower() not in _SUFFIXES:
        return False
    if not is_hdf5(path):
        return path.exists()
    with peeked(path) as archive:
        named = bool(archive) and (_HYPERSPY in archive or "version_major" in archive.attrs)
    return named or holds(path, "Data") or path.suffix.lower() == ".emd"


def _find_microscope(path: Path, paths: Paths) -> Found:
    """The first signal of four axes (a scan of frames) or three; its calibrations become the geometry.

    Units are read from the axes: lengths for the scan, 1/length or angle for the detector; the beam energy
    from the metadata (keV).
    """
    try:
        import rsciio
        from rsciio import IO_PLUGINS
    except ImportError:
        raise MissingDependencyError(
            f"{path}: files of electron microscopes need rosettasciio (its licence is GPL): pip install "
            "'ptychopinn[electron]'"
        ) from None
    suffix = path.suffix.lower().lstrip(".")
    plugins = [one for one in IO_PLUGINS if suffix in one["file_extensions"]]
    signals: list[dict[str, Any]] = []
    reasons = []
    for plugin in plugins:
        reader = __import__(plugin["api"], fromlist=["file_reader"]).file_reader
        try:
            signals = reader(str(path), lazy=True)
            break
        except Exception as error:  # readers fail in ways of their own; the next may know the file
            reasons.append(f"{plugin['name']}: {one_line(error)}")
    frames = [one for one in signals if one["data"].ndim in (3, 4)]
    if not frames:
        why = "; ".join(reasons) or "it holds no scan of frames"
        raise DataError(f"{path}: rosettasciio {rsciio.__version__} found no frames ({why})")
    signal = frames[0]
    found = Found(f"electron microscope file ({suffix})", unit="counts")
    frames_from_array(_Computed(signal["data"]), found, str(path))
    _calibrate(found, signal)
    return found


class _Computed:
    """A dask array whose slices are ordinary arrays."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self.shape, self.dtype = data.shape, data.dtype

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self._data[index])


def _calibrate(found: Found, signal: dict[str, Any]) -> None:
    axes = signal["axes"]
    energy = _deep(signal.get("metadata", {}), "Acquisition_instrument", "TEM", "beam_energy")
    wavelength = electron_wavelength_m(float(energy) * 1e3) if energy else None
    detector = axes[-1]
    scale, unit = float(detector.get("scale", 0) or 0), str(detector.get("units") or "").strip()
    angle = None
    if unit in ("mrad", "rad") and scale > 0:
        angle = scale * (1e-3 if unit == "mrad" else 1.0)
    elif unit.startswith("1/") and unit[2:].lower() in LENGTHS_M and scale > 0 and wavelength:
        angle = scale / LENGTHS_M[unit[2:].lower()] * wavelength
    found.geometry = Geometry(wavelength, beam="electron", angular_pixel_size_rad=angle)
    if found.grid is None or len(axes) != 4:
        return
    steps = []
    for axis in axes[:2]:
        factor = LENGTHS_M.get(str(axis.get("units") or "").strip().lower())
        steps.append(float(axis.get("scale", 0) or 0) * factor if factor else 0.0)
    if all(step > 0 for step in steps):
        rows, columns = np.meshgrid(*(np.arange(n) for n in found.grid), indexing="ij")
        found.positions_m = np.stack([columns.ravel() * steps[1], rows.ravel() * steps[0]], axis=1)


def _deep(values: Any, *keys: str) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


FORMATS = (
    ForeignFormat(
        "electron", "electron microscopes (.mib, .dm4, .emd, .hspy, .blo)", _SUFFIXES,
        "frames, positions, geometry", "rosettasciio", _is_microscope, _find_microscope, places=(),
    ),
)  # fmt: skip
