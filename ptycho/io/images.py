"""Reconstructed images in the files of several programs: NPZ, CXI, TIFF, ptychodus products, ptypy results.

Whatever is written here is read here again, as one `Image`. Which file is which is found by its contents.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, InputError, MissingFileError
from ptycho.io.atomic import atomic_write
from ptycho.io.formats.arrays import require_tifffile
from ptycho.io.hdf5_read import array_of, group_of, is_hdf5, text
from ptycho.io.inputs import check_input
from ptycho.io.ptychodus_frame import ObjectFrame
from ptycho.io.ptychodus_hdf5 import open_hdf5
from ptycho.io.reading import damage, one_line
from ptycho.io.sealed_hdf5 import new_file, new_group, put

#: the two files of a TIFF image, by what follows the stem
TIFF_PARTS = ("_amplitude.tif", "_phase.tif")
_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
#: name that ptypy gives the only storage of a single scan
_PTYR_ID = "Sscan00G00"
#: no object lies farther from its scan's pixel (0, 0)
_FARTHEST_PX = 1e9


@dataclass(frozen=True)
class Image:
    """One reconstruction as a file holds it; None for what it does not say.

    object (H, W) complex, its [0, 0] at object pixel origin_xy [x, y] of the scan; probe (P, N, N) complex;
    positions_px (M, 2) float64 [x, y] in the scan's object pixels, under pattern pixel (N//2, N//2);
    coverage (H, W); object_pixel_size_m.
    """

    object: NDArray[Any]
    probe: NDArray[Any] | None = None
    origin_xy: tuple[float, float] | None = None
    positions_px: NDArray[np.float64] | None = None
    coverage: NDArray[Any] | None = None
    object_pixel_size_m: float | None = None


def read_image(path: str | os.PathLike[str]) -> Image:
    """An image from a file of any kind that `ptycho` writes, or a folder that holds reconstruction.npz.

    Raises MissingFileError, InputError for a file of no known kind, DataError for damaged contents.
    """
    source = check_input(path)
    source = check_input(source / "reconstruction.npz") if source.is_dir() else source
    if not source.exists():
        raise MissingFileError(f"{source} does not exist; check the path")
    head = b""
    try:
        with source.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}; check its permissions") from None
    with damage(str(source)):
        if head.startswith(b"PK"):
            return _checked(_read_npz(source), source)
        if head[:4] in _TIFF_MAGIC:
            return _checked(_read_tiff(source), source)
        if is_hdf5(source):
            return _checked(_read_hdf5(source), source)
    raise InputError(f"{source} holds no image that is known; give .npz, .cxi, .tif, .ptyr or a product .h5")


def _checked(image: Image, path: Path) -> Image:
    """The image, where its parts fit each other; DataError names the one that does not."""
    wrong: dict[str, bool] = {}
    if image.probe is not None:
        wrong["the probe"] = image.probe.ndim not in (2, 3) or image.probe.dtype.kind not in "fciu"
    if image.coverage is not None:
        wrong["coverage"] = (
            image.coverage.shape != image.object.shape or image.coverage.dtype.kind not in "buif"
        )
    if image.origin_xy is not None:
        wrong["origin_xy"] = not all(abs(value) < _FARTHEST_PX for value in image.origin_xy)
    if image.positions_px is not None:
        places = image.positions_px
        wrong["positions"] = (
            places.ndim != 2 or places.shape[1] != 2 or places.dtype.kind not in "uif"
            or not bool(np.all(np.abs(places) < _FARTHEST_PX))
        )  # fmt: skip
    if image.object_pixel_size_m is not None:
        wrong["the pixel size"] = not 0 < image.object_pixel_size_m < math.inf
    found = [name for name, bad in wrong.items() if bad]
    if found:
        raise DataError(
            f"{path}: {found[0]} cannot belong to an object of shape {image.object.shape}; write it again"
        )
    return image


def _read_npz(path: Path) -> Image:
    from ptycho.io.npz import open_npz, read_array

    with open_npz(path) as archive:
        if "object_pixel_width_m" in archive.files:
            return _of_product(path)
        found = {
            key: read_array(archive, key, path)
            for key in ("object", "probe", "origin_xy", "positions_px", "coverage", "object_pixel_size_m")
            if key in archive.files
        }
    if "object" not in found:
        raise DataError(f"{path} has no 'object', so it holds no reconstructed image")
    origin, size = found.get("origin_xy"), found.get("object_pixel_size_m")
    return Image(
        _image(found["object"], path),
        found.get("probe"),
        None if origin is None else (float(origin.ravel()[0]), float(origin.ravel()[1])),
        found.get("positions_px"),
        found.get("coverage"),
        None if size is None else float(size.ravel()[0]),
    )


def _of_product(path: Path) -> Image:
    """A product's positions lie in the pixels of its own object, so its origin is (0, 0)."""
    from ptycho.io.ptychodus_product import read_product

    made = read_product(path)
    N = int(made.probe.shape[-1])
    return Image(
        made.object[0], made.probe[0], (0.0, 0.0), made.frame.to_pixels(made.x_m, made.y_m, N), None,
        float(made.frame.pixel_xy_m[0]),
    )  # fmt: skip


def _read_hdf5(path: Path) -> Image:
    with open_hdf5(path) as archive:
        kinds = set(archive)
    if "content" in kinds:
        return _read_ptyr(path)
    if "entry_1" in kinds:
        return _read_cxi(path)
    if {"object", "probe"} <= kinds and "probe_position_x_m" in kinds:
        return _of_product(path)
    if {"object", "probe", "dxp", "encoder_corrected"} <= kinds:
        return _read_ptylab(path)
    from ptycho.io.formats.registry import format_of

    form = format_of(path)
    if form.name == "hdf5":
        listed = ", ".join(sorted(kinds)) or "nothing"
        raise DataError(
            f"{path} is no product of ptychodus and no result of a known program; it holds {listed}"
        )
    found = form.find(path, {})
    if found.object is None:
        raise DataError(f"{path} ({found.format}) holds no reconstructed image")
    probe = None if found.probe is None else found.probe.reshape(-1, *found.probe.shape[-2:])
    in_pixels = found.positions_px is not None
    return Image(_image(found.object, path), probe, (0.0, 0.0) if in_pixels else None, found.positions_px)


def _read_cxi(path: Path) -> Image:
    """CXI images: 1 object and 2 probe, or the reverse where their titles or a group of ptychodus say so."""
    with open_hdf5(path) as archive:
        theirs = group_of(archive, "entry_1/ptychodus")
        title = array_of(archive, "entry_1/image_1/title")
        named = theirs is not None or (title is not None and text(title) == "probe")
        first, second = ("image_2", "image_1") if named else ("image_1", "image_2")
        obj = array_of(archive, f"entry_1/{first}/data", "ptychopinn/object")
        if obj is None:
            raise DataError(f"{path} has no entry_1/{first}/data, so it holds no reconstructed image")
        probe = array_of(archive, f"entry_1/{second}/data", "entry_1/instrument_1/source_1/illumination")
        mask = array_of(archive, f"entry_1/{first}/mask")
        extras = group_of(archive, "ptychopinn")
        attributes = {} if extras is None else dict(extras.attrs)
        places = None if extras is None else array_of(extras, "positions_px")
        coverage = None if extras is None else array_of(extras, "coverage")
        whole = array_of(archive, f"entry_1/{first}/image_size")
        moves = None if theirs is None else array_of(archive, "entry_1/sample_1/geometry_1/translation")
        keys = ("object_pixel_width_m", "object_pixel_height_m", "object_center_x_m", "object_center_y_m")
        known = [None if theirs is None else array_of(theirs, key) for key in keys]
    size = attributes.get("object_pixel_size_m")
    if size is None and whole is not None and whole.size >= 2 and whole.ravel()[0] > 0:
        size = whole.ravel()[0] / obj.shape[-1]
    origin = attributes.get("origin_xy")
    made = _image(obj if obj.ndim == 2 else obj.reshape(-1, *obj.shape[-2:])[:1], path)
    numbers = [float(np.ravel(value)[0]) for value in known if value is not None]
    if places is None and moves is not None and probe is not None and len(numbers) == 4:
        width, height, x, y = numbers
        frame = ObjectFrame((made.shape[0], made.shape[1]), (width, height), (x, y))
        places, origin = frame.to_pixels(moves[:, 0], moves[:, 1], int(probe.shape[-1])), (0.0, 0.0)
        size = width
    if coverage is None and mask is not None:
        coverage = (mask == 0).astype(np.float32)
    return Image(
        made,
        None if probe is None else probe.reshape(-1, *probe.shape[-2:]),
        None if origin is None else (float(origin[0]), float(origin[1])),
        places,
        coverage,
        None if size is None else float(size),
    )


def _read_ptylab(path: Path) -> Image:
    """A result of PtyLab: positions `encoder_corrected` [y, x] m about the middle of the object."""
    with open_hdf5(path) as archive:
        values = {key: array_of(archive, key) for key in ("object", "probe", "dxp", "encoder_corrected")}
    if any(value is None for value in values.values()):
        raise DataError(f"{path}: a group stands where PtyLab keeps an array; write it again")
    obj, probe, sizes, encoder = (np.asarray(value) for value in values.values())
    size = float(np.ravel(sizes)[0])
    obj = _image(obj, path)
    if encoder.ndim != 2 or encoder.shape[1] != 2 or not size > 0:
        raise DataError(f"{path}: encoder_corrected has shape {encoder.shape} and dxp is {size}")
    places = np.asarray(encoder, np.float64)[:, ::-1] / size + [obj.shape[1] // 2, obj.shape[0] // 2]
    return Image(obj, probe.reshape(-1, *probe.shape[-2:]), (0.0, 0.0), places, None, size)


# ------------------------------------------------------------------------------------------------------ TIFF


def write_image_tiff(path: str | os.PathLike[str], image: Image) -> list[Path]:
    """Two files beside each other, STEM_amplitude.tif and STEM_phase.tif (rad), float32.

    Resolution tags are in pixels a centimetre, from the object pixel size where it is known; its exact value
    and the origin stand in the description. The probe and the positions are not in these files.
    """
    tifffile = require_tifffile()
    stem = str(path).removesuffix(".tif").removesuffix(".tiff")
    size, origin = image.object_pixel_size_m, image.origin_xy
    words = [] if size is None else [f"object_pixel_size_m={size!r}"]
    words += [] if origin is None else [f"origin_xy={origin[0]!r},{origin[1]!r}"]
    more: dict[str, Any] = {}
    if size is not None:
        more = {"resolution": (1e-2 / size, 1e-2 / size), "resolutionunit": "CENTIMETER"}
    written = []
    for part, values in zip(TIFF_PARTS, (np.abs(image.object), np.angle(image.object)), strict=True):
        target = Path(stem + part)
        with atomic_write(target) as temporary:
            tifffile.imwrite(
                temporary, values.astype(np.float32), photometric="minisblack", metadata=None,
                description=" ".join(("ptychopinn", *words)), **more,
            )  # fmt: skip
        written.append(target)
    return written


def _read_tiff(path: Path) -> Image:
    tifffile = require_tifffile()
    part = next((part for part in TIFF_PARTS if path.name.endswith(part)), None)
    if part is None:
        raise InputError(
            f"{path}: an image as TIFF is two files, NAME{TIFF_PARTS[0]} and NAME{TIFF_PARTS[1]}"
        )
    stem = str(path).removesuffix(part)
    parts = []
    for other in (Path(stem + part) for part in TIFF_PARTS):
        if not other.exists():
            raise MissingFileError(f"{path} is one half of an image; put {other.name} beside it")
        try:
            with tifffile.TiffFile(other) as opened:
                parts.append(np.asarray(opened.asarray(), np.float64))
                said = str(opened.pages[0].description or "")
        except (tifffile.TiffFileError, OSError, ValueError, IndexError) as error:
            raise DataError(f"{other} is damaged ({one_line(error)}); write or copy it again") from error
    if parts[0].shape != parts[1].shape:
        raise DataError(f"{path}: amplitude has shape {parts[0].shape}, phase {parts[1].shape}")
    known = dict(word.split("=", 1) for word in said.split() if "=" in word)
    try:
        origin = [float(place) for place in known["origin_xy"].split(",")] if "origin_xy" in known else None
        size = float(known["object_pixel_size_m"]) if "object_pixel_size_m" in known else None
    except ValueError:
        raise DataError(f"{path}: the description {said!r} cannot be read; write the file again") from None
    obj = (parts[0] * np.exp(1j * parts[1])).astype(np.complex64)
    where = None if origin is None else (origin[0], origin[1])
    return Image(_image(obj, path), None, where, None, None, size)


def write_image_ptyr(path: str | os.PathLike[str], image: Image, energy_eV: float | None = None) -> None:
    """A result as ptypy keeps it: storages of object and probe (layers, rows, columns), positions [y, x] m.

    The layout is that of ptypy's h5rw 0.1: every dataset says its `type`. DataError without a pixel size.
    """
    size = image.object_pixel_size_m
    if size is None or image.probe is None:
        raise DataError(
            f"{path}: a result of ptypy needs a probe and the object pixel size, which is not known"
        )
    origin = np.array(image.origin_xy or (0.0, 0.0))[::-1]
    with atomic_write(path) as temporary, new_file(temporary) as archive:
        archive.attrs["h5rw_version"] = "0.1"
        content = new_group(archive, "content")

        def store(group: Any, name: str, values: Any, kind: str = "array") -> None:
            put(group, name, values).attrs["type"] = kind

        modes = np.asarray(image.probe)
        for name, data, corner in (
            ("obj", np.asarray(image.object)[None], origin * size),
            ("probe", modes.reshape(-1, *modes.shape[-2:]), np.zeros(2)),
        ):
            storage = new_group(content, f"{name}/{_PTYR_ID}")
            store(storage, "data", data.astype(np.complex64))
            store(storage, "_psize", np.array([size, size]))
            store(storage, "_center", np.zeros(2))
            store(storage, "_origin", corner)
            if energy_eV is not None:
                store(storage, "_energy", energy_eV / 1e3, "scalar")
        if image.positions_px is not None:
            store(new_group(content, "positions"), _PTYR_ID, image.positions_px[:, ::-1] * size)


def _read_ptyr(path: Path) -> Image:
    with open_hdf5(path) as archive:
        found: dict[str, Any] = {}
        for name in ("obj", "probe"):
            group = group_of(archive, f"content/{name}")
            names = [] if group is None else sorted(group)
            if len(names) > 1:
                raise InputError(f"{path} holds {len(names)} storages of {name}; one scan can be read")
            if names:
                found[name] = {
                    key: array_of(group, f"{names[0]}/{key}")
                    for key in ("data", "_psize", "_center", "_origin")
                }
        places = group_of(archive, "content/positions")
        metres = None if places is None or not len(places) else array_of(places, sorted(places)[0])
    if found.get("obj", {}).get("data") is None:
        raise DataError(f"{path} has no content/obj, so it is no result of ptypy")
    storage = found["obj"]
    size = None if storage["_psize"] is None else float(np.ravel(storage["_psize"])[0])
    origin = positions = None
    if size and metres is not None and storage["_origin"] is not None and storage["_center"] is not None:
        corner = np.ravel(storage["_origin"]) / size - np.ravel(storage["_center"])
        origin = (float(corner[1]), float(corner[0]))
        positions = np.asarray(metres, np.float64)[:, ::-1] / size
    probe = found.get("probe", {}).get("data")
    return Image(_image(storage["data"], path), probe, origin, positions, None, size)


def _image(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """One image (H, W) out of an array that may have leading axes of length one."""
    obj = np.asarray(values)
    while obj.ndim > 2 and len(obj) == 1:
        obj = obj[0]
    if obj.ndim != 2 or obj.dtype.kind not in "fciu" or 0 in obj.shape:
        raise DataError(f"{path}: the object is {obj.dtype} of shape {obj.shape}; expected one image (H, W)")
    return obj
