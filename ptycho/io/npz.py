"""Scans as NPZ files: the keys that the field's programs write, and never a pickle."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from ptycho.errors import DataError, InputError, MissingFileError
from ptycho.io.atomic import atomic_write
from ptycho.io.geometry import Geometry
from ptycho.io.inputs import check_input
from ptycho.io.lazy_files import stands_for_none
from ptycho.io.npy_header import array_header
from ptycho.io.pattern_order import order_of_cube
from ptycho.io.reading import check_fits, damage, one_line

logger = logging.getLogger(__name__)

REQUIRED_KEYS = ("xcoords", "ycoords", "diff3d", "probeGuess")
OPTIONAL_KEYS = (
    "objectGuess",
    "scan_index",
    "xcoords_start",
    "ycoords_start",
    "bad_pixels",
    "bad_frames",
    "Y",
)
TEXT_KEYS = ("diffraction_unit", "pattern_order")
#: keys that `ptycho simulate` and other programs write beside a scan, which are read elsewhere or by nobody
#: here
COMPANION_KEYS = (
    "object_true", "probe_true", "roi", "scenario",
)  # fmt: skip
#: numbers of a scan's geometry by their key in the file, and the setting each of them is
GEOMETRY_KEYS = {
    "energy_eV": "energy_eV", "photon_energy_eV": "energy_eV", "wavelength_m": "wavelength_m",
    "voltage_V": "voltage_V", "distance_m": "distance_m", "detector_distance_m": "distance_m",
    "detector_pixel_size_m": "detector_pixel_size_m", "object_pixel_size_m": "object_pixel_size_m",
    "angular_pixel_size_rad": "angular_pixel_size_rad", "rotation_deg": "rotation_deg",
}  # fmt: skip
# The older name of diff3d in the field's files; its (N,N,M) order is settled by FORMAT-001 like any other.
LEGACY_PATTERNS_KEY = "diffraction"

_ENCRYPTED = 0x1
_MOST_ARRAYS = 10_000


def read_npz(
    path: str | os.PathLike[str],
    patterns_of: Callable[[str], Any] | None = None,
    *,
    probe_required: bool = True,
) -> dict[str, Any]:
    """Arrays of a scan by the names of RawData's keyword arguments; absent optional keys are left out.

    Keys beyond REQUIRED_KEYS, OPTIONAL_KEYS and TEXT_KEYS are not read. An optional key that holds None is
    absent, with a warning; so is a probe that is not `probe_required`. `patterns_of` reads the patterns
    instead, by their key in the file; where their
    axes are equal, `pattern_order` says which counts the positions (`ptycho.io.pattern_order`). Raises
    DataError for a file that is no NPZ, truncated or damaged, lacks a key, or holds Python objects. Time and
    memory: the arrays, once.
    """
    with open_npz(path) as archive:
        found = set(archive.files)
        absent = {key for key in (*OPTIONAL_KEYS, *TEXT_KEYS) if key in found and stands_for_none(path, key)}
        for key in sorted(absent):
            logger.warning("%s: %r is a Python object, as None is written: taken as absent", path, key)
        keys = found - absent
        arrays: dict[str, Any] = {}
        for key in REQUIRED_KEYS:
            if key == "probeGuess" and not probe_required and _has_no_probe(path, keys):
                continue
            name = patterns_key(keys) if key == "diff3d" else key
            if key == "diff3d" and patterns_of is not None and name in keys:
                arrays[key] = patterns_of(name)
            else:
                arrays[key] = read_array(archive, name, path)
        for key in (key for key in OPTIONAL_KEYS if key in keys):
            arrays[key] = read_array(archive, key, path)
        for key in (key for key in TEXT_KEYS if key in keys):
            arrays[key] = _as_text(read_array(archive, key, path), key, path)
        geometry = _geometry(archive, keys, path)
        if geometry != Geometry():
            arrays["geometry"] = geometry
    if "pattern_order" not in arrays:
        order = order_of_cube(arrays["diff3d"], arrays["xcoords"].size, patterns_key(keys), keys, str(path))
        arrays.update({} if order is None else {"pattern_order": order})
    return arrays


def _has_no_probe(path: str | os.PathLike[str], keys: set[str]) -> bool:
    return "probeGuess" not in keys or stands_for_none(path, "probeGuess")


KNOWN_KEYS = (*REQUIRED_KEYS, *OPTIONAL_KEYS, *TEXT_KEYS, *GEOMETRY_KEYS)


def unread_keys(path: str | os.PathLike[str]) -> list[str]:
    """Keys of a scan file that nothing in the package reads, sorted."""
    with open_npz(path) as archive:
        keys = set(archive.files)
    return sorted(keys - {*KNOWN_KEYS, *COMPANION_KEYS, LEGACY_PATTERNS_KEY})


def _geometry(archive: NpzFile, keys: set[str], path: str | os.PathLike[str]) -> Geometry:
    """What the file says of its metres; DataError names the file and the key that is wrong."""
    values: dict[str, Any] = {}
    for key in (key for key in GEOMETRY_KEYS if key in keys):
        number = read_array(archive, key, path)
        if number.size != 1:
            raise DataError(f"{path}: {key!r} has shape {number.shape}; it must be one number")
        values.setdefault(GEOMETRY_KEYS[key], number.reshape(-1)[0])
    try:
        return Geometry.of_settings(values)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def read_geometry(path: str | os.PathLike[str]) -> Geometry:
    """Only the geometry that an NPZ scan says."""
    with open_npz(path) as archive:
        return _geometry(archive, set(archive.files), path)


def patterns_key(keys: Iterable[str]) -> str:
    """The key that the patterns of a scan stand under."""
    return LEGACY_PATTERNS_KEY if "diff3d" not in keys and LEGACY_PATTERNS_KEY in keys else "diff3d"


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write arrays whole or not at all; None entries are left out. Raises DataError for object arrays."""
    flat = {key: value for key, value in arrays.items() if key != "geometry"}
    if isinstance(arrays.get("geometry"), Geometry):
        flat.update(arrays["geometry"].as_settings())
    kept = {key: np.asarray(value) for key, value in flat.items() if value is not None}
    for key, value in kept.items():
        if value.dtype.hasobject:
            raise DataError(
                f"cannot write {key!r} to {path}: it holds Python objects; convert it to numbers or text"
            )
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        _save(stream, kept)


@contextmanager
def open_npz(path: str | os.PathLike[str]) -> Iterator[NpzFile]:
    """Open any NPZ file without pickle; what is wrong with the file is said in one line."""
    source = check_input(path)
    if source.is_dir():
        raise InputError(f"{source} is a folder; give the .npz file inside it")
    if not source.exists():
        raise MissingFileError(f"{source} does not exist; check the path of the .npz file")
    try:
        with open(source, "rb") as stream:
            head = stream.read(6)
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror or error}; check its permissions") from error
    if not head:
        raise DataError(f"{source} is empty (0 bytes); write or copy it again")
    if head == b"\x93NUMPY":
        raise DataError(f"{source} is a single array (.npy), not an NPZ file; save the scan with numpy.savez")
    if head[:2] != b"PK":
        raise DataError(f"{source} is not an NPZ file; save the scan with numpy.savez")
    try:
        archive = np.load(source, allow_pickle=False)
        for member in archive.zip.infolist()[:_MOST_ARRAYS]:  # one that lost its name would only seem absent
            archive.zip.open(member).close()
    except Exception as error:  # a damaged directory makes zipfile raise anything
        raise DataError(
            f"{source} is truncated or damaged ({one_line(error)}); write or copy it again"
        ) from error
    with archive:
        if len(archive.files) > _MOST_ARRAYS:
            raise DataError(f"{source} holds {len(archive.files)} arrays; a scan has a handful of them")
        yield archive


def read_array(archive: NpzFile, key: str, path: str | os.PathLike[str]) -> NDArray[Any]:
    """One array of an open NPZ file. Raises DataError naming file and key."""
    if key not in archive.files:
        raise DataError(f"{path} has no {key!r}; it holds {_listed(archive.files)}")
    what = f"{path}: {key!r}"
    with damage(what):
        _check_member(archive, key, what)
        try:
            array = archive[key]
        except ValueError as error:
            if "allow_pickle" in str(error):
                raise _objects(what) from error
            raise
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {key!r} is not an array; save the scan with numpy.savez")
    return array


def _check_member(archive: NpzFile, key: str, what: str) -> None:
    """Refuse an array before it is read: too large for the memory, or not plain numbers and text."""
    members = archive.zip
    assert members is not None
    name = f"{key}.npy" if f"{key}.npy" in members.NameToInfo else key
    if members.getinfo(name).flag_bits & _ENCRYPTED:
        raise DataError(f"{what} is encrypted; save the scan without a password")
    with members.open(name) as stream:
        header = array_header(stream)
    if header is None:  # no array at all: what reads it says so
        return
    shape, _, dtype = header
    if dtype.hasobject:
        raise _objects(what)
    check_fits(shape, dtype.itemsize, what, "if these are the patterns, say patterns = 'disk'")


def _objects(what: str) -> DataError:
    return DataError(
        f"{what} holds Python objects, which would need pickle and are refused; "
        "save it as an array of numbers"
    )


def _save(stream: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    np.savez(stream, allow_pickle=False, **arrays)


def _as_text(array: NDArray[Any], key: str, path: str | os.PathLike[str]) -> str:
    if array.size != 1 or array.dtype.kind not in "US":
        raise DataError(
            f"{path}: {key!r} must be one word of text, found {array.dtype} of shape {array.shape}"
        )
    value = array.reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(sorted(keys)) or "nothing"
