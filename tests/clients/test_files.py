"""Files in both directions: what ptychodus writes is read here, what is written here opens in ptychodus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from client_driver import running_client
from client_scans import Case, write_scan
from ptychodus.api import io as theirs
from ptychodus.api.assemble import AssembledDiffractionData
from ptychodus.api.diffraction import Polarization
from ptychodus.api.geometry import PixelGeometry
from ptychodus.api.object import Object, ObjectCenter
from ptychodus.api.probe import ProbeSequence
from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
from ptychodus.api.product import LossValue, ProductMetadata
from ptychodus.api.product import Product as TheirProduct
from ptychodus.api.reconstruct import prepare_reconstruct_input
from ptychodus.api.simulate.diffraction import generate_diffraction_data
from ptychodus.plugins.h5_product_file import H5ProductFileIO
from ptychodus.plugins.npz_product_file import NPZProductFileIO

from ptycho.evaluation.rfactor import predicted_amplitudes
from ptycho.io.ptychodus_diffraction import read_diffraction, write_diffraction
from ptycho.io.ptychodus_frame import ObjectFrame
from ptycho.io.ptychodus_product import Metadata, Product, read_product, write_product
from ptycho.io.ptychodus_scan import paired
from ptycho.raw_data import RawData

CASE = Case(64, 2, False)
FORMATS = {"HDF5": H5ProductFileIO(), "NPZ": NPZProductFileIO()}


def their_product(rng: np.random.Generator, *, indexes: list[int] | None = None) -> TheirProduct:
    """A product of ptychodus with every field set to something of its own."""
    height, width, N = 120, 141, 32
    obj = rng.uniform(0.5, 1, (height, width)) * np.exp(1j * rng.uniform(0, 1, (height, width)))
    geometry = PixelGeometry(width_m=8e-9, height_m=9e-9)
    axis = np.arange(N) - N // 2
    round_probe = np.exp(-(axis[:, None] ** 2 + axis**2) / 20.0) * (1 + 0j)
    modes = np.stack([round_probe, 0.5 * axis * round_probe / 5])
    indexes = list(range(12)) if indexes is None else indexes
    x_m, y_m = rng.uniform(-2e-7, 2e-7, (2, len(indexes)))
    points = [
        ProbePosition(i, 3e-6 + x, -1e-6 + y, probe_photon_count=100.0 + i)
        for i, x, y in zip(indexes, x_m, y_m, strict=True)
    ]
    metadata = ProductMetadata(
        "theirs", "a comment", 1.25, 9000.0, 1e5, 0.2, 1.5, 45.0, 0.01, 3.0, Polarization.LEFT_CIRCULAR
    )
    return TheirProduct(
        metadata=metadata,
        probe_positions=ProbePositionSequence(points),
        probes=ProbeSequence(modes[None], None, geometry),
        object_=Object(obj, geometry, ObjectCenter(x_m=3e-6, y_m=-1e-6)),
        losses=[LossValue(3, 0.5), LossValue(4, 0.25)],
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("form", ["HDF5", "NPZ"])
def test_their_product_is_read_here(rng: np.random.Generator, tmp_path: Path, form: str) -> None:
    made = their_product(rng)
    path = tmp_path / ("p.h5" if form == "HDF5" else "p.npz")
    FORMATS[form].write(path, made)
    here = read_product(path)
    np.testing.assert_array_equal(here.object, made.object_.get_array())
    np.testing.assert_array_equal(here.probe, made.probes.get_array())
    np.testing.assert_array_equal(here.indexes, made.probe_positions.get_indexes())
    np.testing.assert_array_equal(here.x_m, made.probe_positions.get_coordinates_x_m())
    np.testing.assert_array_equal(here.y_m, made.probe_positions.get_coordinates_y_m())
    np.testing.assert_array_equal(here.photon_counts, made.probe_positions.get_probe_photon_counts())
    np.testing.assert_array_equal(here.loss_epochs, [3, 4])
    np.testing.assert_array_equal(here.loss_values, [0.5, 0.25])
    assert here.frame.pixel_xy_m == here.probe_pixel_xy_m == (8e-9, 9e-9)
    assert here.frame.center_xy_m == (3e-6, -1e-6)
    assert here.metadata == Metadata(
        "theirs", "a comment", 1.25, 9000.0, 1e5, 0.2, 1.5, 45.0, 0.01, 3.0, "left_circular", True
    )


@pytest.mark.parametrize("suffix", ["h5", "npz"])
def test_our_product_opens_there(rng: np.random.Generator, tmp_path: Path, suffix: str) -> None:
    made = their_product(rng)
    theirs.save_product(tmp_path / "first.h5", made)
    ours = replace(
        read_product(tmp_path / "first.h5"),
        layer_spacing_m=np.array([2e-6]),
        object=np.stack([made.object_.get_layer(0)] * 2),
        opr_weights=np.ones((12, 1)),
    )
    path = tmp_path / f"p.{suffix}"
    write_product(path, ours)
    again = FORMATS["HDF5" if suffix == "h5" else "NPZ"].read(path)
    assert again.metadata == made.metadata
    assert again.object_.get_geometry() == made.object_.get_geometry()
    assert list(again.losses) == list(made.losses)
    np.testing.assert_array_equal(again.object_.get_array(), ours.object)
    np.testing.assert_array_equal(again.object_.layer_spacing_m, [2e-6])
    np.testing.assert_array_equal(again.probes.get_opr_weights(), ours.opr_weights)
    np.testing.assert_array_equal(
        again.probe_positions.get_coordinates_x_m(), made.probe_positions.get_coordinates_x_m()
    )


def test_diffraction_both_ways(rng: np.random.Generator, tmp_path: Path) -> None:
    patterns, bad = rng.integers(0, 900, (7, 32, 32)).astype(np.uint16), rng.random((32, 32)) < 0.05
    written = AssembledDiffractionData(
        np.arange(2, 9), patterns, PixelGeometry(width_m=75e-6, height_m=55e-6), bad
    )
    theirs.save_diffraction_data(tmp_path / "d.h5", written)
    here = read_diffraction(tmp_path / "d.h5")
    # ptychodus zeroes bad pixels when it takes the patterns
    np.testing.assert_array_equal(here.patterns[:, ~bad], patterns[:, ~bad])
    np.testing.assert_array_equal(here.bad_pixels, bad)
    np.testing.assert_array_equal(here.indexes, np.arange(2, 9))
    assert here.detector_pixel_xy_m == (75e-6, 55e-6)

    write_diffraction(tmp_path / "again.h5", here)
    there = theirs.load_diffraction_data(tmp_path / "again.h5")
    np.testing.assert_array_equal(there.get_patterns(), here.patterns)
    np.testing.assert_array_equal(there.get_indexes(), here.indexes)
    np.testing.assert_array_equal(there.get_bad_pixels(), bad)
    assert there.get_pixel_geometry() == written.get_pixel_geometry()


@pytest.mark.parametrize("shape", [(120, 141), (121, 140)])
def test_their_patterns_are_explained_here(rng: np.random.Generator, tmp_path: Path, shape: tuple) -> None:
    """ptychodus simulates, this package predicts from what it reads: no half pixel is lost."""
    made = their_product(rng)
    made = replace(
        made,
        object_=Object(
            made.object_.get_layer(0)[: shape[0], : shape[1]]
            if shape[0] <= 120
            else np.pad(made.object_.get_layer(0), ((0, 1), (0, 0)), mode="edge")[:, : shape[1]],
            made.object_.get_pixel_geometry(),
            made.object_.get_center(),
        ),
    )
    theirs.save_product(tmp_path / "product.h5", made)
    theirs.save_diffraction_data(tmp_path / "diffraction.h5", generate_diffraction_data(made))
    raw = RawData.from_file(tmp_path / "product.h5")
    assert raw.diffraction_unit == "counts"
    expected = predicted_amplitudes(raw.objectGuess, raw.probe_modes, raw.xcoords, raw.ycoords)
    measured = np.sqrt(raw.diff3d)
    # their Fresnel propagator has its own constant factor
    scale = np.vdot(expected, measured) / np.vdot(expected, expected)
    misfit = np.linalg.norm(measured - scale * expected) / np.linalg.norm(measured)
    moved = predicted_amplitudes(raw.objectGuess, raw.probe_modes, raw.xcoords - 0.5, raw.ycoords - 0.5)
    assert misfit < 1e-4, misfit
    assert np.linalg.norm(measured - scale * moved) / np.linalg.norm(measured) > 100 * misfit


def test_positions_in_pixels_differ_by_the_half_pixel(rng: np.random.Generator, tmp_path: Path) -> None:
    made = their_product(rng)
    theirs.save_product(tmp_path / "p.h5", made)
    here = read_product(tmp_path / "p.h5")
    geometry = made.object_.get_geometry()
    x_px = geometry.map_probe_positions_to_object_x_px(made.probe_positions)
    y_px = geometry.map_probe_positions_to_object_y_px(made.probe_positions)
    ours = here.frame.to_pixels(here.x_m, here.y_m, 32)
    np.testing.assert_allclose(ours, np.stack([x_px, y_px], 1) + 0.5, atol=1e-9)


def test_patterns_are_paired_as_ptychodus_pairs_them(rng: np.random.Generator, tmp_path: Path) -> None:
    made = their_product(rng, indexes=[9, 3, 3, 5, 14, 7])
    theirs.save_product(tmp_path / "p.h5", made)
    indexes = np.array([2, 3, 4, 5, 8, 9, 13, 14, 20])
    data = AssembledDiffractionData(
        indexes, rng.integers(0, 9, (9, 32, 32)), PixelGeometry(1e-6, 1e-6), np.zeros((32, 32), bool)
    )
    there = prepare_reconstruct_input(data, made)
    rows, x_m, y_m = paired(indexes, read_product(tmp_path / "p.h5"))
    np.testing.assert_array_equal(data.get_patterns()[rows], there.diffraction_patterns)
    np.testing.assert_allclose(x_m, there.product.probe_positions.get_coordinates_x_m(), rtol=1e-12)
    np.testing.assert_allclose(y_m, there.product.probe_positions.get_coordinates_y_m(), rtol=1e-12)


def test_exported_hdf5_training_data_are_a_scan_here(tmp_path: Path, scan_folder, simulated) -> None:
    """The HDF5 that ptychodus exports for other trainers carries the half pixel that its NPZ cannot."""
    given = scan_folder(CASE, truth=True)
    with running_client() as client:
        theirs.save_training_data(tmp_path / "t.h5", client.load(given).get_reconstruct_input())
    raw, scan = RawData.from_file(tmp_path / "t.h5"), simulated(CASE)
    np.testing.assert_allclose(raw.positions_px, scan.raw.positions_px, atol=1e-6)
    np.testing.assert_array_equal(raw.objectGuess, scan.object_true)
    np.testing.assert_array_equal(raw.bad_pixels, scan.raw.bad_pixels)


def test_a_scan_that_this_package_wrote_is_prepared_there(tmp_path: Path, simulated) -> None:
    """Counts stay counts, two modes stay two modes, dead pixels stay dead, on the way through ptychodus."""
    scan = simulated(CASE)
    product = write_scan(tmp_path, scan, truth=True)
    with running_client() as client:
        given = client.load(tmp_path).get_reconstruct_input()
        assert client.complaints() == []
    np.testing.assert_array_equal(given.diffraction_patterns, scan.raw.diff3d)
    np.testing.assert_array_equal(given.bad_pixels, scan.raw.bad_pixels)
    assert given.product.probes.get_probe_no_opr().get_array().shape == (2, 64, 64)
    assert isinstance(product, Product)


def test_the_image_of_their_files_is_that_of_the_npz(rng: np.random.Generator, tmp_path: Path) -> None:
    """Import, validate, reconstruct: the same scan from the files of ptychodus and as NPZ."""
    from ptycho.cli.main import main
    from ptycho_torch.refine import reconstruct

    N, pixel_m, shape = 32, 30e-9, (64, 64)
    radius = np.hypot(*np.mgrid[-N // 2 : N // 2, -N // 2 : N // 2])
    probe = (4 * np.exp(-((radius / 6) ** 2) + 0.03j * radius**2)).astype(np.complex64)
    rows, columns = np.divmod(np.arange(36), 6)
    places = np.stack([columns, rows], axis=1) * 3.0 + 18 + rng.uniform(-0.45, 0.45, (36, 2))
    y, x = np.mgrid[: shape[0], : shape[1]]
    obj = np.exp(1j * np.sin(x / 5.0) * np.cos(y / 7.0)).astype(np.complex64)
    mean = np.asarray(RawData.from_simulation(*places.T, probe, obj).diff3d, float) ** 2
    counts = rng.poisson(mean).astype(np.uint16)
    np.savez(
        tmp_path / "scan.npz", xcoords=places[:, 0], ycoords=places[:, 1], diff3d=counts, probeGuess=probe
    )

    geometry, none = PixelGeometry(width_m=pixel_m, height_m=pixel_m), np.zeros((N, N), bool)
    detector = PixelGeometry(width_m=75e-6, height_m=75e-6)
    theirs.save_diffraction_data(
        tmp_path / "diffraction.h5", AssembledDiffractionData(np.arange(36), counts, detector, none)
    )
    metres = ObjectFrame(shape, (pixel_m, pixel_m)).to_metres(places, N)
    points = [ProbePosition(i, *where, probe_photon_count=1.0) for i, where in enumerate(metres)]
    about = ProductMetadata("scan", "", 1.0, 8800.0, 1e3, 1.0, 0.0, 0.0, 0.0, 0.0, Polarization.LEFT_CIRCULAR)
    product = TheirProduct(
        about, ProbePositionSequence(points), ProbeSequence(probe[None, None], None, geometry),
        Object(obj[None], geometry, ObjectCenter(x_m=0.0, y_m=0.0)), [],
    )  # fmt: skip
    theirs.save_product(tmp_path / "product.h5", product)
    target = tmp_path / "made.h5"
    assert main(["import", str(tmp_path / "diffraction.h5"), "-o", str(target)]) == 0
    assert main(["validate", str(target)]) == 0
    made, want = (
        reconstruct(RawData.from_file(path), epochs=5).object for path in (target, tmp_path / "scan.npz")
    )
    assert made.shape == want.shape
    assert np.linalg.norm(made - want) < 1e-5 * np.linalg.norm(want)


def test_cxi_both_ways(rng: np.random.Generator, tmp_path: Path) -> None:
    """Their product.cxi is the image that it is; our image.cxi opens there as the same product."""
    from ptychodus.plugins.cxi_file import CXIProductFileIO

    from ptycho.io.cxi import write_image_cxi
    from ptycho.io.formats.registry import find
    from ptycho.io.geometry import Geometry
    from ptycho.io.images import read_image

    made = their_product(rng)
    CXIProductFileIO().write(tmp_path / "p.cxi", made)
    image, same = read_image(tmp_path / "p.cxi"), read_product(_saved(tmp_path / "p.h5", made))
    np.testing.assert_allclose(image.object, made.object_.get_layer(0), rtol=1e-6)
    np.testing.assert_allclose(image.probe, made.probes.get_array()[0], rtol=1e-6)
    np.testing.assert_allclose(image.positions_px, same.frame.to_pixels(same.x_m, same.y_m, 32), atol=1e-6)
    places = find(tmp_path / "p.cxi")
    np.testing.assert_allclose(places.positions_m, np.stack([same.x_m, same.y_m], 1))
    assert places.frames is None and list(places.position_index) == list(range(12))

    known = Geometry.of_settings({"energy_eV": 9000.0, "distance_m": 1.25, "object_pixel_size_m": 8e-9})
    write_image_cxi(
        tmp_path / "ours.cxi", image.object, image.probe, known, origin_xy=(5.0, -3.0),
        positions_px=image.positions_px + [5.0, -3.0],
    )  # fmt: skip
    again = CXIProductFileIO().read(tmp_path / "ours.cxi")
    np.testing.assert_allclose(again.object_.get_layer(0), image.object)
    np.testing.assert_allclose(again.probes.get_array()[0], image.probe)
    assert again.object_.get_pixel_geometry() == PixelGeometry(8e-9, 8e-9)
    assert again.metadata.photon_energy_eV == pytest.approx(9000.0)
    assert again.metadata.detector_distance_m == 1.25
    there = np.stack(
        [again.probe_positions.get_coordinates_x_m(), again.probe_positions.get_coordinates_y_m()], axis=1
    )
    middle = (np.array(image.object.shape[::-1]) - 1) / 2
    np.testing.assert_allclose(there / 8e-9 + middle + 0.5, image.positions_px, atol=1e-6)


def _saved(path: Path, made: TheirProduct) -> Path:
    theirs.save_product(path, made)
    return path
