"""Maps of bad pixels as files of their own: NPY, or NPZ under the key `bad_pixels`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, InputError, MissingFileError
from ptycho.io.atomic import atomic_write
from ptycho.io.inputs import check_input, short
from ptycho.io.npy_header import array_header
from ptycho.io.npz import open_npz, read_array
from ptycho.io.reading import check_fits, damage
from ptycho.io.targets import check_target

KEY = "bad_pixels"
SUFFIXES = (".npy", ".npz")


def read_mask(path: str | os.PathLike[str]) -> NDArray[np.bool_]:
    """A map (N,N) bool, True = ignore. Raises MissingFileError, DataError for what is no such map."""
    source = check_input(path)
    if not source.is_file():
        raise MissingFileError(f"{source} is no file; check the path of the mask")
    array: NDArray[Any]
    if source.suffix.lower() == ".npz":
        with open_npz(source) as archive:
            names = archive.files
            if KEY not in names and len(names) != 1:
                raise DataError(
                    f"{source} has no {KEY!r}; it holds {', '.join(names) or 'nothing'}: store the mask"
                    f" as {KEY}"
                )
            array = read_array(archive, KEY if KEY in names else names[0], source)
    else:
        with damage(f"{source}: the mask", "save it with numpy.save"), source.open("rb") as stream:
            header = array_header(stream)
            if header is not None:
                check_fits(header[0], header[2].itemsize, f"{source}: the mask")
            stream.seek(0)
            array = np.lib.format.read_array(stream, allow_pickle=False)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise DataError(f"{source} has shape {array.shape}; a mask has the shape of a pattern, (N, N)")
    if array.dtype.kind not in "buif" or not np.all((array == 0) | (array == 1)):
        raise DataError(f"{source} must hold only True or False (1 or 0), True = ignore")
    return array.astype(np.bool_)


def write_mask(path: str | os.PathLike[str], mask: NDArray[np.bool_]) -> None:
    """Write a map (N,N) bool whole or not at all, NPY or NPZ by its suffix; a file that is there is replaced.

    Raises InputError for another suffix, a link or a pipe.
    """
    target = check_mask_target(path, overwrite=True)
    with atomic_write(target) as temporary, open(temporary, "wb") as stream:
        if target.suffix.lower() == ".npz":
            np.savez(stream, allow_pickle=False, bad_pixels=mask)
        else:
            np.save(stream, mask, allow_pickle=False)


def check_mask_target(
    path: str | os.PathLike[str], inputs: Iterable[Path | None] = (), *, overwrite: bool = False
) -> Path:
    """The path, where a mask can be written to it: it is none of `inputs`, and no file unless `overwrite`."""
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"{short(target)}: a mask ends in .npy or .npz")
    if not target.parent.is_dir():
        raise InputError(f"{short(target)}: the folder {short(target.parent)} is not there; make it first")
    return check_target(target, inputs=inputs, overwrite=overwrite)
