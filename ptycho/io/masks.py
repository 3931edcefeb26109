"""Maps of bad pixels as files of their own: NPY, or NPZ under the key `bad_pixels`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, InputError, MissingFileError
from ptycho.io.atomic import atomic_write
from ptycho.io.npz import open_npz, read_array

KEY = "bad_pixels"
SUFFIXES = (".npy", ".npz")


def read_mask(path: str | os.PathLike[str]) -> NDArray[np.bool_]:
    """A map (N,N) bool, True = ignore. Raises MissingFileError, DataError for what is no such map."""
    source = Path(path)
    if not source.is_file():
        raise MissingFileError(f"{source} does not exist; check the path of the mask")
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
        try:
            array = np.load(source, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{source} is no mask ({' '.join(str(error).split())}); save it with numpy.save"
            ) from error
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise DataError(f"{source} has shape {array.shape}; a mask has the shape of a pattern, (N, N)")
    if array.dtype.kind not in "buif" or not np.all((array == 0) | (array == 1)):
        raise DataError(f"{source} must hold only True or False (1 or 0), True = ignore")
    return array.astype(np.bool_)


def write_mask(path: str | os.PathLike[str], mask: NDArray[np.bool_]) -> None:
    """Write a map (N,N) bool whole or not at all, NPY or NPZ by its suffix. Raises InputError for others."""
    target = check_mask_target(path)
    with atomic_write(target) as temporary, open(temporary, "wb") as stream:
        if target.suffix.lower() == ".npz":
            np.savez(stream, allow_pickle=False, bad_pixels=mask)
        else:
            np.save(stream, mask, allow_pickle=False)


def check_mask_target(path: str | os.PathLike[str]) -> Path:
    """The path, where a mask can be written to it."""
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"{target}: a mask ends in .npy or .npz")
    if target.is_dir():
        raise InputError(f"{target}: is a folder; give a file name ending in .npy")
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} is not there; make it first")
    return target
