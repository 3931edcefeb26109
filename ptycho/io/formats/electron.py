"""Files of electron microscopes: .mib, .dm4, .emd, .hspy and others through rosettasciio; py4DSTEM's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, MissingDependencyError
from ptycho.io.formats.arrays import begins, frames_from_array
from ptycho.io.formats.foreign import ForeignFormat, Paths
from ptycho.io.formats.found import Found
from ptycho.io.geometry import Geometry, electron_wavelength_m
from ptycho.io.hdf5_read import LENGTHS_M, array_of, codec_of, frames_of, holds, is_hdf5, peeked, text
from ptycho.io.ptychodus_hdf5 import open_hdf5
from ptycho.io.reading import one_line

_HYPERSPY = "Experiments"


def _is_hyperspy(path: Path) -> bool:
    return holds(path, _HYPERSPY) or holds(path, "Data", "Features")


def _is_emd(path: Path) -> bool:
    """Berkeley's EMD up to version 0.2, or Velox' by its suffix; version 1 is py4DSTEM's."""
    if not is_hdf5(path) or _is_py4dstem(path):
        return False
    with peeked(path) as archive:
        return "version_major" in archive.attrs or (path.suffix.lower() == ".emd" and "Data" in archive)


def _is_empad(path: Path) -> bool:
    with path.open("rb") as stream:
        return begins(path, b"<?xml", b"<root") and b"<raw_file" in stream.read(1 << 20)


def _is_mrc(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(212)[208:] == b"MAP "


def _ends(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix.lower() in suffixes


#: ending that rosettasciio knows the format by: whether a file is of it
_KINDS: dict[str, Callable[[Path], bool]] = {
    "mib": lambda path: begins(path, b"MQ1,"),
    "dm4": lambda path: begins(path, b"\x00\x00\x00\x04"),
    "dm3": lambda path: begins(path, b"\x00\x00\x00\x03"),
    "blo": lambda path: begins(path, b"IMGBLO"),
    "hspy": _is_hyperspy,
    "emd": _is_emd,
    "xml": _is_empad,
    "mrc": _is_mrc,
    "seq": _ends(".seq"),
    "tvips": _ends(".tvips"),
    "zspy": _ends(".zspy"),
}
_SUFFIXES = tuple(f".{kind}" for kind in _KINDS)


def _kind(path: Path) -> str | None:
    for kind, is_one in _KINDS.items():
        if path.is_dir() and kind != "zspy":
            continue
        if is_one(path):
            return kind
    return None


def _find_microscope(path: Path, paths: Paths) -> Found:
    """The first signal of four axes (a scan of frames) or three; its calibrations become the geometry.

    Units are read from the axes: lengths for the scan, 1/length or angle for the detector; beam energy (keV)
    and camera length (mm) from the metadata.
    """
    try:
        import rsciio
        from rsciio import IO_PLUGINS
    except ImportError:
        raise MissingDependencyError(
            f"{path}: files of electron microscopes need rosettasciio (its licence is GPL): pip install "
            "'ptychopinn[electron]'"
        ) from None
    kind = _kind(path) or path.suffix.lower().lstrip(".")
    plugins = [one for one in IO_PLUGINS if kind in one["file_extensions"]]
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
    found = Found(f"electron microscope file ({kind})", unit="counts")
    frames_from_array(_Computed(signal["data"]), found, str(path))
    instrument = _deep(signal.get("metadata", {}), "Acquisition_instrument", "TEM") or {}
    energy = float(instrument.get("beam_energy") or 0)
    length_mm = float(instrument.get("camera_length") or 0)
    axes = signal["axes"]
    calibrated = [(_number(axis.get("scale")), str(axis.get("units") or "").strip()) for axis in axes]
    side = min(int(n) for n in signal["data"].shape[-2:])
    found.geometry = geometry_of(calibrated[-1], side, energy, length_mm)
    if found.grid is not None and len(axes) == 4:
        found.positions_m = raster(found.grid, calibrated[:2])
    return found


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float, np.number)) else 0.0


class _Computed:
    """A dask array whose slices are ordinary arrays."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self.shape, self.dtype = data.shape, data.dtype

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self._data[index])


def geometry_of(
    pixel: tuple[float, str], side_px: int, energy_keV: float = 0.0, camera_length_mm: float = 0.0
) -> Geometry:
    """The geometry of electrons from the calibration of a detector pixel: an angle or a reciprocal length.

    A reciprocal length q (cycles, not radians) gives the angle where the energy is known, else the object
    pixel itself: 1 / (side q), which no wavelength enters.

    >>> geometry_of((0.25, "1/nm"), 64).object_pixel_size_m(64)
    6.25e-11
    """
    scale, unit = pixel
    wavelength = electron_wavelength_m(energy_keV * 1e3) if energy_keV > 0 else None
    angle = size = None
    if scale > 0 and unit in ("mrad", "rad"):
        angle = scale * (1e-3 if unit == "mrad" else 1.0)
    length = unit.removeprefix("1/").removesuffix("^-1").removesuffix("-1").strip().lower()
    if scale > 0 and length != unit.lower() and length in LENGTHS_M:
        per_m = scale / LENGTHS_M[length]
        angle = per_m * wavelength if wavelength else None
        size = None if wavelength else 1 / (side_px * per_m)
    return Geometry(
        wavelength, beam="electron", distance_m=camera_length_mm * 1e-3 or None,
        angular_pixel_size_rad=angle, measured_object_pixel_size_m=size,
    )  # fmt: skip


def raster(grid: tuple[int, int], steps: Sequence[tuple[float, str]]) -> NDArray[np.float64] | None:
    """Positions (rows * columns, 2) [x, y] m of a grid, from (step, unit) of rows and columns; or None."""
    sizes = [step * LENGTHS_M.get(unit.lower(), 0.0) for step, unit in steps]
    if not all(size > 0 for size in sizes):
        return None
    rows, columns = np.meshgrid(*(np.arange(n) for n in grid), indexing="ij")
    return np.stack([columns.ravel() * sizes[1], rows.ravel() * sizes[0]], axis=1)


def _deep(values: Any, *keys: str) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


# -------------------------------------------------------------------------------------------------- py4DSTEM


def _data_cube(archive: Any) -> tuple[str, str] | None:
    """(place of the first DataCube, place of the root above it) in a file of EMD 1.0."""
    import h5py

    if text(archive.attrs.get("emd_group_type", "")) != "file":
        return None
    for root in archive.values():
        for group in root.values() if isinstance(root, h5py.Group) else ():
            if isinstance(group, h5py.Group) and text(group.attrs.get("python_class", "")) == "DataCube":
                return str(group.name), str(root.name)
    return None


def _is_py4dstem(path: Path) -> bool:
    with peeked(path) as archive:
        return bool(archive) and _data_cube(archive) is not None


def _find_py4dstem(path: Path, paths: Paths) -> Found:
    """A DataCube of py4DSTEM (EMD 1.0): frames [Rx, Ry, Qx, Qy], where Rx counts rows and Ry columns.

    The calibration has the sizes of a scan step and of a detector pixel; without a unit they are pixels and
    are not taken. Its rotation and flip between scan and detector are said and not applied.
    """
    with open_hdf5(path) as archive:
        cube, root = _data_cube(archive) or ("", "")
        data = archive[f"{cube}/data"]
        if data.ndim != 4:
            raise DataError(f"{path}: {cube}/data has shape {data.shape}; a DataCube has four axes")
        found = Found("py4DSTEM", unit="counts", codec=codec_of(data))
        found.grid = (int(data.shape[0]), int(data.shape[1]))
        side = min(int(n) for n in data.shape[-2:])
        known = _calibration(archive, f"{root}/metadatabundle/calibration")
    found.geometry = geometry_of((_number(known.get("Q_pixel_size")), str(known.get("Q_pixel_units"))), side)
    step = (_number(known.get("R_pixel_size")), str(known.get("R_pixel_units")))
    found.positions_m = raster(found.grid, (step, step))
    turn = _number(known.get("QR_rotation"))
    flipped = bool(known.get("QR_flip"))
    if turn or flipped:
        found.notes.append(
            f"a rotation of {np.degrees(turn):.4g} degrees{' and a flip' if flipped else ''} between scan"
            " and detector is not applied: try --set rotation_deg=... swap_xy=true"
        )
    found.frames = frames_of(path, f"{cube}/data")
    return found


def _calibration(archive: Any, place: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    group = archive.get(place)
    for name in () if group is None else group:
        values = array_of(group, name) if not name.startswith("_") else None
        if values is not None and values.size == 1:
            value = values.ravel()[0]
            made[name] = text(value) if values.dtype.kind in "OS" else value
    return made


FORMATS = (
    ForeignFormat(
        "py4dstem", "py4DSTEM", (".h5", ".emd"), "frames, grid positions, calibration", "h5py",
        _is_py4dstem, _find_py4dstem, places=(),
    ),
    ForeignFormat(
        "electron", "electron microscopes (.mib, .dm4, .emd, .hspy, .blo)", _SUFFIXES,
        "frames, grid positions, geometry", "rosettasciio",
        lambda path: _kind(path) is not None, _find_microscope, places=(),
    ),
)  # fmt: skip
