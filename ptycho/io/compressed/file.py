"""The file of a compressed scan: HDF5 with a checksum over every header and every value.

    about                 JSON, see `ptycho.io.compressed.header`
    scan/NAME             positions, probe guess, object guess, mask, marks of bad frames, scan numbers:
                          exactly as they were
    beside/NAME           what stood beside the scan, exactly: the truth of a simulation and its scenario
    prediction/NAME       arrays of the method's prediction, if it has one
    frames                (N, N, M) original values, levels, or differences of levels; absent if dropped

The last axis of `frames` counts frames, so that the values of one pixel stand together: Bitshuffle and Zstd
then find what pixels have in common from frame to frame. A piece holds `block` frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, MissingDependencyError
from ptycho.io.atomic import atomic_write
from ptycho.io.checksums import check_digest, digest_of
from ptycho.io.compressed.header import Header
from ptycho.io.compressed.prediction import Arrays
from ptycho.io.hdf5_read import is_hdf5
from ptycho.io.ptychodus_hdf5 import load_filters, open_hdf5, read_dataset, unreadable
from ptycho.io.reading import check_fits, damage
from ptycho.io.sealed_hdf5 import check_written, new_file, new_group, put

ABOUT, SCAN, PREDICTION, FRAMES = "about", "scan", "prediction", "frames"
BESIDE = "beside"
#: arrays of a scan that are stored exactly, by the names of RawData's keyword arguments
EXACT_ARRAYS = (
    "xcoords", "ycoords", "xcoords_start", "ycoords_start", "probeGuess", "objectGuess", "scan_index",
    "bad_pixels", "bad_frames",
)  # fmt: skip
#: arrays of predictions with one entry per frame; they are stored with the frame axis last, as `frames`
_BY_FRAME = ("weights", "latents")
_BLOCK_BYTES, _BLOCK = 2**26, 64
_LARGEST_PIECE = 2**27
_ZSTD_LEVEL = 9


def is_compressed(path: Path) -> bool:
    """Whether a file is a compressed scan of this package; False if it cannot be opened."""
    if not is_hdf5(path):
        return False
    try:
        with open_hdf5(path) as archive:
            return ABOUT in archive and SCAN in archive and archive.attrs.get("kind") == _kind()
    except DataError:
        return False


def holds_probe(path: Path) -> bool:
    """Whether a compressed scan has a probe guess."""
    with open_hdf5(path) as archive:
        return f"{SCAN}/probeGuess" in archive


def block_of(shape: tuple[int, int, int], itemsize: int) -> int:
    """Number of frames that are coded together: up to 64, fewer if they exceed 64 MB."""
    M, N, _ = shape
    return max(1, min(_BLOCK, M, _BLOCK_BYTES // (N * N * itemsize)))


def write_compressed(
    path: str | os.PathLike[str],
    header: Header,
    scan: Mapping[str, Any],
    prediction: Arrays,
    blocks: Iterable[NDArray[Any]] | None,
    stored: np.dtype[Any] | None,
    finish: Callable[[Header], Header],
    beside: Mapping[str, Any] | None = None,
) -> Header:
    """Write a compressed scan, whole or not at all; the header as written, with its bits a frame.

    scan: the arrays of EXACT_ARRAYS that the scan has. blocks: (B, N, N) of type `stored`, one after another,
    each of `block` frames except the last; None if only the prediction is stored. finish: adds to the header
    the values known only after the last block. beside: arrays and texts that are no part of the scan
    (`ptycho.io.companions`). Memory: one block. Raises MissingDependencyError, RunError.
    """
    if not load_filters():
        raise MissingDependencyError("compressed scans need hdf5plugin: pip install hdf5plugin")
    M, N, _ = header.shape
    with atomic_write(path) as temporary, new_file(temporary) as archive:
        archive.attrs["kind"] = _kind()
        for name in EXACT_ARRAYS:
            if scan.get(name) is not None:
                _put(new_group(archive, SCAN), name, np.asarray(scan[name]))
        kept_beside = {name: _plain(values) for name, values in (beside or {}).items()}
        for name, values in kept_beside.items():
            _put(new_group(archive, BESIDE), name, values)
        held = new_group(archive, PREDICTION)
        for name, values in prediction.items():
            _put(held, name, np.moveaxis(values, 0, -1) if name in _BY_FRAME else values)
        if blocks is not None:
            assert stored is not None
            frames = archive.create_dataset(
                FRAMES, shape=(N, N, M), dtype=stored, chunks=(N, N, header.block), fletcher32=True,
                **_codec(),
            )  # fmt: skip
            done = 0
            for block in blocks:
                frames[:, :, done : done + len(block)] = np.moveaxis(block, 0, -1)
                done += len(block)
                check_written(archive)
        archive.flush()
        bits = 8 * sum(one.id.get_storage_size() for one in _coded(archive))
        known = {name: scan.get(name) for name in EXACT_ARRAYS}
        contents = digest_of(_named(known, prediction, kept_beside))
        made = replace(finish(header), bits_per_frame=bits / M, contents=contents)
        put(archive, ABOUT, made.as_text())
    return made


def read_header(path: str | os.PathLike[str]) -> Header:
    """The header of a compressed scan. Raises MissingFileError, DataError."""
    with open_hdf5(path) as archive, damage(str(path)):
        return _header(archive, path)


def read_arrays(path: str | os.PathLike[str]) -> tuple[Header, dict[str, Any], dict[str, Any]]:
    """(header, arrays of the scan without its frames, arrays of the prediction). Raises DataError."""
    with open_hdf5(path) as archive, damage(str(path)):
        header = _header(archive, path)
        kept = {
            name: read_dataset(archive, f"{SCAN}/{name}") for name in EXACT_ARRAYS if name in archive[SCAN]
        }
        arrays = {name: read_dataset(archive, f"{PREDICTION}/{name}") for name in archive[PREDICTION]}
        for name in _BY_FRAME:
            if name in arrays:
                arrays[name] = np.moveaxis(arrays[name], -1, 0)
        check_digest(header.contents, _named(kept, arrays, _beside(archive)), Path(path))
        _check_scan(kept, header, path)
        return header, kept, arrays


def read_beside(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Arrays and texts that stand beside a compressed scan, by name; the object guess as `objectGuess`."""
    with open_hdf5(path) as archive, damage(str(path)):
        made = {
            name: values
            if values.dtype.kind != "S"
            else np.asarray(bytes(values[()]).decode("utf-8", "replace"))
            for name, values in _beside(archive).items()
        }
        if "objectGuess" in archive[SCAN]:
            made["objectGuess"] = read_dataset(archive, f"{SCAN}/objectGuess")
        return made


def stored_rows(path: str | os.PathLike[str], begin: int, end: int) -> NDArray[Any]:
    """The stored values of frames `begin` to `end`, (end - begin, N, N)."""
    with open_hdf5(path) as archive, damage(f"{path}: frames {begin} to {end - 1}"):
        found = archive[FRAMES]
        try:
            return np.ascontiguousarray(np.moveaxis(found[:, :, begin:end], -1, 0))
        except (OSError, MemoryError) as error:
            raise unreadable(found, error) from error


def _beside(archive: Any) -> dict[str, NDArray[Any]]:
    if BESIDE not in archive:
        return {}
    made = {}
    for name in archive[BESIDE]:
        found = archive[f"{BESIDE}/{name}"]
        text = getattr(found, "dtype", None) is not None and found.dtype.kind == "S" and found.shape == ()
        made[name] = np.asarray(found[()]) if text else read_dataset(archive, f"{BESIDE}/{name}")
    return made


def _plain(values: Any) -> NDArray[Any]:
    """An array that HDF5 stores; a text as UTF-8."""
    array = np.asarray(values)
    return np.asarray(np.bytes_(str(array[()]).encode())) if array.dtype.kind == "U" else array


def _named(scan: Mapping[str, Any], prediction: Arrays, beside: Mapping[str, Any]) -> dict[str, Any]:
    """The small arrays of a file by their paths in it."""
    kept = {f"{SCAN}/{name}": values for name, values in scan.items() if values is not None}
    more = {f"{BESIDE}/{name}": values for name, values in beside.items()}
    return {**kept, **more, **{f"{PREDICTION}/{name}": values for name, values in prediction.items()}}


def _kind() -> np.bytes_:
    return np.bytes_(b"compressed scan of ptychopinn")


def _codec() -> dict[str, Any]:
    import hdf5plugin

    return dict(hdf5plugin.Bitshuffle(cname="zstd", clevel=_ZSTD_LEVEL))


def _put(group: Any, name: str, values: NDArray[Any]) -> None:
    """Write one array, compressed if that can make it smaller."""
    values = np.ascontiguousarray(values) if values.ndim else values
    if not values.ndim or values.nbytes <= 4096 or values.nbytes > _LARGEST_PIECE:
        put(group, name, values)
        return
    if values.dtype.kind == "c":
        group.create_dataset(name, data=values, chunks=values.shape, fletcher32=True, compression="gzip")
        return
    group.create_dataset(name, data=values, chunks=values.shape, fletcher32=True, **_codec())


def _coded(archive: Any) -> list[Any]:
    """The datasets that store the frames."""
    held = archive[PREDICTION]
    return [held[name] for name in held] + ([archive[FRAMES]] if FRAMES in archive else [])


def _header(archive: Any, path: str | os.PathLike[str]) -> Header:
    if ABOUT not in archive or PREDICTION not in archive or SCAN not in archive:
        raise DataError(f"{path} is no compressed scan, or it is damaged; write or copy it again")
    found = archive[ABOUT]
    if found.dtype.kind != "S" or found.shape != ():
        raise DataError(f"{path}: {ABOUT!r} is no text; write or copy it again")
    try:
        header = Header.of_text(bytes(found[()]).decode("utf-8"))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    M, N, _ = header.shape
    check_fits((M,), 8, f"{path}: the list of frames")
    check_fits((header.block, N, N), 8, f"{path}: one block of frames")
    if header.keeps_frames and FRAMES not in archive:
        raise DataError(f"{path} has no {FRAMES!r}, which its header says to be there; copy it again")
    if header.keeps_frames:
        frames = archive[FRAMES]
        if frames.shape != (N, N, M) or frames.chunks != (N, N, header.block):
            raise DataError(f"{path}: {FRAMES!r} has shape {frames.shape}, its header says {header.shape}")
        if frames.dtype.kind not in ("u" if header.method != "lossless" else "uif"):
            raise DataError(f"{path}: {FRAMES!r} has dtype {frames.dtype}; write or copy the file again")
    return header


def _check_scan(kept: Mapping[str, Any], header: Header, path: str | os.PathLike[str]) -> None:
    M = header.shape[0]
    for name in ("xcoords", "ycoords"):
        if name not in kept:
            raise DataError(f"{path} has no {SCAN}/{name}; write or copy it again")
        if kept[name].shape != (M,):
            raise DataError(f"{path}: {SCAN}/{name} has shape {kept[name].shape}; expected ({M},)")
