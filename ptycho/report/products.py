"""Reading a complex image, a reconstruction or a truth, from any kind of file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ptycho.errors import DataError, InputError, MissingFileError
from ptycho.image.cropping import Box
from ptycho.io.compressed.file import is_compressed, read_beside
from ptycho.io.images import read_image
from ptycho.io.inputs import check_input
from ptycho.io.micrograph import is_micrograph, read_micrograph
from ptycho.io.npz import open_npz, read_array
from ptycho.io.ptychodus_hdf5 import as_number
from ptycho.io.ptychodus_scan import is_ptychodus
from ptycho.io.reading import damage

PRODUCT = "reconstruction.npz"
#: the key of an image that is not a reconstruction: its object is real
PICTURE = "picture"
_HDF5 = (".h5", ".hdf5", ".hdf")


class Product(NamedTuple):
    """One complex image (H, W) and its position.

    coverage (H, W) or None; origin_xy: its corner in the pixels of its scan, None where unknown;
    roi (y0, y1, x0, x1) to judge in, None: all; pixel_size_m, centre_m [x, y]: None where unknown;
    key: the array in the file that it is.
    """

    name: str
    object: NDArray[Any]
    key: str = "object"
    coverage: NDArray[Any] | None = None
    origin_xy: tuple[float, float] | None = None
    roi: Box | None = None
    pixel_size_m: float | None = None
    centre_m: tuple[float, float] | None = None


def open_product(path: Path) -> Product:
    """The image in a product (.npz or ptychodus .h5), a scan that holds its truth, or a run folder.

    Of an NPZ file the first of object, object_true, objectGuess is taken. Raises MissingFileError, InputError
    for an unknown suffix or an object of several layers, DataError for damaged contents.
    """
    source = check_input(path) / PRODUCT if path.is_dir() else check_input(path)
    if path.is_dir() and not source.is_file():
        raise MissingFileError(f"{path} holds no {PRODUCT}; give the folder of ptycho infer or reconstruct")
    if not source.exists():
        raise MissingFileError(f"{source} does not exist; check the path")
    with damage(str(source)):
        return _opened(source, path.name or path.resolve().name)


def open_reference(path: Path) -> Product:
    """As `open_product`, or a micrograph (PNG, TIFF, NPY): a product whose object is real."""
    if path.is_dir() or not is_micrograph(path):
        return open_product(path)
    return Product(path.name, read_micrograph(path), PICTURE)


def _opened(source: Path, name: str) -> Product:
    if source.suffix.lower() in _HDF5 and is_ptychodus(source):
        return _read_ptychodus(source, name)
    if source.suffix.lower() == ".npz":
        return _read_npz(source, name)
    truth = _compressed_truth(source)
    if truth is not None:
        return truth._replace(name=name)
    made = read_image(source)
    size = made.object_pixel_size_m
    return Product(name, made.object, "object", made.coverage, made.origin_xy, None, size)


def find_truth(path: Path) -> Product | None:
    """The truth in a scan file: object_true (with roi), else objectGuess; None if neither exists."""
    if path.suffix.lower() != ".npz":
        return _compressed_truth(path)
    with open_npz(path) as archive, damage(f"{path}: the truth"):
        for key in ("object_true", "objectGuess"):
            if key in archive.files:
                roi = (
                    read_array(archive, "roi", path)
                    if key == "object_true" and "roi" in archive.files
                    else None
                )
                obj = _image(read_array(archive, key, path), path, key)
                return Product(path.name, obj, key, origin_xy=(0.0, 0.0), roi=_box(roi, path))
    return None


def _compressed_truth(path: Path) -> Product | None:
    """The same of a compressed scan; None for any other file."""
    if not is_compressed(path):
        return None
    found = read_beside(path)
    for key in ("object_true", "objectGuess"):
        if key in found:
            roi = found.get("roi") if key == "object_true" else None
            return Product(
                path.name, _image(found[key], path, key), key, origin_xy=(0.0, 0.0), roi=_box(roi, path)
            )
    return None


def _read_npz(path: Path, name: str) -> Product:
    with open_npz(path) as archive:
        if "object_pixel_width_m" in archive.files:
            return _read_ptychodus(path, name)
        if "object" not in archive.files:
            truth = find_truth(path)
            if truth is None:
                raise DataError(f"{path} holds no image: none of object, object_true, objectGuess is in it")
            return truth._replace(name=name)
        obj = _image(read_array(archive, "object", path), path, "object")
        coverage = read_array(archive, "coverage", path) if "coverage" in archive.files else None
        origin = _pair(read_array(archive, "origin_xy", path), path) if "origin_xy" in archive.files else None
        sized = "object_pixel_size_m" in archive.files
        size = (
            as_number(read_array(archive, "object_pixel_size_m", path), f"{path}: the pixel size")
            if sized
            else None
        )
    if coverage is not None and (coverage.shape != obj.shape or coverage.dtype.kind not in "buif"):
        raise DataError(
            f"{path}: coverage has shape {coverage.shape}, the object {obj.shape}; write it again"
        )
    return Product(name, obj, "object", coverage, origin, None, size)


def _read_ptychodus(path: Path, name: str) -> Product:
    """The object of a ptychodus product; the positions of its scan are in its own pixels."""
    from ptycho.io.ptychodus_product import read_product

    made = read_product(path)
    width, height = made.frame.pixel_xy_m
    if abs(width - height) > 1e-3 * width:
        raise InputError(
            f"{path}: pixels of {width:.4g} x {height:.4g} m are not square; resample the object"
        )
    obj = _image(made.object, path, "object")
    return Product(name, obj, "object", None, (0.0, 0.0), None, float(width), made.frame.center_xy_m)


def _image(values: NDArray[Any], path: Path, key: str) -> NDArray[Any]:
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim == 3:
        raise InputError(f"{path}: {key!r} has {len(values)} layers; one image can be compared, not a stack")
    if values.ndim != 2 or values.dtype.kind not in "fciu" or 0 in values.shape:
        raise DataError(
            f"{path}: {key!r} is {values.dtype} of shape {values.shape}; expected one image (H, W)"
        )
    return values


def _pair(values: NDArray[Any], path: Path) -> tuple[float, float]:
    if values.size != 2 or values.dtype.kind not in "fiu":
        raise DataError(f"{path}: origin_xy must be two numbers, found {values.dtype} of {values.shape}")
    x, y = float(values.ravel()[0]), float(values.ravel()[1])
    if not (math.isfinite(x) and math.isfinite(y)):
        raise DataError(f"{path}: origin_xy is ({x}, {y}); it must be two finite numbers")
    return x, y


def _box(values: NDArray[Any] | None, path: Path) -> Box | None:
    if values is None:
        return None
    if values.shape != (4,) or values.dtype.kind not in "iu":
        raise DataError(f"{path}: roi must be four whole numbers (y0, y1, x0, x1), found {values.shape}")
    y0, y1, x0, x1 = (int(v) for v in values)
    return y0, y1, x0, x1
