"""Reading values out of any HDF5 file: numbers with units, text; dead links and missing filters by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.lazy import LazyPatterns
from ptycho.io.ptychodus_hdf5 import (
    check_filters,
    check_links,
    check_sources,
    filters_of,
    load_filters,
    open_hdf5,
    source_files,
    unreadable,
)
from ptycho.io.ptychodus_hdf5 import is_hdf5 as is_hdf5
from ptycho.io.reading import one_line

#: factor to metres
LENGTHS_M = {
    "m": 1.0, "metre": 1.0, "meter": 1.0, "metres": 1.0, "meters": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6,
    "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "microns": 1e-6, "micrometer": 1e-6, "micrometre": 1e-6,
    "nm": 1e-9, "nanometer": 1e-9, "angstrom": 1e-10, "a": 1e-10, "å": 1e-10, "pm": 1e-12,
}  # fmt: skip
#: factor to electronvolts
ENERGIES_EV = {"ev": 1.0, "kev": 1e3, "mev": 1e6, "j": 1 / 1.602176634e-19, "joule": 1 / 1.602176634e-19}

#: whether links may lead out of the folder of their file, see `links_anywhere`
_ANYWHERE: ContextVar[bool] = ContextVar("links_anywhere", default=False)


@contextlib.contextmanager
def links_anywhere(allowed: bool) -> Iterator[None]:
    """Within this context, links to files outside the folder of the opened file are followed, or not."""
    token = _ANYWHERE.set(allowed)
    try:
        yield
    finally:
        _ANYWHERE.reset(token)


@contextlib.contextmanager
def peeked(path: Path) -> Iterator[Any]:
    """An open HDF5 file for `recognises`, or an empty dict where it cannot be opened."""
    if not is_hdf5(path):
        yield {}
        return
    try:
        with open_hdf5(path) as archive:
            yield archive
    except DataError:
        yield {}


def holds(path: Path, *keys: str) -> bool:
    """Whether an HDF5 file has all of these datasets or groups."""
    with peeked(path) as archive:
        return bool(archive) and all(_there(archive, key) for key in keys)


def _there(archive: Any, key: str) -> bool:
    """Whether something is at a place, readable or not: a damaged group on the way there is something."""
    import h5py

    place = archive
    for name in key.strip("/").split("/"):
        try:
            if not isinstance(place, h5py.Group) or place.get(name, getlink=True) is None:
                return False
        except (KeyError, RuntimeError, ValueError, OSError):
            return False
        try:
            place = place.get(name)
        except (KeyError, RuntimeError, ValueError, OSError):
            return True
        if place is None:
            return True
    return True


def dataset(archive: Any, key: str) -> Any:
    """The dataset at a place; DataError that says what is wrong: absent, a dead link, a group."""
    import h5py

    found = _followed(archive, key)
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{archive.file.filename}: {key!r} is a group; name the dataset inside it")
    return found


def _followed(archive: Any, key: str) -> Any:
    import h5py

    link = None
    with contextlib.suppress(KeyError, RuntimeError, ValueError, OSError):
        link = archive.get(key, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        _check_place(archive, key, link.filename)
    try:
        found = archive.get(key)
    except (KeyError, OSError, RuntimeError) as error:
        found, reason = None, one_line(error)
    else:
        reason = ""
    name = archive.file.filename
    if found is not None:
        _check_place(archive, key, found.file.filename)  # a link on the way there may lead out, too
        return found
    if link is not None:
        check_links(archive, key)
    listed = ", ".join(sorted(archive)) or "nothing"
    hint = f" ({reason})" if reason else ""
    raise DataError(f"{name} has no {key!r}{hint}; {_where(archive)} holds {listed}")


def _where(archive: Any) -> str:
    return "its top level" if archive.name in (None, "/") else repr(archive.name)


def _check_place(archive: Any, key: str, file: str) -> None:
    """DataError for a link that leads out of the folder of its file, unless `links_anywhere` allows it."""
    folder = Path(archive.file.filename).resolve().parent
    target = (folder / file).resolve()
    if not _ANYWHERE.get() and not target.is_relative_to(folder):
        raise DataError(
            f"{archive.file.filename}: {key!r} leads to {file!r}, outside the folder of this file; if you "
            "trust it, add --set path.links=anywhere"
        )


def first_of(archive: Any, *keys: str) -> Any | None:
    """The first of these datasets that is there; None where none is."""
    import h5py

    for key in keys:
        if key and _there(archive, key):
            found = _followed(archive, key)
            if isinstance(found, h5py.Dataset):
                return found
    return None


def rows_in(found: Any, begin: int, end: int) -> NDArray[Any]:
    """Rows of a dataset, also of one whose numbers stand in raw files beside the HDF5 file.

    HDF5 itself looks for those in the folder that the process runs in. Such numbers are never compressed.
    """
    if not found.external:
        return np.asarray(found[begin:end])
    row = int(np.prod(found.shape[1:], dtype=np.int64)) * found.dtype.itemsize
    wanted, rest, data = (end - begin) * row, begin * row, b""
    for name, offset, size in found.external:
        if rest < size and len(data) < wanted:
            with (Path(found.file.filename).parent / text(name)).open("rb") as stream:
                stream.seek(offset + rest)
                data += stream.read(min(wanted - len(data), size - rest))
        rest = max(0, rest - size)
    if len(data) < wanted:
        raise OSError("the raw file ends early")
    return np.frombuffer(data, found.dtype).reshape(end - begin, *found.shape[1:])


def group_of(archive: Any, key: str) -> Any | None:
    """The group at a place, None where none is; DataError where it is there and cannot be opened.

    h5py's own `get` and `in` say of a damaged group that it is absent.
    """
    import h5py

    found = _followed(archive, key) if _there(archive, key) else None
    return found if isinstance(found, h5py.Group) else None


def array_of(archive: Any, *keys: str) -> NDArray[Any] | None:
    """The values of the first of these datasets that is there."""
    found = first_of(archive, *keys)
    return None if found is None else values_of(found)


def values_of(found: Any) -> NDArray[Any]:
    """All values of a dataset; DataError names a filter that is missing."""
    _check_readable(found)
    try:
        return rows_in(found, 0, len(found)) if found.external else np.asarray(found[()])
    except (OSError, MemoryError) as error:
        raise unreadable(found, error) from error


def _check_readable(found: Any) -> None:
    load_filters()
    check_filters(found)
    for file in source_files(found):
        _check_place(found, found.name, file)
    check_sources(found)


def number_of(archive: Any, factors: dict[str, float], default_unit: str, *keys: str) -> float | None:
    """The first of these datasets or attributes as one number in base units, by its `units` attribute."""
    found = first_of(archive, *keys)
    if found is None:
        return None
    values = np.asarray(values_of(found), dtype=float).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    return float(values[0]) * factor_of(found, factors, default_unit)


def factor_of(found: Any, factors: dict[str, float], default_unit: str) -> float:
    """The factor to base units that a dataset's `units` attribute asks for; DataError for an unknown one."""
    unit = text(found.attrs.get("units", found.attrs.get("unit", default_unit))) or default_unit
    known = factors.get(unit.strip().lower())
    if known is None:
        raise DataError(
            f"{found.file.filename}: {found.name!r} is in {unit!r}; known units: {', '.join(factors)}"
        )
    return known


def text(value: Any) -> str:
    """A value of an attribute or a scalar dataset as text."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def codec_of(found: Any) -> str:
    """How a dataset is compressed, for people."""
    return " + ".join(name for _, name in filters_of(found)) or "none"


def frames_of(path: Path, key: str) -> LazyPatterns:
    """One dataset of frames as (M, H, W), read by rows; leading axes are flattened.

    The file is open only while rows are read. Checked first: dead links, missing sources of virtual
    datasets, missing filters. Memory: what is asked for.
    """
    with open_hdf5(path) as archive:
        found = dataset(archive, key)
        if found.dtype.kind not in "uif" or found.ndim < 3:
            raise DataError(
                f"{path}: {key!r} has dtype {found.dtype} and shape {found.shape}; frames are numbers "
                "(frames, rows, columns)"
            )
        _check_readable(found)
        whole, dtype = tuple(found.shape), found.dtype
    lead, side = whole[:-2], whole[-2:]
    count = int(np.prod(lead, dtype=np.int64))

    def read(begin: int, end: int) -> NDArray[Any]:
        with open_hdf5(path) as archive:
            check_sources(archive[key])  # of one that vanished meanwhile HDF5 would give zeros
            try:
                return _rows(archive[key], lead, begin, end)
            except (OSError, MemoryError) as error:
                raise DataError(
                    f"{path}: frames {begin} to {end - 1} of {key!r} cannot be read ({one_line(error)}); "
                    "copy the file again"
                ) from error

    return LazyPatterns(read, (count, *side), dtype)


def _rows(found: Any, lead: tuple[int, ...], begin: int, end: int) -> NDArray[Any]:
    """Frames begin to end of a dataset whose leading axes count as one, without reading others."""
    if len(lead) == 1:
        return rows_in(found, begin, end)
    inner = int(np.prod(lead[1:], dtype=np.int64))
    first, last = begin // inner, -(-end // inner)
    part = rows_in(found, first, last).reshape(-1, *found.shape[-2:])
    return part[begin - first * inner : end - first * inner]
