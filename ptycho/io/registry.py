"""Which module reads and writes a scan file: own formats by their suffix, foreign ones by their contents.

A format is a pair of functions on plain arrays, named as the keyword arguments of
`ptycho.scan.raw_data.RawData`. Adding one is one call to `register_format`. Files of other programs are
read by `ptycho.io.formats` where they say all that a scan needs; else `ptycho import` takes what they lack.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptycho.errors import DataError, InputError, MissingFileError
from ptycho.io.compressed.reading import frame_header, holds_probe, is_compressed, read_compressed, unpacked
from ptycho.io.hdf5_read import is_hdf5
from ptycho.io.inputs import check_input
from ptycho.io.lazy import LazyPatterns, NotByRows, Patterns
from ptycho.io.lazy_files import Header, hdf5_header, npz_header, npz_patterns
from ptycho.io.npz import open_npz, patterns_key, read_npz, write_npz
from ptycho.io.ptychodus_scan import is_ptychodus, patterns_file, read_ptychodus_scan
from ptycho.io.reading import damage
from ptycho.io.scratch import goes_to_disk

Reader = Callable[[Path], dict[str, Any]]
Writer = Callable[[Path, Mapping[str, Any]], None]


class ByRows(NamedTuple):
    """How patterns stay on disk: what they are (None: not there), and the scan with patterns read by rows.

    The reader takes a folder for scratch files, or None.
    """

    header: Callable[[Path], Header | None]
    reader: Callable[[Path, Path | None], dict[str, Any]]


class Format(NamedTuple):
    """How one kind of scan file is read and written; a format that cannot be written has no writer, one
    whose patterns must be read whole no `by_rows`."""

    reader: Reader
    writer: Writer | None
    by_rows: ByRows | None = None


def _npz_header(path: Path) -> Header | None:
    with open_npz(path) as archive:
        key = patterns_key(archive.files)
        return npz_header(path, key) if key in archive.files else None


_WITHOUT_PROBE = Format(
    lambda path: read_npz(path, probe_required=False),
    None,
    ByRows(
        _npz_header,
        lambda path, folder: read_npz(
            path, lambda key: npz_patterns(path, key, folder), probe_required=False
        ),
    ),
)
_NPZ = ByRows(_npz_header, lambda path, folder: read_npz(path, lambda key: npz_patterns(path, key, folder)))
_HDF5 = ByRows(
    lambda path: hdf5_header(patterns_file(path), "patterns"),
    lambda path, _: read_ptychodus_scan(path, by_rows=True),
)
_COMPRESSED = Format(read_compressed, None, ByRows(frame_header, unpacked))
_FORMATS: dict[str, Format] = {
    ".npz": Format(read_npz, write_npz, _NPZ),
    ".h5": Format(read_ptychodus_scan, None, _HDF5),
    ".hdf5": Format(read_ptychodus_scan, None, _HDF5),
}


def register_format(suffix: str, reader: Reader, writer: Writer | None = None) -> None:
    """Read and write files ending in `suffix` (with its dot) through these functions from now on."""
    if not suffix.startswith("."):
        raise InputError(f"cannot register format {suffix!r}: a suffix starts with a dot, as in '.npz'")
    _FORMATS[suffix.lower()] = Format(reader, writer)


def known_suffixes() -> tuple[str, ...]:
    """Suffixes that scans can be read from, sorted."""
    return tuple(sorted(_FORMATS))


def read_scan(
    path: str | os.PathLike[str],
    *,
    patterns: str = "memory",
    scratch_folder: Path | None = None,
    probe_required: bool = True,
) -> dict[str, Any]:
    """The arrays of a scan file, by the names of RawData's keyword arguments.

    `patterns` says where diff3d is then: in 'memory', on 'disk' (`ptycho.io.lazy.LazyPatterns`), or, 'auto',
    on disk where it would need too much memory, see `ptycho.io.scratch`. Compressed NPZ files are unpacked
    into a scratch file in `scratch_folder`. An NPZ file may lack a probe that is not `probe_required`.
    Raises NotByRows where patterns can only be read whole and may
    not, MissingFileError, InputError for a folder or an unknown suffix, DataError for damaged contents.
    """
    source = check_input(path)
    if not source.exists():
        raise MissingFileError(f"{source} does not exist; check the path of the scan file")
    with damage(str(source)):
        return _read_scan(source, patterns, scratch_folder, probe_required)


_ONE_ARRAY = ("npy", "text")


def shape_of(path: Path) -> tuple[int, int]:
    """Patterns and their side, px, of a scan file, by its header if it has one. Raises as `read_scan`."""
    source = check_input(path)
    form = _COMPRESSED if is_compressed(source) else _FORMATS.get(source.suffix.lower())
    if (
        form is not None
        and form.by_rows is not None
        and source.is_file()
        and (form is _COMPRESSED or not _is_foreign(source))
    ):
        with damage(str(source)):
            header = form.by_rows.header(source)
        if header is not None and len(header.shape) == 3:
            return _count_and_side(header.shape)
    patterns = read_scan(source, patterns="auto", probe_required=False)["diff3d"]
    return _count_and_side(patterns.shape)


def _count_and_side(shape: tuple[int, ...]) -> tuple[int, int]:
    """M and N of (M, N, N), or of an older file's (N, N, M)."""
    if shape[0] == shape[1] != shape[2]:
        return int(shape[2]), int(shape[0])
    return int(shape[0]), int(shape[1])


def _read_scan(
    source: Path, patterns: str, scratch_folder: Path | None, probe_required: bool
) -> dict[str, Any]:
    compressed = is_compressed(source)
    if not compressed and _is_foreign(source):
        return _read_foreign(source, patterns, probe_required)
    if source.is_dir():
        raise InputError(f"{source} is a folder; give the scan file inside it")
    form = _COMPRESSED if compressed else _format_of(source)
    if compressed and probe_required and not holds_probe(source):
        raise DataError(f"{source} has no probe; `ptycho reconstruct` it, which makes one")
    if not probe_required and form.reader is read_npz:
        form = _WITHOUT_PROBE
    if form.by_rows is None:
        if patterns == "disk":
            raise NotByRows(f"{source}: a scan of format {source.suffix!r}")
        return form.reader(source)
    header = form.by_rows.header(source) if patterns != "memory" else None
    if goes_to_disk(header.needed_bytes if header is not None else 0, patterns):
        return form.by_rows.reader(source, scratch_folder)
    return form.reader(source)


def _is_foreign(path: Path) -> bool:
    """Whether a file is read by `ptycho.io.formats`: its contents are not what an own suffix says."""
    suffix = path.suffix.lower()
    if suffix in (".h5", ".hdf5"):
        own = path.is_file() and is_hdf5(path)
    elif suffix == ".npz":
        own = path.is_file() and zipfile.is_zipfile(path)
    else:
        own = path.is_file() and suffix in _FORMATS
    if own:
        return suffix in (".h5", ".hdf5") and not is_ptychodus(path)
    from ptycho.io.formats.registry import recognised

    found = recognised(path)
    # one array or table under the name of a scan is a damaged scan
    return found is not None and (suffix not in _FORMATS or found.name not in _ONE_ARRAY)


def _read_foreign(path: Path, patterns: str, probe_required: bool) -> dict[str, Any]:
    """A scan out of another program's file; DataError says what it lacks and how `ptycho import` takes it."""
    from ptycho.io.formats.registry import find
    from ptycho.io.importing import ImportOptions, prepare_from

    try:
        arrays = prepare_from(path, find(path), ImportOptions()).as_arrays()
    except DataError as error:
        raise DataError(f"{error}; or make a scan file of it: ptycho import {path.name}") from None
    if arrays["probeGuess"] is None and probe_required:
        raise DataError(
            f"{path} has no probe: give one by ptycho import {path.name} --set path.probe=..., or "
            "`ptycho reconstruct` it, which makes one"
        )
    arrays["diff3d"] = kept_patterns(arrays["diff3d"], patterns)
    return {key: value for key, value in arrays.items() if value is not None}


def kept_patterns(frames: Patterns, place: str) -> Patterns:
    """Frames (M, N, N) read by rows, read whole where `place` is 'memory', or 'auto' and they are small."""
    needed = int(np.prod(frames.shape, dtype=np.int64)) * (frames.dtype.itemsize + 4)
    if isinstance(frames, LazyPatterns) and not goes_to_disk(needed, place):
        return frames[:]
    return frames


def write_scan(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write the arrays of a scan; None entries are left out. Raises InputError for an unknown suffix."""
    target = Path(path)
    writer = _format_of(target).writer
    if writer is None:
        raise InputError(f"cannot write {target}: {target.suffix!r} can only be read; write .npz")
    writer(target, arrays)


def _format_of(path: Path) -> Format:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(known_suffixes())
        raise InputError(f"{path} has the unknown suffix {path.suffix!r}; known: {known}") from None
