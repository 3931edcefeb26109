"""A scan in another program's file gives the image of its NPZ: import, validate, reconstruct, compare.

Every file here is written by the program that its name says, but two: `.mib` has no writer that can be
installed, so it is laid out after the description of Quantum Detectors' Merlin, and a detector's virtual and
external files are written by h5py as detectors write them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import hdf5plugin
import numpy as np
import pytest
from scan_layouts import DETECTOR_M, DISTANCE_M, GEOMETRY, PIXEL_M, WAVELENGTH_M, N, in_metres
from scipy.ndimage import gaussian_filter

from ptycho.cli.main import main
from ptycho.io.geometry import HC_EV_M, electron_wavelength_m
from ptycho.scan.raw_data import RawData
from ptycho_torch.refine import reconstruct

ROWS, COLUMNS, STEP_PX = 6, 6, 3
#: 80 kV and 0.9 mrad a detector pixel
ELECTRON_PIXEL_M = electron_wavelength_m(80e3) / (N * 0.9e-3)
NUMBERS = [f"{key}={value!r}" for key, value in GEOMETRY.items()]


@cache
def scans() -> dict[str, dict[str, Any]]:
    """Two scans of counts below 256: positions on no whole pixels, and a raster."""
    rng = np.random.default_rng(0)
    radius = np.hypot(*np.mgrid[-N // 2 : N // 2, -N // 2 : N // 2])
    probe = np.exp(-((radius / 6) ** 2) + 0.03j * radius**2).astype(np.complex64) * 4
    rows, columns = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    raster = np.stack([columns, rows], axis=1) * float(STEP_PX) + N // 2 + 2
    smooth = [gaussian_filter(rng.uniform(-1, 1, (64, 64)), 3) * 6 for _ in range(2)]
    obj = np.exp(1j * smooth[0]) * (0.85 + 0.1 * smooth[1])
    made = {}
    for name, places in (("raster", raster), ("moved", raster + rng.uniform(-0.45, 0.45, raster.shape))):
        true = RawData.from_simulation(*places.T, probe, obj)
        counts = np.minimum(rng.poisson(np.asarray(true.diff3d, float) ** 2), 255).astype(np.uint16)
        made[name] = in_metres(
            {"xcoords": places[:, 0], "ycoords": places[:, 1], "diff3d": counts, "probeGuess": probe}
        )
    return made


def image_of(raw: RawData) -> np.ndarray:
    return reconstruct(raw, epochs=5).object


@cache
def reference(name: str) -> np.ndarray:
    """The image from the NPZ of a scan."""
    import tempfile

    arrays = {key: value for key, value in scans()[name].items() if key != "places_m"}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/scan.npz", **arrays)
        return image_of(RawData.from_file(f"{folder}/scan.npz"))


class Case(NamedTuple):
    """A writer of a scan's file in a folder, which scan, and what the import is told beside."""

    write: Callable[[Path, dict[str, Any]], Path]
    scan: str = "moved"
    settings: tuple[str, ...] = ()
    positions: bool = False


def cdtools(folder: Path, scan: dict[str, Any]) -> Path:
    from cdtools.tools import data

    moves = np.zeros((len(scan["places_m"]), 3))
    moves[:, :2] = -scan["places_m"]  # with this basis x and y of the detector run against the laboratory's
    archive = data.create_cxi(str(folder / "a.cxi"))
    data.add_entry_info(archive, {"title": "a test"})
    data.add_source(archive, WAVELENGTH_M)
    data.add_detector(archive, DISTANCE_M, np.array([[0, -DETECTOR_M, 0], [-DETECTOR_M, 0, 0]]).T)
    data.add_data(archive, scan["diff3d"].astype(np.float32))
    data.add_ptycho_translations(archive, moves)
    archive.close()
    return folder / "a.cxi"


def ptylab(folder: Path, scan: dict[str, Any]) -> Path:
    from PtyLab import ExperimentalData

    with h5py.File(folder / "a.hdf5", "w") as archive:
        archive["ptychogram"], archive["encoder"] = (
            scan["diff3d"].astype(np.float32),
            scan["places_m"][:, ::-1],
        )
        archive["wavelength"], archive["zo"], archive["dxd"] = WAVELENGTH_M, DISTANCE_M, DETECTOR_M
    assert ExperimentalData(str(folder / "a.hdf5"), operationMode="CPM").numFrames == len(scan["diff3d"])
    return folder / "a.hdf5"


def nexusformat(folder: Path, scan: dict[str, Any]) -> Path:
    from nexusformat.nexus import NXbeam, NXdata, NXdetector, NXentry, NXfield, NXinstrument, NXroot

    x, y = -scan["places_m"].T * 1e6
    detector = NXdetector(
        distance=NXfield(DISTANCE_M * 1e3, units="mm"), x_pixel_size=NXfield(DETECTOR_M * 1e6, units="um"),
        y_pixel_size=NXfield(DETECTOR_M * 1e6, units="um"),
    )  # fmt: skip
    beam = NXbeam(incident_energy=NXfield(HC_EV_M / WAVELENGTH_M / 1e3, units="keV"))
    entry = NXentry(instrument=NXinstrument(detector=detector, beam=beam))
    entry["data"] = NXdata(NXfield(scan["diff3d"], name="data", units="counts"))
    entry["data/sample_x"], entry["data/sample_y"] = NXfield(x, units="um"), NXfield(y, units="um")
    NXroot(entry=entry).save(str(folder / "a.nxs"))
    return folder / "a.nxs"


def tiff_stack(folder: Path, scan: dict[str, Any]) -> Path:
    import tifffile

    tifffile.imwrite(folder / "a.tif", scan["diff3d"], compression="zlib")
    return folder / "a.tif"


def tiff_folder(folder: Path, scan: dict[str, Any]) -> Path:
    import tifffile

    (folder / "frames").mkdir()
    for number, frame in enumerate(scan["diff3d"]):
        tifffile.imwrite(folder / "frames" / f"f{number}.tif", frame)
    return folder / "frames"


def zarr(form: Any) -> Callable[[Path, dict[str, Any]], Path]:
    def write(folder: Path, scan: dict[str, Any]) -> Path:
        from zarr import open_group

        group = open_group(str(folder / "a.zarr"), mode="w", zarr_format=form)
        for name, values in (("frames", scan["diff3d"]), ("places", scan["places_m"])):
            group.create_array(name, shape=values.shape, dtype=values.dtype)[:] = values
        return folder / "a.zarr"

    return write


def matlab_5(folder: Path, scan: dict[str, Any]) -> Path:
    from scipy.io import savemat

    x, y = scan["places_m"].T
    frames = np.moveaxis(scan["diff3d"], 0, -1)
    savemat(folder / "a.mat", {"dp": frames, "ppX": x, "ppY": y, "lambda": WAVELENGTH_M, "dx": PIXEL_M})
    return folder / "a.mat"


def matlab_7(folder: Path, scan: dict[str, Any]) -> Path:
    """As MATLAB's -v7.3 has it: a user block, axes in reverse, numbers as 1 x 1."""
    x, y = scan["places_m"].T
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as archive:
        archive["dp"] = scan["diff3d"].swapaxes(-1, -2)
        archive["dp"].attrs["MATLAB_class"] = np.bytes_("uint16")
        for name, values in {"ppX": x, "ppY": y, "lambda": WAVELENGTH_M, "dx": PIXEL_M}.items():
            archive[name] = np.atleast_2d(values)
    with (folder / "a.mat").open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return folder / "a.mat"


def own_hdf5(folder: Path, scan: dict[str, Any], **options: Any) -> Path:
    with h5py.File(folder / "a.h5", "w") as archive:
        archive.create_dataset("f", data=scan["diff3d"].astype(np.uint32), chunks=(1, N, N), **options)
        archive["x"], archive["y"] = scan["places_m"].T * 1e6
        archive["x"].attrs["units"] = archive["y"].attrs["units"] = "um"
    return folder / "a.h5"


def coded(options: Any) -> Callable[[Path, dict[str, Any]], Path]:
    return lambda folder, scan: own_hdf5(folder, scan, **dict(options))


def virtual(folder: Path, scan: dict[str, Any]) -> Path:
    """A detector that wrote a file a row, and a master whose dataset is put together from them."""
    frames = scan["diff3d"].reshape(ROWS, COLUMNS, N, N)
    layout = h5py.VirtualLayout(frames.shape, frames.dtype)
    for row, part in enumerate(frames):
        with h5py.File(folder / f"row{row}.h5", "w") as archive:
            archive.create_dataset("d", data=part, chunks=(1, N, N), **hdf5plugin.Bitshuffle(cname="lz4"))
        layout[row] = h5py.VirtualSource(f"row{row}.h5", "d", shape=part.shape)
    with h5py.File(folder / "a.h5", "w", libver="latest") as archive:
        archive.create_virtual_dataset("f", layout)
        archive["x"], archive["y"] = scan["places_m"].T
    return folder / "a.h5"


def external(folder: Path, scan: dict[str, Any]) -> Path:
    """Numbers in a raw file beside, as a file writer that cannot chunk leaves them; x and y by a link."""
    values = np.ascontiguousarray(scan["diff3d"])
    (folder / "a.raw").write_bytes(values.tobytes())
    with h5py.File(folder / "stage.h5", "w") as archive:
        archive["x"], archive["y"] = scan["places_m"].T
    with h5py.File(folder / "a.h5", "w") as archive:
        archive.create_dataset("f", values.shape, values.dtype, external=[("a.raw", 0, values.nbytes)])
        archive["x"], archive["y"] = h5py.ExternalLink("stage.h5", "x"), h5py.ExternalLink("stage.h5", "y")
    return folder / "a.h5"


def npy(folder: Path, scan: dict[str, Any]) -> Path:
    np.save(folder / "a.npy", scan["diff3d"].astype(">u2"))
    return folder / "a.npy"


def _signal(scan: dict[str, Any], dtype: Any = np.uint16) -> Any:
    import hyperspy.api as hs

    signal = hs.signals.Signal2D(scan["diff3d"].reshape(ROWS, COLUMNS, N, N).astype(dtype))
    step = STEP_PX * ELECTRON_PIXEL_M * 1e9
    for axis, name, size, unit in zip(
        signal.axes_manager._axes, ("y", "x", "ky", "kx"), (step, step, 0.9, 0.9),
        ("nm", "nm", "mrad", "mrad"), strict=True,
    ):  # fmt: skip
        axis.name, axis.scale, axis.units = name, size, unit
    signal.metadata.set_item("Acquisition_instrument.TEM.beam_energy", 80.0)
    return signal


def hyperspy(suffix: str, dtype: Any = np.uint16, **options: Any) -> Callable[[Path, dict[str, Any]], Path]:
    def write(folder: Path, scan: dict[str, Any]) -> Path:
        _signal(scan, dtype).save(str(folder / f"a{suffix}"), **options)
        return folder / f"a{suffix}"

    return write


def py4dstem(folder: Path, scan: dict[str, Any]) -> Path:
    import py4DSTEM

    cube = py4DSTEM.DataCube(scan["diff3d"].reshape(ROWS, COLUMNS, N, N))
    cube.calibration.set_R_pixel_size(STEP_PX * ELECTRON_PIXEL_M * 1e9)
    cube.calibration.set_R_pixel_units("nm")
    cube.calibration.set_Q_pixel_size(1e-10 / (N * ELECTRON_PIXEL_M))
    cube.calibration.set_Q_pixel_units("A^-1")
    py4DSTEM.save(str(folder / "a.h5"), cube, mode="o")
    return folder / "a.h5"


def mib(folder: Path, scan: dict[str, Any]) -> Path:
    """Merlin: a text header of 384 bytes before each frame of big-endian counts, from the lowest row up."""
    with (folder / "a.mib").open("wb") as stream:
        for number, frame in enumerate(scan["diff3d"], 1):
            what = f"MQ1,{number:06d},00384,01,{N:04d},{N:04d},U16,   1x1,01"
            when = "2026-01-01T00:00:00.000000Z,1000000ns,12,"
            stream.write(f"{what},{when}".encode().ljust(384, b"\x00"))
            stream.write(frame[::-1].astype(">u2").tobytes())
    return folder / "a.mib"


PLACED = ("path.frames=f", "path.positions_x=x", "path.positions_y=y", *NUMBERS)
CODECS = {
    "bitshuffle": hdf5plugin.Bitshuffle(), "bitshuffle-lz4": hdf5plugin.Bitshuffle(cname="lz4"),
    "bitshuffle-zstd": hdf5plugin.Bitshuffle(cname="zstd"), "lz4": hdf5plugin.LZ4(),
    "zstd": hdf5plugin.Zstd(), "bzip2": hdf5plugin.BZip2(), "blosc": hdf5plugin.Blosc(),
    "blosc-zstd": hdf5plugin.Blosc(cname="zstd"), "blosc2": hdf5plugin.Blosc2(),
    "zfp": hdf5plugin.Zfp(reversible=True),
    "gzip": {"compression": "gzip"}, "lzf": {"compression": "lzf"},
}  # fmt: skip
CASES: dict[str, Case] = {
    "cdtools": Case(cdtools), "ptylab": Case(ptylab), "nexusformat": Case(nexusformat),
    "tifffile-stack": Case(tiff_stack, settings=tuple(NUMBERS), positions=True),
    "tifffile-folder": Case(tiff_folder, settings=tuple(NUMBERS), positions=True),
    "zarr-2": Case(zarr(2), settings=("path.frames=frames", "path.positions=places", *NUMBERS)),
    "zarr-3": Case(zarr(3), settings=("path.frames=frames", "path.positions=places", *NUMBERS)),
    "matlab-5": Case(matlab_5), "matlab-7.3": Case(matlab_7),
    "virtual": Case(virtual, settings=PLACED), "external": Case(external, settings=PLACED),
    "npy": Case(npy, settings=tuple(NUMBERS), positions=True),
    **{f"codec-{name}": Case(coded(options), settings=PLACED) for name, options in CODECS.items()},
    "hyperspy": Case(hyperspy(".hspy"), "raster"),
    "rosettasciio-emd": Case(hyperspy(".emd"), "raster", ("voltage_V=80e3",)),
    "rosettasciio-blo": Case(
        hyperspy(".blo", np.uint8), "raster", (f"object_pixel_size_m={PIXEL_M!r}",), positions=True
    ),
    "py4dstem": Case(py4dstem, "raster"),
    "mib": Case(mib, "raster", (f"object_pixel_size_m={PIXEL_M!r}",), positions=True),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_image_is_that_of_the_npz(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    scan = scans()[case.scan]
    source, target = case.write(tmp_path, scan), tmp_path / "made.h5"
    np.save(tmp_path / "probe.npy", scan["probeGuess"])
    np.save(tmp_path / "places.npy", scan["places_m"])
    words = ["--positions", str(tmp_path / "places.npy")] if case.positions else []
    settings = [*case.settings, f"path.probe={tmp_path / 'probe.npy'}", "unit=counts"]
    assert main(["import", str(source), "-o", str(target), *words, "--set", *settings]) == 0
    assert main(["validate", str(target)]) == 0
    raw = RawData.from_file(target)
    np.testing.assert_array_equal(np.asarray(raw.diff3d), scan["diff3d"])
    assert raw.object_pixel_size_m is not None
    made, want = image_of(raw), reference(case.scan)
    assert made.shape == want.shape
    assert np.linalg.norm(made - want) < 1e-5 * np.linalg.norm(want)
