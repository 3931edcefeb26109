"""Product and diffraction files of ptychodus: what comes back, where a pixel lies, what damage is called."""

from __future__ import annotations

from dataclasses import fields, replace

import h5py
import numpy as np
import pytest

from ptycho.errors import DataError, InputError, MissingFileError
from ptycho.evaluation.rfactor import predicted_amplitudes
from ptycho.io.geometry import Geometry
from ptycho.io.ptychodus_diffraction import Diffraction, read_diffraction, write_diffraction
from ptycho.io.ptychodus_frame import ObjectFrame, centre_offset_px, detector_pixel_m, far_field_pixel_m
from ptycho.io.ptychodus_product import Metadata, Product, read_product, write_product
from ptycho.io.ptychodus_scan import paired, product_of_image
from ptycho.io.registry import read_scan, write_scan
from ptycho.scan.raw_data import RawData

PIXEL = (8e-9, 9e-9)


@pytest.fixture
def product(scan_arrays) -> Product:
    """A product of 30 positions with every field set."""
    obj = scan_arrays["objectGuess"]
    frame = ObjectFrame(obj.shape, PIXEL, (3e-6, -2e-6))
    positions = np.stack([scan_arrays["xcoords"], scan_arrays["ycoords"]], 1)
    metres = frame.to_metres(positions, 32)
    return Product(
        object=np.stack([obj, obj]),
        frame=frame,
        probe=np.stack([scan_arrays["probeGuess"]] * 2)[None],
        indexes=np.arange(30),
        x_m=metres[:, 0],
        y_m=metres[:, 1],
        metadata=Metadata("star", "made here", 0.9, 8800.0, 1e5, 0.1, 2.0, 30.0, 0.01, 5.0, "left_circular"),
        probe_pixel_xy_m=(7e-9, 6e-9),
        layer_spacing_m=np.array([1e-6]),
        opr_weights=np.ones((30, 1)),
        photon_counts=np.arange(30.0),
        loss_epochs=np.array([1, 2, 3]),
        loss_values=np.array([3.0, 2.0, 1.5]),
    )


@pytest.fixture
def scan_folder(product, scan_arrays, tmp_path):
    """diffraction.h5 and product.h5 of one scan, one detector pixel dead."""
    bad = np.zeros((32, 32), bool)
    bad[3, 4] = True
    one_layer = replace(product, object=product.object[:1], layer_spacing_m=None, opr_weights=None)
    write_product(tmp_path / "product.h5", one_layer)
    write_diffraction(
        tmp_path / "diffraction.h5", Diffraction(scan_arrays["diff3d"], np.arange(30), bad, (75e-6, 55e-6))
    )
    return tmp_path


@pytest.mark.parametrize("suffix", ["h5", "hdf5", "npz"])
def test_a_product_comes_back_as_it_was(product, tmp_path, suffix):
    write_product(tmp_path / f"p.{suffix}", product)
    again = read_product(tmp_path / f"p.{suffix}")
    for field in fields(Product):
        ours, theirs = getattr(product, field.name), getattr(again, field.name)
        if isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(theirs, ours, err_msg=field.name)
            assert theirs.dtype == ours.dtype
        else:
            assert theirs == ours, field.name


def test_older_names_are_read(product, tmp_path):
    path = tmp_path / "p.h5"
    write_product(path, product)
    with h5py.File(path, "r+") as archive:
        archive.attrs["probe_energy_eV"] = archive.attrs.pop("photon_energy_eV")
        archive.attrs["mass_attenuation_m2_kg"] = archive.attrs.pop("mass_attenuation_m2_per_kg")
        del archive["object_layer_spacing_m"], archive["loss_epochs"], archive.attrs["far_field"]
        for name in ("pixel_width_m", "pixel_height_m"):
            del archive["probe"].attrs[name]
        values = archive["object"][0], dict(archive["object"].attrs)
        del archive["object"]
        archive.create_dataset("object", data=values[0]).attrs.update(values[1])
    again = read_product(path)
    assert again.metadata == product.metadata
    assert again.probe_pixel_xy_m == PIXEL and again.object.shape == (1, *product.frame.shape)
    np.testing.assert_array_equal(again.loss_epochs, [0, 1, 2])


@pytest.mark.parametrize("key", ["object", "probe", "probe_position_x_m", "probe_position_indexes"])
def test_a_missing_dataset_is_named(product, tmp_path, key):
    write_product(tmp_path / "p.h5", product)
    with h5py.File(tmp_path / "p.h5", "r+") as archive:
        del archive[key]
    with pytest.raises(DataError, match=rf"p\.h5 has no '{key}'"):
        read_product(tmp_path / "p.h5")


@pytest.mark.parametrize("key", ["photon_energy_eV", "detector_object_distance_m"])
def test_a_missing_attribute_is_named(product, tmp_path, key):
    write_product(tmp_path / "p.h5", product)
    with h5py.File(tmp_path / "p.h5", "r+") as archive:
        del archive.attrs[key]
    with pytest.raises(DataError, match=key):
        read_product(tmp_path / "p.h5")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a["object"].attrs.__setitem__("pixel_width_m", 0.0), "pixel size"),
        (lambda a: a["object"].attrs.__setitem__("center_x_m", np.nan), "finite number"),
        (lambda a: _replace(a, "probe", np.ones((1, 1, 32, 32))), "must be complex"),
        (lambda a: _replace(a, "probe_position_indexes", np.ones(30)), "whole numbers"),
        (lambda a: _replace(a, "probe_position_x_m", np.ones(4)), "30 positions"),
        (lambda a: _replace(a, "object_layer_spacing_m", np.ones(4)), "layers"),
        (lambda a: _replace(a, "probe", np.array([b"x"])), "must hold numbers"),
    ],
)
def test_wrong_contents_of_a_product_are_told(product, tmp_path, change, message):
    write_product(tmp_path / "p.h5", product)
    with h5py.File(tmp_path / "p.h5", "r+") as archive:
        change(archive)
    with pytest.raises(DataError, match=message) as caught:
        read_product(tmp_path / "p.h5")
    assert "p.h5" in str(caught.value) and "\n" not in str(caught.value)


def _replace(archive, key, values):
    attributes = dict(archive[key].attrs)
    del archive[key]
    archive.create_dataset(key, data=values).attrs.update(attributes)


@pytest.mark.parametrize("read", [read_product, read_diffraction, read_scan])
def test_damaged_files_are_told_apart(scan_folder, tmp_path, read):
    name = "diffraction.h5" if read is read_diffraction else "product.h5"
    whole = (scan_folder / name).read_bytes()
    cases = {"empty": b"", "text": b"no file of ours" * 9, "short": whole[: len(whole) // 2]}
    for what, contents in cases.items():
        path = tmp_path / f"{what}.h5"
        path.write_bytes(contents)
        wanted = {"empty": "empty", "text": "not an HDF5 file", "short": "truncated or damaged"}[what]
        with pytest.raises(DataError, match=wanted):
            read(path)
    with pytest.raises(MissingFileError, match="does not exist"):
        read(tmp_path / "nowhere.h5")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)


def test_damaged_patterns_are_told(scan_folder):
    path = scan_folder / "diffraction.h5"
    with h5py.File(path) as archive:
        chunk = archive["patterns"].id.get_chunk_info(0)
    with open(path, "r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\xff" * chunk.size)
    try:
        with h5py.File(path) as archive:
            archive["patterns"][()]
    except OSError:
        with pytest.raises(DataError, match="'patterns' is damaged"):
            read_diffraction(path)
    else:
        pytest.fail("the damage was not noticed by HDF5: corrupt more")


def test_diffraction_comes_back_as_it_was(scan_folder, scan_arrays):
    made = read_diffraction(scan_folder / "diffraction.h5")
    np.testing.assert_array_equal(made.patterns, scan_arrays["diff3d"])
    assert made.patterns.dtype == np.uint16 and made.bad_pixels.sum() == 1
    assert made.detector_pixel_xy_m == (75e-6, 55e-6) and made.probe_photon_counts is None


@pytest.mark.parametrize("key", ["patterns", "indexes", "bad_pixels"])
def test_a_missing_key_of_diffraction_is_named(scan_folder, key):
    path = scan_folder / "diffraction.h5"
    with h5py.File(path, "r+") as archive:
        del archive[key]
    with pytest.raises(DataError, match=rf"diffraction\.h5 has no dataset '{key}'"):
        read_diffraction(path)


def test_a_failed_save_leaves_the_old_file(product, tmp_path):
    path = tmp_path / "p.h5"
    write_product(path, product)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_product(path, replace(product, opr_weights=np.array([object()])))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["p.h5"]


# ------------------------------------------------------------------------------------ where a pixel lies


@pytest.mark.parametrize("N, half", [(32, 0.5), (64, 0.5), (33, 0.0)])
def test_the_half_pixel(N, half):
    """Patch pixel q lies at object pixel c - (N-1)/2 + q there; ours is the one under q = N//2."""
    assert centre_offset_px(N) == half
    frame = ObjectFrame((40, 51), PIXEL, (1e-6, 2e-6))
    # the world's centre is pixel (W-1)/2, (H-1)/2 there
    np.testing.assert_allclose(frame.to_pixels([1e-6], [2e-6], N), [[25.0 + half, 19.5 + half]])
    places = np.array([[3.25, 7.5], [-2.0, 60.125]])
    back = frame.to_pixels(*frame.to_metres(places, N).T, N)
    np.testing.assert_allclose(back, places, atol=1e-9)


@pytest.mark.parametrize("shape", [(20, 31), (21, 30), (64, 64)])
def test_a_canvas_cut_from_another_keeps_its_place(shape):
    frame = ObjectFrame((100, 121), PIXEL, (5e-6, -1e-6))
    cut = frame.placed(shape, (17, 9))
    metres = frame.to_metres([[17, 9], [40, 30]], 32)
    np.testing.assert_allclose(cut.to_pixels(*metres.T, 32), [[0, 0], [23, 21]], atol=1e-9)


def test_pixel_sizes_are_reciprocal():
    size = far_field_pixel_m(8000.0, 0.75, 64, 75e-6)
    assert size == pytest.approx(1.549802e-10 * 0.75 / (64 * 75e-6), rel=1e-5)
    assert detector_pixel_m(8000.0, 0.75, 64, size) == pytest.approx(75e-6)


# ------------------------------------------------------------------------------------ scans


@pytest.mark.parametrize("name", ["diffraction.h5", "product.h5"])
def test_a_scan_from_either_half(scan_folder, scan_arrays, name):
    raw = RawData.from_file(scan_folder / name)
    np.testing.assert_allclose(raw.xcoords, scan_arrays["xcoords"], atol=1e-6)
    np.testing.assert_allclose(raw.ycoords, scan_arrays["ycoords"], atol=1e-6)
    np.testing.assert_array_equal(raw.diff3d, scan_arrays["diff3d"])
    np.testing.assert_array_equal(raw.objectGuess, scan_arrays["objectGuess"])
    assert raw.diffraction_unit == "counts" and raw.bad_pixels.sum() == 1 and raw.probe_modes.shape[0] == 2


def test_a_scan_explains_its_own_patterns(scan_folder, scan_arrays):
    """The positions that are read put patches where patterns were made: half a pixel off is worse."""
    raw = RawData.from_file(scan_folder / "diffraction.h5")
    probe = scan_arrays["probeGuess"][None]
    counts = raw.diff3d.astype(float)

    def misfit(dx: float, dy: float) -> float:
        model = predicted_amplitudes(raw.objectGuess, probe, raw.xcoords + dx, raw.ycoords + dy) ** 2
        return float(np.mean((counts - model) ** 2 / (model + 1)))

    elsewhere = [misfit(*shift) for shift in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))]
    assert misfit(0, 0) < 0.9 * min(elsewhere)


def test_floats_of_ptychodus_are_counts(scan_folder, scan_arrays):
    made = read_diffraction(scan_folder / "diffraction.h5")
    write_diffraction(scan_folder / "diffraction.h5", replace(made, patterns=made.patterns.astype(float)))
    assert RawData.from_file(scan_folder / "diffraction.h5").diffraction_unit == "counts"


def test_patterns_are_paired_by_scan_index(product):
    """Two positions of one index are averaged, a gap is interpolated, what lies outside has no place."""
    few = replace(
        product,
        indexes=np.array([7, 3, 3, 5]),
        x_m=np.array([70.0, 20.0, 40.0, 50.0]),
        y_m=np.array([0.0, 1.0, 3.0, 0.0]),
        photon_counts=None,
    )
    rows, x_m, y_m = paired(np.array([2, 3, 4, 7, 9, 5]), few)
    np.testing.assert_array_equal(rows, [1, 2, 3, 5])
    np.testing.assert_allclose(x_m, [30, 40, 70, 50])
    np.testing.assert_allclose(y_m, [2, 1, 0, 0])
    with pytest.raises(DataError, match="numbered 20 to 21, positions 3 to 7"):
        paired(np.array([20, 21]), few)


def test_what_a_scan_cannot_be(scan_folder, product, tmp_path):
    path = scan_folder / "product.h5"
    write_product(path, replace(product, metadata=replace(product.metadata, far_field=False)))
    with pytest.raises(DataError, match="near field"):
        RawData.from_file(path)
    path.unlink()
    with pytest.raises(MissingFileError, match=r"put its product beside it as product\.h5"):
        RawData.from_file(scan_folder / "diffraction.h5")
    with h5py.File(tmp_path / "other.h5", "w") as archive:
        archive["something"] = np.ones(3)
    with pytest.raises(
        DataError, match=r"layout that is not known; name its places.*; it holds /something \(3,\);"
    ):
        RawData.from_file(tmp_path / "other.h5")
    with pytest.raises(InputError, match="can only be read"):
        write_scan(tmp_path / "scan.h5", {})


def test_training_data_exported_as_hdf5(scan_arrays, tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as archive:
        for key, values in {
            "patterns": scan_arrays["diff3d"],
            "bad_pixels": np.zeros((32, 32), bool),
            "probe": scan_arrays["probeGuess"][None],
            "object": scan_arrays["objectGuess"],
            "probe_position_x_px": scan_arrays["xcoords"] - 0.5,
            "probe_position_y_px": scan_arrays["ycoords"] - 0.5,
            "object_pixel_width_m": 8e-9,
            "object_pixel_height_m": 9e-9,
            "detector_object_distance_m": 0.9,
            "photon_energy_eV": 8800.0,
        }.items():
            archive[key] = values
    raw = RawData.from_file(tmp_path / "t.h5")
    np.testing.assert_array_equal(raw.xcoords, scan_arrays["xcoords"])
    made = product_of_image(
        tmp_path / "t.h5", raw.objectGuess, (0, 0), raw.probe_modes, raw.positions_px, [1.0]
    )
    np.testing.assert_allclose(made.frame.to_pixels(made.x_m, made.y_m, 32), raw.positions_px, atol=1e-9)
    assert made.metadata.photon_energy_ev == 8800.0 and made.frame.pixel_xy_m == PIXEL


# ------------------------------------------------------------------------------------ images


def test_an_image_lies_where_its_scan_was(scan_folder, scan_arrays):
    """A canvas with another corner, as a product: its frame puts every position on the same object pixel."""
    raw = RawData.from_file(scan_folder / "diffraction.h5")
    image = np.ascontiguousarray(raw.objectGuess[3:-4, 5:])
    made = product_of_image(scan_folder / "diffraction.h5", image, (5, 3), raw.probe_modes, raw.positions_px)
    on_image = made.frame.to_pixels(made.x_m, made.y_m, 32)
    np.testing.assert_allclose(on_image, raw.positions_px - [5, 3], atol=1e-6)
    assert made.metadata.name == "star" and made.metadata.photon_energy_ev == 8800.0


def test_a_product_of_a_scan_without_geometry_is_refused_and_names_what_is_missing(make_scan, tmp_path):
    raw = make_scan()
    raw.to_file(tmp_path / "scan.npz")
    words = (raw.objectGuess, (1, 2), raw.probe_modes, raw.positions_px)
    with pytest.raises(
        DataError, match="needs energy_eV.*distance_m and detector_pixel_size_m.*ptycho import"
    ):
        product_of_image(tmp_path / "scan.npz", *words)
    only_pixel = Geometry.of_settings({"object_pixel_size_m": 1e-8, "energy_eV": 8000.0})
    with pytest.raises(DataError, match="needs distance_m, which"):
        product_of_image(tmp_path / "scan.npz", *words, geometry=only_pixel)
    electrons = Geometry.of_settings({"voltage_V": 80e3, "angular_pixel_size_rad": 1e-3})
    with pytest.raises(DataError, match="no place for electrons"):
        product_of_image(tmp_path / "scan.npz", *words, geometry=electrons)


def test_an_npz_scan_may_say_its_geometry(scan_arrays, tmp_path, caplog):
    said = {"detector_distance_m": 2.0, "photon_energy_eV": 10000.0, "detector_pixel_size_m": 50e-6}
    np.savez(tmp_path / "scan.npz", **scan_arrays, **said)
    raw = RawData.from_file(tmp_path / "scan.npz")
    made = product_of_image(tmp_path / "scan.npz", raw.objectGuess, (0, 0), raw.probe_modes, raw.positions_px)
    assert made.frame.pixel_xy_m[0] == pytest.approx(far_field_pixel_m(10000.0, 2.0, 32, 50e-6))
    assert caplog.text == "" and made.metadata.comments == ""
