"""What cdtools, PtyLab and HyperSpy write is imported as they mean it; cdtools opens what we write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptycho.io.cxi import write_scan_cxi
from ptycho.io.formats.registry import find, format_of
from ptycho.io.images import read_image
from ptycho.io.importing import Imported, ImportOptions, prepare

N, WAVELENGTH_M, DISTANCE_M, PIXEL_M = 32, 1.4e-10, 2.0, 30e-9
DETECTOR_M = WAVELENGTH_M * DISTANCE_M / (N * PIXEL_M)
BASIS = np.array([[0, -DETECTOR_M, 0], [-DETECTOR_M, 0, 0]]).T


@pytest.fixture
def scan(scan_arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A tiny scan, its positions moved to no whole pixels, and in metres about their middle."""
    rng = np.random.default_rng(1)
    places = np.stack([scan_arrays["xcoords"], scan_arrays["ycoords"]], axis=1)
    places = places + rng.uniform(-0.4, 0.4, places.shape)
    return {**scan_arrays, "places_m": (places - places.mean(axis=0)) * PIXEL_M}


def same_up_to_a_shift(one: np.ndarray, other: np.ndarray, within: float = 1e-5) -> None:
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    np.testing.assert_allclose(difference, np.broadcast_to(difference[0], difference.shape), atol=within)


def pixels_of_cdtools(translations: Any, basis: np.ndarray) -> np.ndarray:
    """The positions [x, y] px that cdtools itself computes from its translations of the probe."""
    import torch
    from cdtools.tools import initializers, interactions

    wave = initializers.exit_wave_geometry(torch.tensor(basis.copy()), (N, N), WAVELENGTH_M, DISTANCE_M)
    moves = torch.as_tensor(np.asarray(translations), dtype=torch.float64)
    return interactions.translations_to_pixel(wave, moves).numpy()[:, ::-1]


def written_by_cdtools(path: Path, scan: dict[str, Any], basis: np.ndarray) -> tuple[Path, np.ndarray]:
    """A CXI file out of cdtools' own functions, and the translations of its probe (M, 3) m."""
    from cdtools.tools import data

    moves = np.zeros((len(scan["places_m"]), 3))
    moves[:, :2] = scan["places_m"]
    mask = np.ones((N, N), np.uint8)
    mask[3, 4] = 0
    archive = data.create_cxi(str(path))
    data.add_entry_info(archive, {"title": "a test"})
    data.add_source(archive, WAVELENGTH_M)
    data.add_detector(archive, DISTANCE_M, basis)
    data.add_mask(archive, mask)
    data.add_data(archive, scan["diff3d"].astype(np.float32))
    data.add_ptycho_translations(archive, moves)
    archive.close()
    return path, moves


@pytest.mark.parametrize("basis", [BASIS, -BASIS, BASIS[:, ::-1]], ids=["usual", "turned", "swapped"])
def test_a_scan_that_cdtools_wrote(basis: np.ndarray, scan: dict[str, Any], tmp_path: Path) -> None:
    path, moves = written_by_cdtools(tmp_path / "a.cxi", scan, np.ascontiguousarray(basis))
    assert format_of(path).name == "cxi"
    made = prepare(find(path), ImportOptions())
    want = scan["diff3d"].copy()
    want[:, 3, 4] = 0
    np.testing.assert_array_equal(made.frames[:], want)
    assert made.bad_pixels is not None and np.argwhere(made.bad_pixels).tolist() == [[3, 4]]
    assert made.geometry.require_object_pixel_size_m(N) == pytest.approx(PIXEL_M, rel=1e-6)
    same_up_to_a_shift(made.positions_px, pixels_of_cdtools(moves, basis))


def test_cdtools_opens_a_scan_that_is_written_here(scan: dict[str, Any], tmp_path: Path) -> None:
    from cdtools.datasets import Ptycho2DDataset

    path, _ = written_by_cdtools(tmp_path / "a.cxi", scan, BASIS)
    made: Imported = prepare(find(path), ImportOptions())
    write_scan_cxi(tmp_path / "b.cxi", made)
    opened = Ptycho2DDataset.from_cxi(str(tmp_path / "b.cxi"))
    np.testing.assert_array_equal(opened.patterns.numpy(), made.frames[:])
    assert float(opened.wavelength) == pytest.approx(WAVELENGTH_M, rel=1e-6)
    assert float(opened.detector_geometry["distance"]) == pytest.approx(DISTANCE_M, rel=1e-6)
    assert np.argwhere(~opened.mask.numpy().astype(bool)).tolist() == [[3, 4]]
    basis = np.asarray(opened.detector_geometry["basis"], np.float64)
    # cdtools keeps translations as float32 metres
    same_up_to_a_shift(pixels_of_cdtools(opened.translations, basis), made.positions_px, within=1e-4)


def ptylab_file(path: Path, scan: dict[str, Any]) -> Path:
    """The fields that PtyLab's `ExperimentalData` asks for."""
    with h5py.File(path, "w") as archive:
        archive["ptychogram"] = scan["diff3d"].astype(np.float32)
        archive["encoder"] = scan["places_m"][:, ::-1]
        for name, value in (("wavelength", WAVELENGTH_M), ("zo", DISTANCE_M), ("dxd", DETECTOR_M)):
            archive[name] = value
    return path


@pytest.mark.parametrize("orientation", [None, 0, 1, 2, 3, 4, 5, 6, 7])
def test_a_scan_as_ptylab_opens_it(orientation: int | None, scan: dict[str, Any], tmp_path: Path) -> None:
    from PtyLab import ExperimentalData, Params, Reconstruction

    path = ptylab_file(tmp_path / "a.hdf5", scan)
    if orientation is not None:
        with h5py.File(path, "a") as archive:
            archive["orientation"] = orientation
    theirs = ExperimentalData(str(path), operationMode="CPM")
    made = prepare(find(path), ImportOptions())
    np.testing.assert_array_equal(made.frames[:], theirs.ptychogram)
    rebuilt = Reconstruction(theirs, Params())
    assert made.geometry.require_object_pixel_size_m(N) == pytest.approx(float(rebuilt.dxo), rel=1e-6)
    # PtyLab rounds to whole pixels
    difference = rebuilt.positions[:, ::-1] - made.positions_px
    assert np.ptp(difference, axis=0).max() <= 1.0 + 1e-6
    same_up_to_a_shift(theirs.encoder[:, ::-1] / float(rebuilt.dxo), made.positions_px)


def test_a_result_that_ptylab_saved(scan: dict[str, Any], tmp_path: Path) -> None:
    from PtyLab import ExperimentalData, Params, Reconstruction

    theirs = Reconstruction(ExperimentalData(str(ptylab_file(tmp_path / "a.hdf5", scan)), "CPM"), Params())
    theirs.initialObject, theirs.initialProbe = "ones", "circ"
    theirs.entrancePupilDiameter = N // 3 * PIXEL_M
    theirs.initializeObjectProbe()
    theirs.error = np.zeros(1)
    rng = np.random.default_rng(2)
    theirs.object = theirs.object * (1 + rng.random(theirs.object.shape))
    theirs.saveResults(str(tmp_path / "result.hdf5"), type="all")
    image = read_image(tmp_path / "result.hdf5")
    np.testing.assert_allclose(image.object, np.squeeze(theirs.object), rtol=1e-6)
    assert image.probe is not None and image.probe.shape[-2:] == (N, N)
    assert image.object_pixel_size_m == pytest.approx(PIXEL_M, rel=1e-6)
    assert image.positions_px is not None
    corners = np.round(image.positions_px - N // 2)
    np.testing.assert_allclose(corners, theirs.positions[:, ::-1], atol=1)


def test_a_scan_that_hyperspy_wrote(scan: dict[str, Any], tmp_path: Path) -> None:
    import hyperspy.api as hs

    frames = scan["diff3d"].reshape(5, 6, N, N)
    signal = hs.signals.Signal2D(frames)
    for axis, name, step, unit in zip(
        signal.axes_manager._axes, ("y", "x", "ky", "kx"), (0.4, 0.5, 0.9, 0.9), ("nm", "nm", "mrad", "mrad"),
        strict=True,
    ):  # fmt: skip
        axis.name, axis.scale, axis.units = name, step, unit
    signal.metadata.set_item("Acquisition_instrument.TEM.beam_energy", 80.0)
    path = tmp_path / "a.hspy"
    signal.save(str(path))
    assert format_of(path).name == "electron"
    made = prepare(find(path), ImportOptions())
    np.testing.assert_array_equal(made.frames[:], scan["diff3d"])
    size = made.geometry.require_object_pixel_size_m(N)
    assert size == pytest.approx(4.1757e-12 / (N * 0.9e-3), rel=1e-4)
    rows, columns = np.divmod(np.arange(30), 6)
    same_up_to_a_shift(made.positions_px, np.stack([columns * 0.5e-9, rows * 0.4e-9], axis=1) / size)


def test_our_scan_passes_the_validation_of_nexus(scan: dict[str, Any], tmp_path: Path) -> None:
    """Against the base classes of NeXus: no error; warnings are for what CXI has and NeXus does not name."""
    from nexusformat.nexus.validate import validate_file

    path, _ = written_by_cdtools(tmp_path / "a.cxi", scan, BASIS)
    write_scan_cxi(tmp_path / "b.h5", prepare(find(path), ImportOptions()))
    warnings, errors = validate_file(str(tmp_path / "b.h5"))
    assert errors == 0 and warnings < 20
