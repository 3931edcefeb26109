"""A reference image of another instrument: one real picture out of PNG, TIFF or NPY."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, InputError, MissingFileError
from ptycho.io.formats.arrays import require_tifffile
from ptycho.io.images import TIFF_PARTS
from ptycho.io.inputs import check_input
from ptycho.io.reading import check_memory, damage

_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
_SMALLEST = 11


def is_micrograph(path: str | os.PathLike[str]) -> bool:
    """Whether a file is taken for a single picture: by its suffix; a pair of TIFF files is a reconstruction.

    >>> is_micrograph("sem.png"), is_micrograph("image_phase.tif"), is_micrograph("run")
    (True, False, False)
    """
    name = str(path).lower()
    return name.endswith(_SUFFIXES) and not name.endswith(TIFF_PARTS)


def read_micrograph(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """The picture (H, W) float64; colours are averaged, transparency is dropped.

    Raises MissingFileError, InputError for another suffix, DataError for what is no single picture.
    """
    source = check_input(path)
    if not source.is_file():
        raise MissingFileError(f"{source} does not exist; check the path")
    if not is_micrograph(source):
        raise InputError(f"{source}: a picture is one of {', '.join(_SUFFIXES)}")
    with damage(str(source)):
        values = _read(source)
    if values.ndim == 3 and values.shape[-1] in (3, 4):
        values = values[..., :3].mean(-1)
    elif values.ndim == 3 and values.shape[-1] == 2:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "buif" or min(values.shape) < _SMALLEST:
        raise DataError(f"{source} holds {values.dtype} of shape {values.shape}; expected one picture (H, W)")
    picture = values.astype(np.float64)
    if not np.isfinite(picture).all() or not np.ptp(picture) > 0:
        raise DataError(f"{source} holds NaN or infinite pixels, or shows nothing; take another picture")
    return picture


def _read(source: Path) -> NDArray[np.generic]:
    suffix = source.suffix.lower()
    if suffix == ".npy":
        return np.load(source, allow_pickle=False)  # type: ignore[no-any-return]
    if suffix == ".png":
        from PIL import Image

        with Image.open(source, formats=("PNG",)) as picture:
            check_memory(8 * picture.width * picture.height, str(source))
            if picture.mode == "P":
                return np.asarray(picture.convert("RGB"), np.float64)
            return np.asarray(picture)
    tifffile = require_tifffile()
    try:
        with tifffile.TiffFile(source) as opened:
            check_memory(8 * int(np.prod(opened.pages[0].shape)), str(source))
            return np.asarray(opened.pages[0].asarray())
    except (tifffile.TiffFileError, IndexError) as error:
        raise DataError(f"{source} is damaged ({error}); write or copy it again") from error
