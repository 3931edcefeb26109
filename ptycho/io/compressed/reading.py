"""Reads a compressed scan: its arrays by RawData's names, its frames decoded in blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.compressed.file import holds_probe as holds_probe
from ptycho.io.compressed.file import is_compressed as is_compressed
from ptycho.io.compressed.file import read_arrays, read_header, stored_rows
from ptycho.io.compressed.header import PREDICTING, Header
from ptycho.io.compressed.levels import from_levels, to_levels, unfolded
from ptycho.io.compressed.network import decoder_names, shipped_weights, weights_digest
from ptycho.io.compressed.prediction import Predictor, predictor_of
from ptycho.io.geometry import Geometry
from ptycho.io.lazy import LazyPatterns
from ptycho.io.lazy_files import Header as FrameHeader
from ptycho.io.reading import check_fits
from ptycho.io.scratch import ScratchArray


def read_compressed(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arrays of a compressed scan by the names of RawData's keyword arguments, frames in memory.

    Time: one pass; memory: the frames. Raises MissingFileError, DataError.
    """
    arrays = compressed_by_rows(path)
    frames = arrays["diff3d"]
    check_fits(frames.shape, frames.dtype.itemsize, f"{path}: its frames", "say patterns = 'disk'")
    made = np.empty(frames.shape, frames.dtype)
    for begin, part in _blocks(frames, path):
        made[begin : begin + len(part)] = part
    return {**arrays, "diff3d": made}


def unpacked(path: Path, folder: Path | None) -> dict[str, Any]:
    """The same, its frames in a scratch file in `folder`. Time: one pass; memory: one block of frames."""
    arrays = compressed_by_rows(path)
    frames = arrays["diff3d"]
    made = ScratchArray(frames.shape, frames.dtype, folder)
    for begin, part in _blocks(frames, path):
        made.write(begin, part)
    whole = made.map()
    rows = LazyPatterns(lambda begin, end: np.asarray(whole[begin:end]), frames.shape, frames.dtype)
    return {**arrays, "diff3d": rows}


def compressed_by_rows(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The same, with frames decoded on request, a whole block at a time. Memory: one block."""
    header, kept, arrays = read_arrays(path)
    _check_network(header, arrays, path)
    predict: Predictor | None = None
    if arrays:
        with named(path):
            predict = predictor_of(header.method, arrays, header.shape)
    if predict is None and header.method in PREDICTING:
        raise DataError(f"{path} lacks the prediction of its method {header.method!r}; copy it again")
    M = header.shape[0]

    def read(begin: int, end: int) -> NDArray[Any]:
        first, parts = begin // header.block * header.block, []
        for low in range(first, end, header.block):
            high = min(low + header.block, M)
            stored = stored_rows(path, low, high) if header.keeps_frames else None
            with named(path):
                block = decoded_block(header, stored, None if predict is None else predict(low, high))
            parts.append(block[max(begin - low, 0) : end - low])
        return np.concatenate(parts) if parts else np.empty((0, *header.shape[1:]), header.dtype)

    made = {**kept, "diff3d": LazyPatterns(read, header.shape, header.dtype)}
    made["diffraction_unit"], made["pattern_order"] = header.unit, "MNN"
    if header.geometry:
        made["geometry"] = Geometry.of_dict(header.geometry)
    return made


@contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add the name of the file to a DataError inside."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def decoded_block(
    header: Header, stored: NDArray[Any] | None, expected: NDArray[np.float64] | None
) -> NDArray[Any]:
    """Frames (B, N, N) of a block from the stored values and the prediction."""
    if header.method == "lossless":
        assert stored is not None
        return stored.astype(header.dtype, copy=False)
    kind = np.dtype(header.dtype)
    if stored is None:
        assert expected is not None
        return expected.astype(kind)
    assert header.step is not None
    if expected is None:
        levels = stored.astype(np.int64)
    else:
        levels = unfolded(stored) + predicted_levels(expected, header)
    counts = from_levels(np.maximum(levels, 0), header.step)
    if kind.kind in "ui":
        counts = np.minimum(counts, np.iinfo(kind).max)
    return counts.astype(kind)


def predicted_levels(expected: NDArray[np.float64], header: Header) -> NDArray[np.int64]:
    """Levels of expected counts, no higher than the brightest count of the scan."""
    assert header.step is not None
    brightest = float(header.parameters.get("brightest", np.inf))
    finite = np.nan_to_num(expected, nan=0.0, posinf=0.0, neginf=0.0)
    return to_levels(np.rint(np.clip(finite, 0.0, min(brightest, 2.0**53))), header.step)


def frame_header(path: Path) -> FrameHeader:
    """Shape and dtype of the decoded frames."""
    header = read_header(path)
    return FrameHeader(header.shape, np.dtype(header.dtype))


def _blocks(frames: LazyPatterns, path: str | os.PathLike[str]) -> Iterator[tuple[int, NDArray[Any]]]:
    block = read_header(path).block
    for begin in range(0, len(frames), block):
        yield begin, frames[begin : begin + block]


def _check_network(header: Header, arrays: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """DataError if the scan was compressed with a network that this installation does not have."""
    if header.method != "learned" or all(name in arrays for name in decoder_names()):
        return
    if header.parameters.get("network") != weights_digest(shipped_weights()):
        raise DataError(
            f"{path} was compressed with the network of another version of ptychopinn; install the one that "
            "wrote it, decompress it there, or ask for the original"
        )
