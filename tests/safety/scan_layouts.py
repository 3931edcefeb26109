"""Scans laid out as other programs write them, for tests: one function a format, all of the same scan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptycho.cli.main import main
from ptycho.io.geometry import HC_EV_M
from ptycho.io.ptychodus_diffraction import Diffraction, write_diffraction
from ptycho.io.ptychodus_frame import ObjectFrame
from ptycho.io.ptychodus_product import Metadata, Product, write_product
from ptycho.scan.raw_data import RawData

PIXEL_M, WAVELENGTH_M, DISTANCE_M, N = 30e-9, 1.4e-10, 2.0, 32
DETECTOR_M = WAVELENGTH_M * DISTANCE_M / (N * PIXEL_M)
#: what a file of bare frames does not say
GEOMETRY = {"wavelength_m": WAVELENGTH_M, "distance_m": DISTANCE_M, "detector_pixel_size_m": DETECTOR_M}


def in_metres(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The arrays of a scan file, and its positions [x, y] in metres (M, 2) under `places_m`."""
    places = np.stack([arrays["xcoords"], arrays["ycoords"]], axis=1)
    return {**arrays, "places_m": places * PIXEL_M}


def imported(source: Path, folder: Path, *words: str) -> RawData:
    """The scan that `ptycho import` makes of a source, with these flags."""
    target = folder / "made.h5"
    target.unlink(missing_ok=True)
    assert main(["import", str(source), "-o", str(target), *words]) == 0
    return RawData.from_file(target, make_probe=True)


def same_places(made: np.ndarray, scan: dict[str, Any], within: float = 2e-4) -> None:
    """Positions [x, y] px are those of a scan, but for a common shift."""
    shift = made - scan["places_m"] / PIXEL_M
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=within)


def cxi(path: Path, scan: dict[str, Any], **options: Any) -> Path:
    with h5py.File(path, "w") as archive:
        archive["cxi_version"] = 160
        detector = archive.create_group("entry_1/instrument_1/detector_1")
        detector.create_dataset("data", data=scan["diff3d"], **options)
        archive["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        archive["entry_1/instrument_1/source_1/wavelength"] = WAVELENGTH_M
        archive["entry_1/instrument_1/source_1/illumination"] = scan["probeGuess"]
        detector["distance"] = DISTANCE_M
        detector["x_pixel_size"] = detector["y_pixel_size"] = DETECTOR_M
        mask = np.zeros((N, N), np.uint32)
        mask[3, 4], mask[5, 6] = 1, 0x1000
        detector["mask"] = mask
        moves = np.zeros((len(scan["places_m"]), 3))
        moves[:, :2] = scan["places_m"]
        archive["entry_1/data_1/translation"] = moves
    return path


def nexus(path: Path, scan: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as archive:
        entry = archive.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"

        def group(parent: Any, name: str, kind: str) -> Any:
            made = parent.create_group(name)
            made.attrs["NX_class"] = kind
            return made

        instrument = group(entry, "instrument", "NXinstrument")
        beam = group(instrument, "beam", "NXbeam")
        beam["incident_energy"] = HC_EV_M / WAVELENGTH_M / 1e3
        beam["incident_energy"].attrs["units"] = "keV"
        detector = group(instrument, "detector", "NXdetector")
        detector["data"] = scan["diff3d"]
        detector["distance"] = DISTANCE_M * 1e3
        detector["distance"].attrs["units"] = "mm"
        detector["x_pixel_size"] = DETECTOR_M * 1e6
        detector["x_pixel_size"].attrs["units"] = "um"
        data = group(entry, "data", "NXdata")
        data.attrs["signal"] = "data"
        data["data"] = h5py.SoftLink("/entry/instrument/detector/data")
        for column, name in enumerate(("sample_x", "sample_y")):
            data[name] = -scan["places_m"][:, column] * 1e6
            data[name].attrs["units"] = "um"
    return path


def ptyd(path: Path, scan: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as archive:
        half = len(scan["diff3d"]) // 2
        for number, part in enumerate((slice(0, half), slice(half, None))):
            chunk = archive.create_group(f"chunks/{number}")
            chunk["data"] = scan["diff3d"][part]
            chunk["positions"] = scan["places_m"][part, ::-1]
            chunk["indices"] = np.arange(len(scan["diff3d"]))[part]
        meta = archive.create_group("meta")
        meta["energy"], meta["distance"] = HC_EV_M / WAVELENGTH_M / 1e3, DISTANCE_M
        meta["psize"] = np.array([DETECTOR_M, DETECTOR_M])
    return path


def ptylab(path: Path, scan: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as archive:
        archive["ptychogram"], archive["encoder"] = scan["diff3d"], scan["places_m"][:, ::-1]
        archive["wavelength"], archive["zo"], archive["dxd"] = WAVELENGTH_M, DISTANCE_M, DETECTOR_M
    return path


def shelves(path: Path, scan: dict[str, Any]) -> Path:
    target = path.with_name("scan_dp.hdf5")
    with h5py.File(target, "w") as archive:
        archive["dp"] = scan["diff3d"]
    with h5py.File(path.with_name("scan_para.hdf5"), "w") as archive:
        archive["probe_position_x_m"], archive["probe_position_y_m"] = scan["places_m"].T
        archive["obj_pixel_size"], archive["lambda"] = PIXEL_M, WAVELENGTH_M
    return target


def eiger(path: Path, scan: dict[str, Any]) -> Path:
    master = path.with_name("s_master.h5")
    half = len(scan["diff3d"]) // 2
    for number, part in enumerate((slice(0, half), slice(half, None)), 1):
        with h5py.File(path.with_name(f"s_data_{number:06d}.h5"), "w") as archive:
            archive["entry/data/data"] = scan["diff3d"][part].astype(np.uint32)
    with h5py.File(master, "w") as archive:
        archive.create_group("entry/data")
        for number in (1, 2):
            archive[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(
                f"s_data_{number:06d}.h5", "/entry/data/data"
            )
        detector = archive.create_group("entry/instrument/detector")
        detector["detector_distance"], detector["x_pixel_size"] = DISTANCE_M, DETECTOR_M
        detector["detectorSpecific/photon_energy"] = HC_EV_M / WAVELENGTH_M
    np.save(path.with_name("places.npy"), scan["places_m"])
    return master


def tike(path: Path, scan: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as archive:
        archive["data"] = scan["diff3d"]
        archive["scan"] = scan["places_m"][:, ::-1] / PIXEL_M - N // 2
        archive["probe"] = scan["probeGuess"][None, None, None]
        archive["psi"] = scan["objectGuess"]
    return path


def hdf5(path: Path, scan: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as archive:
        archive["det/frames"] = scan["diff3d"]
        archive["stage/x"], archive["stage/y"] = scan["places_m"].T * 1e6
        archive["stage/x"].attrs["units"] = archive["stage/y"].attrs["units"] = "um"
    return path


def npz(path: Path, scan: dict[str, Any]) -> Path:
    target = path.with_suffix(".npz")
    np.savez(target, **{key: value for key, value in scan.items() if key != "places_m"}, **GEOMETRY)
    return target


def ptychodus(path: Path, scan: dict[str, Any]) -> Path:
    """`diffraction.h5` and `product.h5` beside each other, by this package's own writers."""
    frames, count = scan["diff3d"], len(scan["diff3d"])
    target = path.with_name("diffraction.h5")
    pixels = (DETECTOR_M, DETECTOR_M)
    write_diffraction(target, Diffraction(frames, np.arange(count), np.zeros((N, N), bool), pixels))
    x, y = scan["places_m"].T
    obj = scan["objectGuess"].astype(np.complex64)[None]
    frame = ObjectFrame(obj.shape[-2:], (PIXEL_M, PIXEL_M), (float(x.mean()), float(y.mean())))
    said = Metadata(detector_distance_m=DISTANCE_M, photon_energy_ev=HC_EV_M / WAVELENGTH_M)
    probe = scan["probeGuess"][None, None]
    made = Product(
        object=obj, frame=frame, probe=probe, indexes=np.arange(count), x_m=x, y_m=y, metadata=said
    )
    write_product(path.with_name("product.h5"), made)
    return target


def matlab(path: Path, scan: dict[str, Any]) -> Path:
    from scipy.io import savemat

    x, y = scan["places_m"].T
    target = path.with_suffix(".mat")
    frames = np.moveaxis(scan["diff3d"], 0, -1)
    savemat(target, {"dp": frames, "ppX": x, "ppY": y, "lambda": WAVELENGTH_M, "dx": PIXEL_M})
    return target


def _places(path: Path, scan: dict[str, Any]) -> None:
    np.save(path.with_name("places.npy"), scan["places_m"])


def npy(path: Path, scan: dict[str, Any]) -> Path:
    target = path.with_suffix(".npy")
    np.save(target, scan["diff3d"])
    _places(path, scan)
    return target


def tiff(path: Path, scan: dict[str, Any]) -> Path:
    import tifffile

    target = path.with_suffix(".tif")
    tifffile.imwrite(target, scan["diff3d"])
    _places(path, scan)
    return target


def tiffs(path: Path, scan: dict[str, Any]) -> Path:
    import tifffile

    folder = path.with_name("frames")
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(scan["diff3d"]):
        tifffile.imwrite(folder / f"f{number}.tif", frame)
    _places(path, scan)
    return folder


def zarr(path: Path, scan: dict[str, Any]) -> Path:
    from zarr import open_group

    target = path.with_suffix(".zarr")
    group = open_group(str(target), mode="w")
    for name, values in (("frames", scan["diff3d"]), ("places", scan["places_m"])):
        group.create_array(name, shape=values.shape, dtype=values.dtype)[:] = values
    return target


def py4dstem(path: Path, scan: dict[str, Any]) -> Path:
    """EMD 1.0 as py4DSTEM writes it, on a grid of 5 x 6."""
    frames = scan["diff3d"]
    with h5py.File(path, "w") as archive:
        archive.attrs["emd_group_type"], archive.attrs["version_major"] = "file", 1
        cube = archive.create_group("root/cube")
        cube.attrs["emd_group_type"], cube.attrs["python_class"] = "array", "DataCube"
        cube["data"] = frames.reshape(5, 6, *frames.shape[1:]) if len(frames) == 30 else frames
        known = archive.create_group("root/metadatabundle/calibration")
        known["Q_pixel_size"], known["Q_pixel_units"] = 0.02, "A^-1"
    _places(path, scan)
    return path


Layout = Callable[[Path, dict[str, Any]], Path]
#: what says everything that a scan needs
WHOLE: dict[str, Layout] = {
    "cxi": cxi, "nexus": nexus, "ptyd": ptyd, "ptylab": ptylab, "shelves": shelves, "npz": npz,
    "ptychodus": ptychodus, "matlab": matlab,
}  # fmt: skip
#: what needs geometry or positions by flags
BARE: dict[str, Layout] = {
    "eiger": eiger, "tike": tike, "hdf5": hdf5, "npy": npy, "tiff": tiff, "tiffs": tiffs, "zarr": zarr,
    "py4dstem": py4dstem,
}  # fmt: skip
LAYOUTS: dict[str, Layout] = WHOLE | BARE
_NUMBERS = [f"{key}={value!r}" for key, value in GEOMETRY.items()]


def flags_of(name: str, folder: Path) -> list[str]:
    """What `ptycho import` needs beside the file of a format, as words of the command line."""
    places = {
        "hdf5": ["path.frames=det/frames", "path.positions_x=stage/x", "path.positions_y=stage/y"],
        "zarr": ["path.frames=frames", "path.positions=places"],
    }.get(name, [])
    needs = {"npy", "tiff", "tiffs", "zarr", "hdf5", "tike", "py4dstem"}
    beside = {"eiger", "npy", "tiff", "tiffs", "py4dstem"}
    words = ["--set", *places, *_NUMBERS] if name in needs else []
    second = folder / "places.npy"
    return [*words, *(["--positions", str(second)] if name in beside else [])]
