"""Writing a scan or an image as CXI: the standard's places and units, and this package's exact values beside.

CXI 1.6 (Maia, Nature Methods 9, 854 (2012)): SI units, energies in joules, `translation` of the sample.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.io.atomic import atomic_write
from ptycho.io.geometry import Geometry
from ptycho.io.importing import Imported
from ptycho.io.lazy import CHUNK_BYTES
from ptycho.io.ptychodus_hdf5 import load_filters

_EV_J = 1.602176634e-19
#: bit of a CXI mask: the pixel is invalid
_INVALID = 1
#: our own group in a CXI file
EXTRAS = "ptychopinn"
_VERSION = 160
#: groups of an entry and their class, for programs that read NeXus
_NX_CLASSES = {
    "instrument_1": "NXinstrument", "instrument_1/detector_1": "NXdetector",
    "instrument_1/source_1": "NXsource", "sample_1": "NXsample", "sample_1/geometry_1": "NXcollection",
}  # fmt: skip


def write_scan_cxi(
    path: str | os.PathLike[str], scan: Imported, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write a prepared scan, whole or not at all; frames are streamed. Memory: one chunk of frames.

    Frames are compressed by bitshuffle and LZ4 where hdf5plugin is installed, else by gzip.
    """
    import h5py

    with atomic_write(path) as temporary, h5py.File(temporary, "w") as archive:
        entry = _entry(archive)
        detector, source = entry["instrument_1/detector_1"], entry["instrument_1/source_1"]
        frames = scan.frames
        stored = detector.create_dataset(
            "data", shape=frames.shape, dtype=frames.dtype, chunks=(1, *frames.shape[1:]), **_compression()
        )
        done = 0
        for begin, part in frames.chunks(CHUNK_BYTES):
            stored[begin : begin + len(part)] = part
            done = begin + len(part)
            if progress is not None:
                progress(done, len(frames))
        shown = entry.create_group("data_1")
        shown.attrs["NX_class"], shown.attrs["signal"], entry.attrs["default"] = "NXdata", "data", "data_1"
        shown["data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        _write_geometry(archive, scan.geometry, frames.shape[-1])
        bad = np.zeros(frames.shape[1:], bool) if scan.bad_pixels is None else scan.bad_pixels
        detector["mask"] = bad.astype(np.uint32) * _INVALID
        if scan.positions_m is not None:
            moves = np.zeros((len(scan.positions_m), 3))
            moves[:, :2] = scan.positions_m
            entry["sample_1/geometry_1"]["translation"] = moves
            for place in ("data_1", "instrument_1/detector_1"):
                entry[place]["translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
        if scan.probe is not None:
            source["illumination"] = np.asarray(scan.probe, np.complex64)
        extras = archive[EXTRAS]
        extras["positions_px"] = scan.positions_px
        extras.attrs["notes"] = "\n".join(scan.notes)
        if scan.unit is not None:
            extras.attrs["unit"] = scan.unit
        if scan.object is not None:
            extras["object"] = np.asarray(scan.object, np.complex64)


def write_image_cxi(
    path: str | os.PathLike[str],
    image: NDArray[Any],
    probe: NDArray[Any],
    geometry: Geometry,
    coverage: NDArray[Any] | None = None,
    *,
    origin_xy: tuple[float, float] | None = None,
    positions_px: NDArray[np.float64] | None = None,
) -> None:
    """Write a reconstructed image (H, W) and probe (P, N, N) as CXI images 1 and 2, complex, in real space.

    `mask` of the image marks pixels that no pattern covers. With a geometry, `image_size` in metres. The
    group `ptychopinn` has what CXI has no place for: coverage (H, W), origin_xy, positions_px (M, 2) px.
    """
    import h5py

    with atomic_write(path) as temporary, h5py.File(temporary, "w") as archive:
        entry = _entry(archive)
        N = int(probe.shape[-1])
        _write_geometry(archive, geometry, N)
        size = geometry.object_pixel_size_m(N)
        for number, values in ((1, image), (2, probe)):
            group = entry.create_group(f"image_{number}")
            group["data"] = np.asarray(values, np.complex64)
            group["data_space"], group["data_type"] = "real", "complex"
            group["title"] = "object" if number == 1 else "probe"
            if size is not None:
                group["image_size"] = np.array([values.shape[-1] * size, values.shape[-2] * size, 0.0])
        if coverage is not None:
            entry["image_1"]["mask"] = (~(np.asarray(coverage) > 0)).astype(np.uint32) * _INVALID
            archive[EXTRAS]["coverage"] = np.asarray(coverage, np.float32)
        if origin_xy is not None:
            archive[EXTRAS].attrs["origin_xy"] = np.asarray(origin_xy, np.float64)
        if positions_px is not None:
            archive[EXTRAS]["positions_px"] = positions_px


def _entry(archive: Any) -> Any:
    archive["cxi_version"] = _VERSION
    archive.attrs["NX_class"], archive.attrs["default"] = "NXroot", "entry_1"
    entry = archive.create_group("entry_1")
    entry.attrs["NX_class"] = "NXentry"
    for place, kind in _NX_CLASSES.items():
        entry.create_group(place).attrs["NX_class"] = kind
    archive.create_group(EXTRAS)
    return entry


def _write_geometry(archive: Any, geometry: Geometry, N: int) -> None:
    detector = archive["entry_1/instrument_1/detector_1"]
    source = archive["entry_1/instrument_1/source_1"]
    energy, pixel = geometry.energy_eV, geometry.detector_pixel_size_m
    for group, name, value, unit in (
        (source, "energy", None if energy is None else energy * _EV_J, "J"),
        (source, "wavelength", geometry.wavelength_m, "m"),
        (detector, "distance", geometry.distance_m, "m"),
        (detector, "x_pixel_size", pixel, "m"),
        (detector, "y_pixel_size", pixel, "m"),
    ):
        if value is not None:
            group[name] = value
            group[name].attrs["units"] = unit
    if pixel is not None:
        # rows run down and columns to the left of the beam: the axes of CXI 1.6
        detector["basis_vectors"] = np.array([[0, -pixel], [-pixel, 0], [0, 0]])
    for name, entry in geometry.as_dict().items():
        archive[EXTRAS].attrs[name] = entry
    size = geometry.object_pixel_size_m(N)
    if size is not None:
        archive[EXTRAS].attrs["object_pixel_size_m"] = size


def _compression() -> dict[str, Any]:
    if load_filters():
        import hdf5plugin

        return dict(hdf5plugin.Bitshuffle(cname="lz4"))
    return {"compression": "gzip", "compression_opts": 4, "shuffle": True}
