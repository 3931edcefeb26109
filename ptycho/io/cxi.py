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
from ptycho.io.ptychodus_frame import ObjectFrame
from ptycho.io.ptychodus_hdf5 import load_filters
from ptycho.io.sealed_hdf5 import check_written, new_file, new_group, put

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

    `bad_frames` of the scan, its marks, is kept in the group `ptychopinn`: all frames are there.
    Frames are compressed by bitshuffle and LZ4 where hdf5plugin is installed, else by gzip.
    """
    import h5py

    with atomic_write(path) as temporary, new_file(temporary) as archive:
        entry = _entry(archive)
        detector, source = entry["instrument_1/detector_1"], entry["instrument_1/source_1"]
        frames = scan.frames
        stored = detector.create_dataset(
            "data",
            shape=frames.shape,
            dtype=frames.dtype,
            chunks=(1, *frames.shape[1:]),
            fletcher32=True,
            **_compression(),
        )
        done = 0
        for begin, part in frames.chunks(CHUNK_BYTES):
            stored[begin : begin + len(part)] = part
            done = begin + len(part)
            check_written(archive)
            if progress is not None:
                progress(done, len(frames))
        shown = new_group(entry, "data_1")
        shown.attrs["NX_class"], shown.attrs["signal"], entry.attrs["default"] = "NXdata", "data", "data_1"
        shown["data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        _write_geometry(archive, scan.geometry, frames.shape[-1])
        bad = np.zeros(frames.shape[1:], bool) if scan.bad_pixels is None else scan.bad_pixels
        put(detector, "mask", bad.astype(np.uint32) * _INVALID)
        if scan.positions_m is not None:
            moves = np.zeros((len(scan.positions_m), 3))
            moves[:, :2] = scan.positions_m
            put(entry["sample_1/geometry_1"], "translation", moves)
            for place in ("data_1", "instrument_1/detector_1"):
                entry[place]["translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
        if scan.probe is not None:
            put(source, "illumination", np.asarray(scan.probe, np.complex64))
        extras = archive[EXTRAS]
        put(extras, "positions_px", scan.positions_px)
        if scan.bad_frames is not None:
            put(extras, "bad_frames", scan.bad_frames.astype(np.uint8))
        if scan.notes:  # texts of fixed length: the library keeps no checksum over others
            extras.attrs["notes"] = np.bytes_("\n".join(scan.notes).encode())
        if scan.unit is not None:
            extras.attrs["unit"] = np.bytes_(scan.unit.encode())
        if scan.object is not None:
            put(extras, "object", np.asarray(scan.object, np.complex64))


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
    """Write a probe (P, N, N) and a reconstructed image (H, W) as CXI images 1 and 2, complex, in real space.

    The order is that of ptychodus, which opens the file as a product where the object pixel is known. `mask`
    of the image marks pixels that no pattern covers. With a geometry, `image_size` in metres. The group
    `ptychopinn` has what CXI has no place for: coverage (H, W), origin_xy, positions_px (M, 2) px.
    """
    with atomic_write(path) as temporary, new_file(temporary) as archive:
        entry = _entry(archive)
        N = int(probe.shape[-1])
        _write_geometry(archive, geometry, N)
        size = geometry.object_pixel_size_m(N)
        for number, title, values in ((1, "probe", probe), (2, "object", image)):
            group = new_group(entry, f"image_{number}")
            group.attrs["NX_class"] = "NXcollection"
            put(group, "data", np.asarray(values, np.complex64))
            put(group, "data_space", "real")
            put(group, "data_type", "complex")
            put(group, "title", title)
            if size is not None:
                put(group, "image_size", np.array([values.shape[-1] * size, values.shape[-2] * size, 0.0]))
        if coverage is not None:
            put(entry["image_2"], "mask", (~(np.asarray(coverage) > 0)).astype(np.uint32) * _INVALID)
            put(archive[EXTRAS], "coverage", np.asarray(coverage, np.float32))
        if origin_xy is not None:
            archive[EXTRAS].attrs["origin_xy"] = np.asarray(origin_xy, np.float64)
        if positions_px is not None:
            put(archive[EXTRAS], "positions_px", positions_px)
        if size is not None and positions_px is not None:
            frame = ObjectFrame((int(image.shape[-2]), int(image.shape[-1])), (size, size))
            _write_for_ptychodus(entry, frame, positions_px - np.asarray(origin_xy or (0.0, 0.0)), N)


def _write_for_ptychodus(entry: Any, frame: ObjectFrame, places: NDArray[np.float64], N: int) -> None:
    """What ptychodus 1.7 keeps beside the standard; positions (M, 2) px in the pixels of the object."""
    moves = np.zeros((len(places), 3))
    moves[:, :2] = frame.to_metres(places, N)
    put(entry, "sample_1/geometry_1/translation", moves)
    group = new_group(entry, "ptychodus")
    put(group, "probe_position_indexes", np.arange(len(places), dtype=np.int64))
    for name, value in zip(("width", "height"), frame.pixel_xy_m, strict=True):
        put(group, f"object_pixel_{name}_m", value)
        put(group, f"probe_pixel_{name}_m", value)
    for name, value in zip("xy", frame.center_xy_m, strict=True):
        put(group, f"object_center_{name}_m", value)


def _entry(archive: Any) -> Any:
    put(archive, "cxi_version", _VERSION)
    archive.attrs["NX_class"], archive.attrs["default"] = "NXroot", "entry_1"
    entry = new_group(archive, "entry_1")
    entry.attrs["NX_class"] = "NXentry"
    for place, kind in _NX_CLASSES.items():
        new_group(entry, place).attrs["NX_class"] = kind
    new_group(archive, EXTRAS)
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
            put(group, name, value).attrs["units"] = unit
    if pixel is not None:
        # rows run down and columns to the left of the beam: the axes of CXI 1.6
        put(detector, "basis_vectors", np.array([[0, -pixel], [-pixel, 0], [0, 0]]))
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
