"""Opening HDF5 files of ptychodus: what is missing or damaged is said in one line that names file and key."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, InputError, MissingDependencyError, MissingFileError
from ptycho.io.inputs import check_input, short
from ptycho.io.reading import check_fits, damage, one_line

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
SUFFIXES = (".h5", ".hdf5")
_COPY = "copy the file that it points to as well, or write the file again"


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5: its mark at the beginning, or behind a user block of 512, 1024, ... bytes.

    MATLAB 7.3 writes such a block. Up to 1 MiB is looked at. A pipe, a device and a folder are none: they are
    not opened.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            return False
        size = about.st_size
        with path.open("rb") as stream:
            place = 0
            while place + len(_HDF5_MAGIC) <= min(size, 2**20):
                stream.seek(place)
                if stream.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC:
                    return True
                place = 2 * place or 512
    except (OSError, ValueError):  # ValueError: a name with a NUL
        pass
    return False


@contextmanager
def open_hdf5(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An open h5py.File for reading. Raises MissingFileError, InputError, or DataError for a damaged one."""
    source = check_input(path)
    if source.is_dir():
        raise InputError(f"{source} is a folder; give the .h5 file inside it")
    if not source.exists():
        raise MissingFileError(f"{source} does not exist; check the path of the .h5 file")
    try:
        with open(source, "rb") as stream:
            head = stream.read(len(_HDF5_MAGIC))
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror or error}; check its permissions") from error
    if not head:
        raise DataError(f"{source} is empty (0 bytes); write or copy it again")
    if head != _HDF5_MAGIC and not is_hdf5(source):
        raise DataError(f"{source} is not an HDF5 file; save it with ptychodus or with this package")
    import h5py

    load_filters()
    try:
        archive = h5py.File(source, "r")
    except Exception as error:  # h5py raises what its library stumbled over
        raise DataError(
            f"{source} is truncated or damaged ({one_line(error)}); write or copy it again"
        ) from error
    with archive:
        yield archive


def read_dataset(archive: Any, key: str) -> NDArray[Any]:
    """One dataset of numbers. Raises DataError naming file and key."""
    value = read_optional(archive, key)
    if value is None:
        check_links(archive, key)
        listed = ", ".join(sorted(archive)) or "nothing"
        raise DataError(f"{archive.filename} has no dataset {key!r}; it holds {listed}")
    return value


def read_optional(archive: Any, key: str) -> NDArray[Any] | None:
    """One dataset of numbers, or None where there is none."""
    import h5py

    what = f"{archive.filename}: {key!r}"
    with damage(what):  # links may lead nowhere, in a circle, or out of the file
        found = archive.get(key)
        if found is None:
            if archive.get(key, getlink=True) is not None:
                check_links(archive, key)
                raise DataError(f"{what} is a link that leads nowhere; {_COPY}")
            return None
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{archive.filename}: {key!r} is a group; it must be a dataset of numbers")
    with damage(what):
        return _values(found, what)


def _values(found: Any, what: str) -> NDArray[Any]:
    if found.shape is None:
        raise DataError(f"{what} is empty: it has no shape; write the file again")
    if found.dtype.kind not in "buifc":
        raise DataError(f"{what} has dtype {found.dtype}; it must hold numbers")
    check_sources(found)
    # A few bytes of header and a fill value are a dataset of any size.
    check_fits(found.shape, found.dtype.itemsize, what, "if these are the patterns, say patterns = 'disk'")
    try:
        return np.asarray(found[()])
    except OSError as error:
        raise unreadable(found, error) from error


#: filters of HDF5: those of libhdf5 and h5py, and those that come with the package hdf5plugin
FILTERS = {
    1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf",
    307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32017: "sz",
    32018: "fcidecomp", 32024: "sz3", 32026: "blosc2",
}  # fmt: skip


def check_links(archive: Any, key: str) -> None:
    """Raise DataError where `key` is there only as a link whose target is not."""
    import h5py

    link = archive.get(key, getlink=True)
    what = f"{archive.file.filename}: {key!r} links to"
    if isinstance(link, h5py.ExternalLink):
        if not (Path(archive.file.filename).parent / link.filename).exists():
            raise DataError(f"{what} {link.filename}, which is not there: copy it beside the file")
        raise DataError(
            f"{what} {link.path!r} in {link.filename}, which has no such dataset or cannot be opened: "
            "check that file"
        )
    if isinstance(link, h5py.SoftLink):
        raise DataError(f"{what} {link.path!r}, which is not in the file: write the file again")


def source_files(found: Any) -> list[str]:
    """The other files that a dataset is made of (virtual, or stored outside), each once."""
    names = [source.file_name for source in found.virtual_sources()] if found.is_virtual else []
    names += [source[0] for source in found.external or ()]
    texts = (name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names)
    return [name for name in dict.fromkeys(texts) if name != "."]


def check_sources(found: Any, names: list[str] | None = None) -> None:
    """Raise DataError where files that a dataset is made of are missing; HDF5 itself would give zeros.

    names: its `source_files`, where they are known.
    """
    folder = Path(found.file.filename).parent
    names = source_files(found) if names is None else names
    missing = [name for name in names if "%b" not in name and not (folder / name).exists()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{found.file.filename}: {found.name.lstrip('/')!r} is put together from {missing[0]}{more}, "
            f"which {'is' if len(missing) == 1 else 'are'} not there: copy it beside the file"
        )


def filters_of(found: Any) -> list[tuple[int, str]]:
    """Number and name of every filter of a dataset."""
    listed = found.id.get_create_plist()
    made = []
    for position in range(listed.get_nfilters()):
        number, _, _, name = listed.get_filter(position)
        own = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        made.append((int(number), FILTERS.get(number) or own or "a filter of its own"))
    return made


def check_filters(found: Any) -> None:
    """Raise MissingDependencyError that names a filter which this installation does not have."""
    import h5py

    for number, name in filters_of(found):
        if not h5py.h5z.filter_avail(number):
            raise MissingDependencyError(
                f"{found.file.filename}: {found.name.lstrip('/')!r} is compressed with {name} (HDF5 filter "
                f"{number}), which is not installed: pip install hdf5plugin"
            )


def unreadable(found: Any, error: BaseException) -> DataError:
    """Why a dataset cannot be read: it is damaged. MissingDependencyError where a filter is missing."""
    check_filters(found)
    return DataError(
        f"{found.file.filename}: {found.name.lstrip('/')!r} is damaged ({one_line(error)}); "
        "write or copy the file again"
    )


def load_filters() -> bool:
    """Make the usual filters of detectors known to libhdf5, where hdf5plugin is installed; else False."""
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:
        return False
    return True


def read_number(archive: Any, holder: Any, *keys: str, default: float | None = None) -> float:
    """The first of these attributes that is there, as a float; DataError where none is and no default."""
    for key in keys:
        what = f"{archive.filename}: {key!r}"
        with damage(what):
            if key in holder.attrs:
                return as_number(holder.attrs[key], what)
    if default is None:
        where = "" if holder.name == "/" else f" on {holder.name.lstrip('/')!r}"
        raise DataError(f"{archive.filename} has no attribute {keys[0]!r}{where}; write the file again")
    return default


def read_text(archive: Any, key: str, default: str) -> str:
    """A text attribute of the file."""
    with damage(f"{archive.filename}: {key!r}"):
        value = archive.attrs.get(key, default)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def as_number(value: Any, what: str) -> float:
    """A finite float. Raises DataError naming `what`."""
    try:
        number = float(np.asarray(value).reshape(-1)[0]) if np.size(value) == 1 else float("nan")
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not np.isfinite(number):
        raise DataError(f"{what} is {short(repr(value))}; it must be one finite number")
    return number
