"""A scan from the files of ptychodus, and an image back into them. Patterns and positions are paired by
scan index.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import DataError, MissingFileError
from ptycho.io.geometry import HC_EV_M, Geometry
from ptycho.io.lazy import Patterns, rows_of
from ptycho.io.lazy_files import hdf5_patterns
from ptycho.io.ptychodus_diffraction import Diffraction, read_diffraction
from ptycho.io.ptychodus_frame import ObjectFrame, centre_offset_px
from ptycho.io.ptychodus_hdf5 import open_hdf5, read_dataset
from ptycho.io.ptychodus_product import Metadata, Product, is_product, read_product

logger = logging.getLogger(__name__)

DIFFRACTION, PRODUCT = "diffraction.h5", "product.h5"
_TRAINING_KEY = "probe_position_x_px"


class ScanFiles(NamedTuple):
    """The two files that make one scan."""

    diffraction: Path
    product: Path


def read_ptychodus_scan(path: str | os.PathLike[str], *, by_rows: bool = False) -> dict[str, Any]:
    """The arrays of a scan, by the names of RawData's keyword arguments, from a file of ptychodus.

    `path` is diffraction.h5 with product.h5 beside it, or a product with diffraction.h5 beside it, or
    training data exported as HDF5. Patterns are counts. Positions are in pixels of the product's object,
    which is objectGuess (its first layer, a guess and no truth). Patterns without a position are handled
    as ptychodus does, see `paired`. `by_rows`: the patterns stay in the file. Raises MissingFileError,
    InputError, DataError. Time and memory: the patterns, once or twice, unless they stay on disk.
    """
    source = Path(path)
    with open_hdf5(source) as archive:
        if _TRAINING_KEY in archive:
            stay = by_rows and "patterns" in archive
            patterns = hdf5_patterns(source, "patterns") if stay else read_dataset(archive, "patterns")
            return _training_arrays(archive, patterns)
    files = scan_files(source)
    diffraction = read_diffraction(files.diffraction, by_rows=by_rows)
    return scan_arrays(diffraction, read_product(files.product), files)


def is_ptychodus(path: Path) -> bool:
    """Whether an HDF5 file is one of ptychodus': patterns, a product, or exported training data.

    A file that cannot be opened counts as one, so that its damage is named by the reader.
    """
    try:
        with open_hdf5(path) as archive:
            return _TRAINING_KEY in archive or "patterns" in archive or is_product(archive)
    except DataError:
        return True


def patterns_file(path: Path) -> Path:
    """The file of a scan that holds its patterns, under the key 'patterns'."""
    with open_hdf5(path) as archive:
        if _TRAINING_KEY in archive or "patterns" in archive:
            return path
    return scan_files(path).diffraction


def scan_files(path: Path) -> ScanFiles:
    """The two files that belong to a given one; the other lies beside it under the name that ptychodus
    gives it.
    """
    with open_hdf5(path) as archive:
        given_product = is_product(archive)
        given_patterns = "patterns" in archive
    if not (given_product or given_patterns):
        raise DataError(
            f"{path} is neither diffraction ('patterns') nor a product ('object', 'probe', positions) of"
            " ptychodus: give diffraction.h5 with product.h5 beside it"
        )
    files = (
        ScanFiles(path.with_name(DIFFRACTION), path)
        if given_product
        else (ScanFiles(path, path.with_name(PRODUCT)))
    )
    for kind, file in zip(files._fields, files, strict=True):
        if not file.exists():
            raise MissingFileError(f"{path} is one half of a scan; put its {kind} beside it as {file.name}")
    return files


def scan_arrays(diffraction: Diffraction, product: Product, where: ScanFiles | None = None) -> dict[str, Any]:
    """The keyword arguments of RawData for a pair read before."""
    origin = f"{where.product}: " if where else ""
    if not product.metadata.far_field:
        raise DataError(f"{origin}the product is near field; this package models far field only")
    N = diffraction.patterns.shape[-1]
    rows, x_m, y_m = paired(diffraction.indexes, product)
    places = product.frame.to_pixels(x_m, y_m, N)
    if len(product.object) > 1:
        logger.warning("%sthe object has %d layers; its first is used", origin, len(product.object))
    if len(product.probe) > 1:
        logger.warning("%sthe probe varies along the scan (OPR); its mean mode is used", origin)
    every = len(rows) == len(diffraction.patterns)
    patterns = diffraction.patterns if every else rows_of(diffraction.patterns, rows)
    arrays = {
        "xcoords": places[:, 0],
        "ycoords": places[:, 1],
        "diff3d": patterns,
        "probeGuess": product.probe[0],
        "scan_index": np.zeros(len(rows), np.int64),
        "bad_pixels": diffraction.bad_pixels,
        "diffraction_unit": "counts",
        "pattern_order": "MNN",
        "geometry": _geometry(product, diffraction),
    }
    return arrays | ({"objectGuess": product.object[0]} if product.object.size else {})


def _geometry(product: Product, diffraction: Diffraction) -> Geometry:
    """Wavelength, distance and pixels of a product; ptychodus writes 0 where nobody said."""
    metadata = product.metadata

    def said(value: float) -> float | None:
        return value if np.isfinite(value) and value > 0 else None

    energy = said(metadata.photon_energy_ev)
    return Geometry(
        wavelength_m=HC_EV_M / energy if energy else None,
        distance_m=said(metadata.detector_distance_m),
        detector_pixel_size_m=said(diffraction.detector_pixel_xy_m[0]),
        measured_object_pixel_size_m=said(product.frame.pixel_xy_m[0]),
    )


def paired(indexes: NDArray[Any], product: Product) -> tuple[NDArray[np.int64], Any, Any]:
    """Rows of the patterns that have a position (K,), and those positions x and y (K,) float64 m.

    The rule of ptychodus 1.7 (`prepare_reconstruct_input`): positions with the same scan index are averaged.
    A pattern whose index lies between two others gets a position between theirs. A pattern outside the range
    is dropped.
    """
    if len(indexes) == 0 or len(product.indexes) == 0:
        raise DataError("the scan is empty: there are no patterns or no positions")
    known, group = np.unique(product.indexes, return_inverse=True)
    share = np.bincount(group)
    x_m, y_m = (np.bincount(group, weights=v) / share for v in (product.x_m, product.y_m))
    rows = np.flatnonzero((indexes >= known[0]) & (indexes <= known[-1])).astype(np.int64)
    if len(rows) == 0:
        raise DataError(
            f"no pattern has a position: patterns are numbered {indexes.min()} to {indexes.max()}, "
            f"positions {known[0]} to {known[-1]}"
        )
    if len(rows) < len(indexes):
        logger.warning(
            "%d of %d patterns have no position and are left out", len(indexes) - len(rows), len(indexes)
        )
    return rows, np.interp(indexes[rows], known, x_m), np.interp(indexes[rows], known, y_m)


def product_of_image(
    scan: str | os.PathLike[str],
    image: ArrayLike,
    origin_xy: tuple[float, float],
    probe: ArrayLike,
    positions_px: ArrayLike,
    losses: ArrayLike = (),
    *,
    geometry: Geometry | None = None,
    frame_numbers: NDArray[np.int64] | None = None,
) -> Product:
    """An image as a product of ptychodus, so that ptychodus shows it at the right place of the scan's object.

    `scan` is the file that the image was made from. For files of ptychodus, metadata and positions are kept.
    For others the scan's geometry is used (`geometry`; None: read from the file); DataError says what is
    missing in it, nothing is assumed. Shapes: image (H,W) and probe (P,N,N) complex, origin_xy the scan's
    object pixel of image[0, 0], positions_px (M,2) [x, y] px. frame_numbers (M,): the
    frames of these positions where some were left out, None: 0 to M - 1.
    """
    obj, modes = np.asarray(image), np.asarray(probe)
    places = np.asarray(positions_px, np.float64)
    numbered = frame_numbers is not None and len(frame_numbers) == len(places)
    indexes = frame_numbers if frame_numbers is not None and numbered else np.arange(len(places))
    template = _template(Path(scan), modes, places, geometry, indexes)
    history = np.asarray(losses, np.float64)
    return replace(
        template,
        object=obj,
        frame=template.frame.placed((obj.shape[0], obj.shape[1]), origin_xy),
        layer_spacing_m=None,
        probe=modes,
        opr_weights=None,
        loss_epochs=np.arange(len(history)),
        loss_values=history,
    )


def check_product_geometry(scan: Path, geometry: Geometry, N: int) -> None:
    """DataError where a product of this scan needs numbers that it does not say; by their names."""
    if not _has_product(scan):
        _needed(scan, geometry, N)


def _has_product(scan: Path) -> bool:
    return scan.suffix.lower() in (".h5", ".hdf5") and is_ptychodus(scan)


def _template(
    scan: Path,
    probe: NDArray[Any],
    positions_px: NDArray[np.float64],
    geometry: Geometry | None,
    indexes: NDArray[np.int64],
) -> Product:
    """A product with everything but the image: of the scan's own files, or made from what its file says."""
    N = probe.shape[-1]
    said = ""
    if _has_product(scan):
        with open_hdf5(scan) as archive:
            if _TRAINING_KEY not in archive:
                return read_product(scan_files(scan).product)
            names = ("photon_energy_eV", "detector_object_distance_m")
            energy_ev, distance_m = (float(read_dataset(archive, name)) for name in names)
            pixel = [float(read_dataset(archive, f"object_pixel_{side}_m")) for side in ("width", "height")]
            height, width = read_dataset(archive, "object").shape[-2:]
        frame = ObjectFrame((height, width), (pixel[0], pixel[1]))
        said = "positions about the object's centre"
    else:
        if geometry is None:
            from ptycho.io.npz import read_geometry

            geometry = read_geometry(scan)
        energy_ev, distance_m, size = _needed(scan, geometry, N)
        frame = ObjectFrame((1, 1), (size, size))
    places = frame.to_metres(positions_px, N)
    empty = np.zeros(frame.shape, np.complex64)
    metadata = Metadata(scan.stem, said, distance_m, energy_ev)
    return Product(empty, frame, probe, indexes, places[:, 0], places[:, 1], metadata)


def _needed(scan: Path, geometry: Geometry, N: int) -> tuple[float, float, float]:
    """Photon energy in eV, distance and object pixel in m; DataError names what the scan does not say."""
    if geometry.beam == "electron":
        raise DataError(f"{scan}: a product of ptychodus has no place for electrons; write .cxi or .npz")
    energy_ev, distance_m, size = geometry.energy_eV, geometry.distance_m, geometry.object_pixel_size_m(N)
    missing = list(geometry.missing())
    missing += ["energy_eV (or wavelength_m)"] if energy_ev is None and size is not None else []
    missing += ["distance_m"] if distance_m is None and "distance_m" not in missing else []
    if energy_ev is None or distance_m is None or size is None:
        raise DataError(
            f"{scan}: a product of ptychodus needs {' and '.join(missing)}, which the scan does not say; add "
            f"it: ptycho import {scan} --set KEY=VALUE -o with_geometry.h5"
        )
    return energy_ev, distance_m, size


def _training_arrays(archive: Any, patterns: Patterns) -> dict[str, Any]:
    half = centre_offset_px(patterns.shape[-1])
    return {
        "xcoords": read_dataset(archive, _TRAINING_KEY) + half,
        "ycoords": read_dataset(archive, "probe_position_y_px") + half,
        "diff3d": patterns,
        "probeGuess": read_dataset(archive, "probe"),
        "objectGuess": read_dataset(archive, "object"),
        "bad_pixels": read_dataset(archive, "bad_pixels"),
        "diffraction_unit": "counts",
        "pattern_order": "MNN",
    }
