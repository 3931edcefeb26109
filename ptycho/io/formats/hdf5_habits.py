"""HDF5 and MATLAB layouts of reconstruction programs: ptypy, PtyLab, PtychoShelves, pty-chi, tike."""

from __future__ import annotations

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
    frames_of,
    holds,
    is_hdf5,
    number_of,
    peeked,
)
from ptycho.io.lazy import LazyPatterns, as_lazy, joined
from ptycho.io.ptychodus_hdf5 import open_hdf5
from ptycho.io.reading import one_line

_MATLAB_V5 = b"MATLAB 5.0"


def _plain(archive: Any, *keys: str) -> float | None:
    """The first of these datasets as one number in the units the program is known for."""
    values = array_of(archive, *keys)
    if values is None or not values.size or values.dtype.kind not in "uif":
        return None
    number = float(values.ravel()[0])
    return number if np.isfinite(number) and number > 0 else None


def _of_energy(energy_eV: float | None) -> float | None:
    return HC_EV_M / energy_eV if energy_eV else None


# ----------------------------------------------------------------------------------------------------- ptypy


def _is_ptyd(path: Path) -> bool:
    with peeked(path) as archive:
        return bool(archive) and "chunks" in archive and ("meta" in archive or "info" in archive)


def _find_ptyd(path: Path, paths: Paths) -> Found:
    """ptypy's prepared data: chunks of frames with positions [y, x] in metres and weights; energy in keV.

    Frames without a weight anywhere are bad pixels where the weights are the same in every frame.
    """
    with open_hdf5(path) as archive:
        numbers = sorted(archive["chunks"], key=int)
        if not numbers:
            raise DataError(f"{path}: 'chunks' is empty; the scan was not saved to the end")
        found = Found("ptypy .ptyd", unit="counts")
        found.codec = codec_of(dataset(archive, f"chunks/{numbers[0]}/data"))
        places = [array_of(archive, f"chunks/{n}/positions") for n in numbers]
        if all(place is not None and place.ndim == 2 for place in places):
            whole = np.concatenate([place for place in places if place is not None]).astype(float)
            found.positions_m = whole[:, ::-1].copy()
        weights = array_of(archive, "common/weight2d", "meta/weight2d", "info/weight2d")
        if weights is None or weights.ndim != 2:
            first = array_of(archive, f"chunks/{numbers[0]}/weights")
            weights = first[0] if first is not None and first.ndim == 3 and len(first) else None
        if weights is not None:
            found.bad_pixels = ~(np.asarray(weights, float) > 0)
        energy = _plain(archive, "meta/energy", "info/energy")
        found.geometry = Geometry(
            _of_energy(energy * 1e3 if energy else None),
            distance_m=_plain(archive, "meta/distance", "info/distance"),
            detector_pixel_size_m=_plain(archive, "meta/psize", "info/psize"),
        )
    found.frames = joined([frames_of(path, f"chunks/{n}/data") for n in numbers])
    return found


# ---------------------------------------------------------------------------------------------------- PtyLab


def _find_ptylab(path: Path, paths: Paths) -> Found:
    """PtyLab: `ptychogram` counts, `encoder` [y, x] metres, wavelength, zo, dxd.

    `orientation` (0 to 7) says how the frames are laid along the scan axes: 4 is added for a transposition,
    which comes first, 1 for columns in reverse, 2 for rows in reverse.
    """
    with open_hdf5(path) as archive:
        found = Found("PtyLab", codec=codec_of(dataset(archive, "ptychogram")), unit="counts")
        encoder = array_of(archive, "encoder")
        if encoder is not None and encoder.ndim == 2:
            found.positions_m = np.asarray(encoder if encoder.shape[1] == 2 else encoder.T, float)[
                :, ::-1
            ].copy()
        found.geometry = Geometry(
            _plain(archive, "wavelength"), distance_m=_plain(archive, "zo"),
            detector_pixel_size_m=_plain(archive, "dxd"),
        )  # fmt: skip
        dark = array_of(archive, "background")
        found.dark = dark if dark is not None and dark.ndim == 2 else None
        mode = array_of(archive, "operationMode")
        if mode is not None and b"FPM" in mode.tobytes():
            raise DataError(
                f"{path} is Fourier ptychography (operationMode FPM), which this package does not do"
            )
        turn = _orientation(archive, path)
    found.frames = frames_of(path, "ptychogram")
    if turn:
        _turn_frames(found, turn)
    return found


def _orientation(archive: Any, path: Path) -> int:
    values = array_of(archive, "orientation")
    if values is None or not values.size or values.dtype.kind not in "uif":
        return 0
    turn = int(values.ravel()[0])
    if not 0 <= turn <= 7:
        raise DataError(f"{path}: orientation is {turn}; PtyLab knows 0 to 7")
    return turn


def _turn_frames(found: Found, turn: int) -> None:
    """Lay the frames, and what has their pixels, along the scan axes, as they are read."""

    def turned(part: NDArray[Any]) -> NDArray[Any]:
        part = part.swapaxes(-1, -2) if turn & 4 else part
        part = part[..., ::-1] if turn & 1 else part
        return part[..., ::-1, :] if turn & 2 else part

    assert found.frames is not None
    frames = as_lazy(found.frames)
    made = frames.map(turned, frames.dtype)
    if turn & 4:
        made.shape = (made.shape[0], made.shape[2], made.shape[1])
    found.frames = made
    found.dark = None if found.dark is None else turned(found.dark)
    found.notes.append(f"frames turned by PtyLab's orientation {turn}")


# ---------------------------------------------------------------- PtychoShelves, fold_slice, pty-chi and tike


def _is_shelves(path: Path) -> bool:
    return holds(path, "dp") or holds(path, "ppX", "ppY") or holds(path, "outputs/probe_positions")


def _find_shelves(path: Path, paths: Paths) -> Found:
    """Frames under `dp`; positions, wavelength and pixel in the same file or in the `_para` file beside it.

    fold_slice: `ppX`, `ppY`, `dx` in metres (electrons: angstrom), `lambda`; positions of the probe. pty-chi:
    `probe_position_x_m`, `probe_position_y_m`, `obj_pixel_size`. PtychoShelves results:
    `outputs/probe_positions` (2, K) px. MATLAB stores axes in reverse: (M, columns, rows) are turned back.
    """
    found = Found("PtychoShelves, fold_slice or pty-chi", unit="counts")
    partner = _partner(path)
    if holds(path, "dp"):
        with open_hdf5(path) as archive:
            found.codec = codec_of(dataset(archive, "dp"))
            flipped = "MATLAB_class" in dataset(archive, "dp").attrs
        frames = frames_of(path, "dp")
        if flipped:
            frames = frames.map(lambda part: part.swapaxes(-1, -2), frames.dtype)
            frames.shape = (frames.shape[0], frames.shape[2], frames.shape[1])
        found.frames = frames
    for source in (path, *((partner,) if partner else ())):
        with open_hdf5(source) as archive:
            _shelves_parameters(archive, found)
    if partner is not None:
        found.notes.append(f"positions and geometry from {partner.name}")
    return found


def _shelves_parameters(archive: Any, found: Found) -> None:
    x, y = array_of(archive, "ppX", "probe_position_x_m"), array_of(archive, "ppY", "probe_position_y_m")
    if found.positions_m is None and x is not None and y is not None:
        found.positions_m = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)
    places = array_of(archive, "outputs/probe_positions", "probe_positions")
    if found.n_positions is None and places is not None and places.ndim == 2:
        found.positions_px = np.asarray(places if places.shape[1] == 2 else places.T, float).copy()
    wavelength = _plain(archive, "lambda", "wavelength_m", "wavelength", "outputs/lambda")
    pixel = number_of(
        archive, LENGTHS_M, "m", "dx", "obj_pixel_size", "object_pixel_size_m", "outputs/dx_spec"
    )
    energy = number_of(archive, ENERGIES_EV, "ev", "energy_eV", "energy")
    found.geometry = found.geometry.completed_by(
        Geometry(
            wavelength or _of_energy(energy),
            distance_m=_plain(archive, "detector_distance_m", "z"),
            detector_pixel_size_m=_plain(archive, "detector_pixel_size_m", "ds"),
            measured_object_pixel_size_m=pixel if pixel and pixel > 0 else None,
        )
    )
    if found.probe is None:
        found.probe = complex_of(array_of(archive, "probe"))
    if found.object is None:
        found.object = complex_of(array_of(archive, "object"))
    if found.bad_pixels is None:
        mask = array_of(archive, "bad_pixels")
        good = array_of(archive, "fmask", "valid_pixel_mask") if mask is None else None
        if mask is not None:
            found.bad_pixels = mask.astype(bool)
        elif good is not None and good.ndim == 2:
            found.bad_pixels = ~good.astype(bool)


def complex_of(values: NDArray[Any] | None) -> NDArray[Any] | None:
    """Complex numbers as MATLAB stores them (fields real, imag), or as they are; None for anything else."""
    if values is None:
        return None
    if values.dtype.names == ("real", "imag"):
        return np.asarray(values["real"] + 1j * values["imag"]).swapaxes(-1, -2)
    return values if values.dtype.kind == "c" else None


def _partner(path: Path) -> Path | None:
    """`scan_para.hdf5` beside `scan_dp.hdf5`, as fold_slice and pty-chi name them."""
    stem = path.stem
    if not stem.endswith("_dp"):
        return None
    for suffix in (path.suffix, ".hdf5", ".h5"):
        other = path.with_name(f"{stem.removesuffix('_dp')}_para{suffix}")
        if other.is_file() and is_hdf5(other):
            return other
    return None


def _is_tike(path: Path) -> bool:
    return holds(path, "data", "scan") and holds(path, "probe")


def _find_tike(path: Path, paths: Paths) -> Found:
    """tike: `data` counts, `scan` (K, 2) px: [y, x] of the top-left corners of the patches."""
    with open_hdf5(path) as archive:
        found = Found("tike", codec=codec_of(dataset(archive, "data")), unit="counts")
        N = int(dataset(archive, "data").shape[-1])
        places = array_of(archive, "scan")
        if places is not None and places.ndim == 2:
            found.positions_px = np.asarray(places, float)[:, ::-1] + N // 2
        probe = complex_of(array_of(archive, "probe"))
        found.probe = None if probe is None else probe.reshape(-1, *probe.shape[-2:])
        found.object = complex_of(array_of(archive, "psi", "object"))
    found.frames = frames_of(path, "data")
    return found


# ---------------------------------------------------------------------------------------------------- MATLAB


def _is_matlab(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(_MATLAB_V5)) == _MATLAB_V5
    except OSError:
        return False


def _find_matlab(path: Path, paths: Paths) -> Found:
    """A MATLAB file before version 7.3, read whole by scipy: the names of PtychoShelves and fold_slice."""
    from scipy.io import loadmat

    try:
        values = loadmat(path, squeeze_me=True, struct_as_record=True, simplify_cells=True)
    except (ValueError, TypeError, OSError, NotImplementedError, MemoryError) as error:
        raise DataError(f"{path} is damaged ({one_line(error)}); save it again, or as -v7.3") from error
    found = Found("MATLAB", unit="counts", codec="MATLAB 5")
    outputs = values.get("outputs")
    flat = {**values, **(outputs if isinstance(outputs, dict) else {})}

    def first(*names: str) -> Any:
        return next((flat[name] for name in names if name and name in flat), None)

    frames = first(paths.get("frames", ""), "dp", "data", "fmag")
    if isinstance(frames, np.ndarray) and frames.ndim in (3, 4) and frames.dtype.kind in "uif":
        if frames.ndim == 4:
            found.grid = (int(frames.shape[2]), int(frames.shape[3]))
        moved = np.moveaxis(frames.reshape(*frames.shape[:2], -1), -1, 0)
        found.frames = LazyPatterns(lambda begin, end: moved[begin:end], moved.shape, moved.dtype)
    x, y = first("ppX", "positions_x"), first("ppY", "positions_y")
    if x is not None and y is not None:
        found.positions_m = np.stack([np.ravel(x), np.ravel(y)], axis=1).astype(float)
    places = first("probe_positions", "positions")
    if found.positions_m is None and isinstance(places, np.ndarray) and places.ndim == 2:
        found.positions_px = np.asarray(places if places.shape[1] == 2 else places.T, float)
    numbers = {
        "wavelength_m": first("lambda", "wavelength"),
        "measured_object_pixel_size_m": first("dx", "dx_spec"),
        "distance_m": first("z", "detector_distance"),
        "detector_pixel_size_m": first("ds"),
    }
    known = {key: float(np.ravel(v)[0]) for key, v in numbers.items() if v is not None and np.size(v)}
    found.geometry = Geometry(**{key: v for key, v in known.items() if v > 0})  # type: ignore[arg-type]
    for name in ("probe", "object"):
        image = first(name)
        if isinstance(image, np.ndarray) and image.dtype.kind == "c":
            setattr(found, name, np.moveaxis(image, -1, 0) if image.ndim == 3 else image)
    return found


FORMATS = (
    ForeignFormat(
        "ptyd", "ptypy prepared data", (".ptyd",), "frames, positions, geometry, mask", "h5py",
        _is_ptyd, _find_ptyd, places=(),
    ),
    ForeignFormat(
        "ptylab", "PtyLab", (".hdf5", ".h5"), "frames, positions, geometry, dark", "h5py",
        lambda path: holds(path, "ptychogram"), _find_ptylab, places=(),
    ),
    ForeignFormat(
        "shelves", "PtychoShelves, fold_slice, pty-chi", ("_dp.hdf5", ".h5", ".mat"),
        "frames, positions, geometry, mask, probe, object", "h5py", _is_shelves, _find_shelves, places=(),
    ),
    ForeignFormat(
        "tike", "tike", (".h5",), "frames, positions, probe, object", "h5py", _is_tike, _find_tike, places=()
    ),
    ForeignFormat(
        "matlab", "MATLAB before 7.3", (".mat",), "frames, positions, geometry, probe, object", "scipy",
        _is_matlab, _find_matlab, places=("frames",),
    ),
)  # fmt: skip
