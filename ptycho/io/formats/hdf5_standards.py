"""Standard HDF5 layouts: CXI and NXcxi_ptycho, NeXus ptychography and scans, Eiger master files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.formats.foreign import ForeignFormat, Paths
from ptycho.io.formats.found import Found
from ptycho.io.geometry import HC_EV_M, Geometry
from ptycho.io.hdf5_read import (
    ENERGIES_EV,
    LENGTHS_M,
    array_of,
    codec_of,
    dataset,
    factor_of,
    first_of,
    frames_of,
    group_of,
    holds,
    number_of,
    peeked,
    text,
    values_of,
)
from ptycho.io.lazy import joined
from ptycho.io.ptychodus_hdf5 import open_hdf5

#: this value of a CXI mask marks a pixel with signal, not a bad one (CXI 1.6, table of mask bits)
_CXI_HAS_SIGNAL = 0x1000
#: our own group in a CXI file
EXTRAS = "ptychopinn"


# ------------------------------------------------------------------------------------------------------- CXI


def _cxi_frames_key(archive: Any) -> str | None:
    for key in ("entry_1/data_1/data", "entry_1/instrument_1/detector_1/data", "entry_1/image_1/data"):
        found = first_of(archive, key)
        if found is not None and (found.dtype.kind != "c" or "image_1" not in key):
            return key
    return None


def _is_cxi(path: Path) -> bool:
    with peeked(path) as archive:
        if "entry_1" not in archive:
            return False
        with contextlib.suppress(DataError):
            return _cxi_frames_key(archive) is not None or "entry_1/ptychodus" in archive
        return True  # a dead link: said when it is read


def _find_cxi(path: Path, paths: Paths) -> Found:
    """CXI as the standard has it: SI units, and `translation` of the sample, one row a frame.

    x of a translation runs to the left of the detector's columns and y up its rows, where no basis vectors
    say otherwise, and the sample moves against the beam: so a translation (x, y) moves the probe on the
    sample to column +x, row +y.
    """
    with open_hdf5(path) as archive:
        key = _cxi_frames_key(archive)  # None: a product of ptychodus, which has positions and probe
        detector, source = "entry_1/instrument_1/detector_1", "entry_1/instrument_1/source_1"
        wavelength = number_of(archive, LENGTHS_M, "m", f"{source}/wavelength")
        beam = "entry_1/instrument_1/beam_1"  # NXcxi_ptycho: there the energy of the source is the machine's
        energy = number_of(
            archive, ENERGIES_EV, "j", f"{beam}/energy", f"{beam}/incident_beam_energy", f"{source}/energy"
        )
        if wavelength is None and energy:
            wavelength = HC_EV_M / energy
        basis = array_of(archive, f"{detector}/basis_vectors")
        pixel = number_of(archive, LENGTHS_M, "m", f"{detector}/x_pixel_size", f"{detector}/y_pixel_size")
        if basis is not None:
            basis = basis if basis.shape == (3, 2) else basis.T
            pixel = pixel or float(np.linalg.norm(basis[:, 0]))
        found = Found("CXI", codec="" if key is None else codec_of(dataset(archive, key)), unit="counts")
        found.geometry = Geometry(
            wavelength, distance_m=_positive(number_of(archive, LENGTHS_M, "m", f"{detector}/distance")),
            detector_pixel_size_m=_positive(pixel),
        )  # fmt: skip
        moves = array_of(
            archive, "entry_1/data_1/translation", "entry_1/sample_1/geometry_1/translation",
            f"{detector}/translation", "entry_1/image_1/translation",
        )  # fmt: skip
        if moves is not None:
            found.positions_m = _cxi_positions(np.asarray(moves, float), basis)
        mask = array_of(archive, f"{detector}/mask")
        if mask is not None:
            found.bad_pixels = (mask.astype(np.int64) != 0) & (mask.astype(np.int64) != _CXI_HAS_SIGNAL)
        found.flat = array_of(archive, f"{detector}/qe_mask")
        dark = array_of(archive, f"{detector}/data_dark")
        found.dark = dark.mean(0) if dark is not None and dark.ndim == 3 else dark
        found.probe = array_of(archive, f"{source}/illumination", f"{EXTRAS}/probe")
        found.position_index = array_of(archive, "entry_1/ptychodus/probe_position_indexes")
        _own_extras(archive, found)
    if key is not None:
        found.frames = frames_of(path, key)
    return found


def _own_extras(archive: Any, found: Found) -> None:
    """What this package writes beside the standard: exact values that CXI has no place for."""
    extras = group_of(archive, EXTRAS)
    if extras is None:
        return
    found.format = "CXI written by ptychopinn"
    found.unit = text(extras.attrs["unit"]) if "unit" in extras.attrs else None
    found.object = array_of(extras, "object")
    marks = array_of(extras, "bad_frames")
    found.bad_frames = None if marks is None else marks != 0
    positions = array_of(extras, "positions_px")
    if positions is not None:
        found.positions_px, found.positions_m = positions.astype(float), None
    known = {key: extras.attrs[key] for key in Geometry.__dataclass_fields__ if key in extras.attrs}
    if known:
        values = {key: text(value) if key == "beam" else float(value) for key, value in known.items()}
        found.geometry = Geometry(**values)  # type: ignore[arg-type]


def _cxi_positions(moves: NDArray[np.float64], basis: NDArray[Any] | None) -> NDArray[np.float64]:
    if moves.ndim != 2 or moves.shape[1] not in (2, 3):
        raise DataError(f"translation has shape {moves.shape}; expected (frames, 3)")
    if basis is None or moves.shape[1] == 2:
        return np.ascontiguousarray(moves[:, :2])
    rows, columns = (basis[:, axis] / np.linalg.norm(basis[:, axis]) for axis in (0, 1))
    return np.stack([-moves @ columns, -moves @ rows], axis=1)


def _positive(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) and value > 0 else None


# ----------------------------------------------------------------------------------------------------- NeXus


def _nexus_entry(archive: Any) -> Any | None:
    """The first NXentry of a file that has detector data."""
    import h5py

    for name in archive:
        with contextlib.suppress(KeyError, OSError):
            group = archive[name]
            if isinstance(group, h5py.Group) and text(group.attrs.get("NX_class", "")) == "NXentry":
                return group
    return None


def _of_class(group: Any, kind: str) -> list[Any]:
    """Every group of a NeXus class below another, nearest first."""
    import h5py

    made: list[Any] = []
    waiting = [group]
    while waiting:
        here = waiting.pop(0)
        for name in here:
            try:
                below = here[name]
            except (KeyError, OSError):
                continue
            if isinstance(below, h5py.Group) and below.name.startswith(here.name):
                if text(below.attrs.get("NX_class", "")) == kind:
                    made.append(below)
                if below.name.count("/") < 8:
                    waiting.append(below)
    return made


def _nexus_frames(entry: Any) -> str | None:
    """The place of the frames: the signal of an NXdata of three or more axes, or a detector's data."""
    for kind, names in (("NXdata", ("data", "intensity")), ("NXdetector", ("data",))):
        for group in _of_class(entry, kind):
            signal = text(group.attrs.get("signal", "")) or "data"
            for name in (signal, *names):
                found = group.get(name)
                if found is not None and getattr(found, "ndim", 0) >= 3:
                    return f"{group.name}/{name}"
    return None


def _is_nexus(path: Path) -> bool:
    if _is_eiger(path):
        return False
    with peeked(path) as archive:
        entry = _nexus_entry(archive) if archive else None
        return entry is not None and _nexus_frames(entry) is not None


def _find_nexus(path: Path, paths: Paths) -> Found:
    """NeXus as beamlines write it: frames by an NXdata or NXdetector, positions by the axes of the scan."""
    with open_hdf5(path) as archive:
        entry = _nexus_entry(archive)
        key = None if entry is None else _nexus_frames(entry)
        if entry is None or key is None:
            raise DataError(f"{path}: no NeXus entry with frames; name them by --set path.frames=...")
        holder = dataset(archive, key)
        found = Found("NeXus", codec=codec_of(holder), unit="counts")
        if holder.ndim == 4:
            found.grid = (int(holder.shape[0]), int(holder.shape[1]))
        found.positions_m, note = _nexus_positions(entry, holder)
        found.notes += note
        found.geometry = _nexus_geometry(entry)
        for detector in _of_class(entry, "NXdetector"):
            mask = array_of(detector, "pixel_mask", "mask", "detectorSpecific/pixel_mask")
            if mask is not None and mask.shape == holder.shape[-2:]:
                found.bad_pixels = mask != 0
                break
    found.frames = frames_of(path, key)
    return found


def _nexus_geometry(entry: Any) -> Geometry:
    wavelength = distance = pixel = None
    for kind in ("NXbeam", "NXmonochromator", "NXsource", "NXinstrument"):
        for group in _of_class(entry, kind):
            energy = number_of(group, ENERGIES_EV, "ev", "energy", "incident_energy", "incident_beam_energy")
            given = number_of(group, LENGTHS_M, "angstrom", "wavelength", "incident_wavelength")
            if wavelength is None:
                wavelength = given or (HC_EV_M / energy if energy else None)
    for group in _of_class(entry, "NXdetector"):
        distance = distance or number_of(group, LENGTHS_M, "m", "distance", "detector_distance")
        pixel = pixel or number_of(group, LENGTHS_M, "m", "x_pixel_size", "y_pixel_size")
    return Geometry(
        _positive(wavelength), distance_m=_positive(distance), detector_pixel_size_m=_positive(pixel)
    )


_X_NAMES = ("x", "samplex", "sample_x", "lab_sxy_x", "stage_x", "sx", "piezox", "piezo_x", "translation_x")
_Y_NAMES = ("y", "sampley", "sample_y", "lab_sxy_y", "stage_y", "sy", "piezoy", "piezo_y", "translation_y")


def _nexus_positions(entry: Any, frames: Any) -> tuple[NDArray[np.float64] | None, list[str]]:
    """Positions of the sample stage that have one value a frame, as positions of the probe: signs changed."""
    shape = tuple(frames.shape[:-2])
    x, y = _axis(entry, _X_NAMES, shape), _axis(entry, _Y_NAMES, shape)
    if x is None or y is None:
        return None, []
    values = [_spread(_metres(one), shape, axis) for axis, one in ((1, x), (0, y))]
    note = f"positions from {x.name} and {y.name}: stage positions, of which the probe's are the negative"
    return -np.stack(values, axis=1), [note]


def _metres(found: Any) -> NDArray[np.float64]:
    return np.asarray(values_of(found), float) * factor_of(found, LENGTHS_M, "m")


def _spread(values: NDArray[np.float64], shape: tuple[int, ...], axis: int) -> NDArray[np.float64]:
    """One value a frame, from one a frame or one a row or column of the grid."""
    flat = np.squeeze(values)
    if flat.size == int(np.prod(shape)):
        return flat.reshape(-1)
    if len(shape) == 2 and flat.size == shape[axis]:
        return np.broadcast_to(flat[:, None] if axis == 0 else flat[None, :], shape).reshape(-1)
    return flat.reshape(-1)


def _axis(entry: Any, names: tuple[str, ...], shape: tuple[int, ...]) -> Any | None:
    """The first dataset of positions in the entry whose name is one of these and whose size fits."""
    sizes = {int(np.prod(shape)), *shape}
    for kind in ("NXdata", "NXpositioner", "NXtransformations", "NXsample", "NXcollection", "NXdetector"):
        for group in _of_class(entry, kind):
            for name in group:
                wanted = name.lower().removesuffix("_value").removesuffix("_set").removesuffix("_rbv")
                if kind == "NXpositioner" and name == "value":
                    wanted = group.name.rpartition("/")[2].lower()
                found = first_of(group, name) if wanted in names else None
                if found is not None and found.size in sizes:
                    return found
    return None


# ----------------------------------------------------------------------------------------------------- Eiger


def _is_eiger(path: Path) -> bool:
    return holds(path, "entry/data/data_000001") and holds(path, "entry/instrument/detector")


def _find_eiger(path: Path, paths: Paths) -> Found:
    """A DECTRIS Eiger master file: linked data files one after another, the detector's own metadata.

    The detector writes the largest value of its type into gaps and bad pixels; its `pixel_mask` says the
    same, bit by bit (DECTRIS NeXus/HDF5 documentation of the SIMPLON interface).
    """
    specific = "entry/instrument/detector/detectorSpecific"
    with open_hdf5(path) as archive:
        keys = sorted(key for key in archive["entry/data"] if key.startswith("data_"))
        first = dataset(archive, f"entry/data/{keys[0]}")
        found = Found("Eiger", codec=codec_of(first), unit="counts")
        energy = number_of(
            archive, ENERGIES_EV, "ev", f"{specific}/photon_energy",
            "entry/instrument/detector/incident_energy",
        )  # fmt: skip
        wavelength = number_of(archive, LENGTHS_M, "angstrom", "entry/instrument/beam/incident_wavelength")
        found.geometry = Geometry(
            _positive(wavelength or (HC_EV_M / energy if energy else None)),
            distance_m=_positive(
                number_of(archive, LENGTHS_M, "m", "entry/instrument/detector/detector_distance")
            ),
            detector_pixel_size_m=_positive(
                number_of(archive, LENGTHS_M, "m", "entry/instrument/detector/x_pixel_size")
            ),
        )
        mask = array_of(archive, f"{specific}/pixel_mask")
        if mask is not None:
            found.bad_pixels = mask != 0
        centre = [
            number_of(archive, {"pixel": 1.0, "pixels": 1.0, "": 1.0}, "pixel",
                      f"entry/instrument/detector/beam_center_{axis}")
            for axis in "yx"
        ]  # fmt: skip
        if None not in centre and any(centre):
            found.centre_px = (float(centre[0] or 0), float(centre[1] or 0))
    parts = [frames_of(path, f"entry/data/{key}") for key in keys]
    found.frames = joined(parts)
    return found


FORMATS = (
    ForeignFormat(
        "cxi", "CXI, NXcxi_ptycho (cdtools, PyNX)", (".cxi", ".h5"),
        "frames, positions, geometry, mask, dark, flat, probe", "h5py", _is_cxi, _find_cxi, places=(),
    ),
    ForeignFormat(
        "eiger", "Eiger master file", ("_master.h5",), "frames, geometry, mask", "h5py, hdf5plugin",
        _is_eiger, _find_eiger, places=(),
    ),
    ForeignFormat(
        "nexus", "NeXus (NXdata, NXdetector)", (".nxs", ".h5"), "frames, positions, geometry, mask", "h5py",
        _is_nexus, _find_nexus, places=(),
    ),
)  # fmt: skip
