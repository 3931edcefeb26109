"""Files laid out as other programs write them become the same scan as the arrays they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scan_layouts import (
    DETECTOR_M,
    DISTANCE_M,
    PIXEL_M,
    N,
    cxi,
    eiger,
    in_metres,
    nexus,
    ptylab,
    shelves,
)  # fmt: skip

from ptycho.errors import DataError, InputError
from ptycho.io.formats.registry import find, format_of, formats
from ptycho.io.geometry import Geometry
from ptycho.io.hdf5_read import links_anywhere
from ptycho.io.importing import ImportOptions, prepare
from ptycho.scan.raw_data import RawData


@pytest.fixture
def scan(scan_arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The arrays of a tiny scan and its positions in metres."""
    return in_metres(scan_arrays)


def test_a_mask_of_cxi_marks_bad_pixels_and_not_those_with_signal(tmp_path: Path, scan: dict[str, Any]):
    made = prepare(find(cxi(tmp_path / "a.cxi", scan)), ImportOptions())
    assert made.bad_pixels is not None
    assert [tuple(place) for place in np.argwhere(made.bad_pixels)] == [(3, 4)]
    assert not made.frames[:][:, 3, 4].any()


def test_the_scan_opens_wherever_a_scan_does(tmp_path: Path, scan: dict[str, Any]):
    raw = RawData.from_file(cxi(tmp_path / "a.cxi", scan))
    assert raw.object_pixel_size_m == pytest.approx(PIXEL_M, rel=1e-6)
    assert raw.diffraction_unit == "counts"


def test_what_import_writes_is_the_same_scan_again(tmp_path: Path, scan: dict[str, Any]):
    from ptycho.io.cxi import write_scan_cxi

    made = prepare(find(ptylab(tmp_path / "a.h5", scan)), ImportOptions())
    write_scan_cxi(tmp_path / "b.h5", made)
    again = prepare(find(tmp_path / "b.h5"), ImportOptions())
    np.testing.assert_array_equal(again.frames[:], made.frames[:])
    np.testing.assert_array_equal(again.positions_px, made.positions_px)
    assert again.geometry == made.geometry


def test_a_dead_link_is_named(tmp_path: Path, scan: dict[str, Any]):
    master = eiger(tmp_path / "x.h5", scan)
    (tmp_path / "s_data_000002.h5").unlink()
    with pytest.raises(DataError, match="s_data_000002.h5.*not there: copy it beside"):
        find(master)


def test_a_link_out_of_the_folder_needs_leave(tmp_path: Path, scan: dict[str, Any]):
    inside = tmp_path / "in"
    inside.mkdir()
    with h5py.File(tmp_path / "far.h5", "w") as archive:
        archive["d"] = scan["diff3d"]
    with h5py.File(inside / "a.h5", "w") as archive:
        archive["frames"] = h5py.ExternalLink("../far.h5", "/d")
    with pytest.raises(DataError, match="outside the folder.*path.links=anywhere"):
        find(inside / "a.h5", {"frames": "frames"})


def test_a_virtual_dataset_without_its_source_is_named(tmp_path: Path, scan: dict[str, Any]):
    layout = h5py.VirtualLayout(scan["diff3d"].shape, scan["diff3d"].dtype)
    layout[:] = h5py.VirtualSource("gone.h5", "d", shape=scan["diff3d"].shape)
    with h5py.File(tmp_path / "v.h5", "w") as archive:
        archive.create_virtual_dataset("frames", layout)
    with pytest.raises(DataError, match="gone.h5.*not there"):
        find(tmp_path / "v.h5", {"frames": "frames"})


def test_an_unknown_layout_asks_for_its_places(tmp_path: Path, scan: dict[str, Any]):
    with h5py.File(tmp_path / "own.h5", "w") as archive:
        archive["beamline/det"], archive["motors/x"], archive["motors/y"] = (
            scan["diff3d"],
            *scan["places_m"].T,
        )
        archive["motors/x"].attrs["units"] = "mm"
        archive["motors/x"][:] *= 1e3
    with pytest.raises(DataError, match="path.frames"):
        find(tmp_path / "own.h5")
    places = {"frames": "beamline/det", "positions_x": "motors/x", "positions_y": "motors/y"}
    made = prepare(
        find(tmp_path / "own.h5", places),
        ImportOptions(geometry=Geometry.of_settings({"object_pixel_size_m": PIXEL_M})),
    )
    difference = made.positions_px - scan["places_m"] / PIXEL_M
    np.testing.assert_allclose(difference, np.broadcast_to(difference[0], difference.shape), atol=1e-6)


def test_missing_geometry_is_named_and_never_invented(tmp_path: Path, scan: dict[str, Any]):
    path = ptylab(tmp_path / "a.h5", scan)
    with h5py.File(path, "a") as archive:
        del archive["zo"]
    with pytest.raises(DataError, match="distance_m missing"):
        prepare(find(path), ImportOptions())


@pytest.mark.parametrize(
    "text, unit",
    [("x_um,y_um\n1,2\n3,4\n", 1e-6), ("# x y\n1 2\n3 4\n", 1.0), ("x (mm)\ty (mm)\n1\t2\n3\t4\n", 1e-3)],
)
def test_positions_in_text_say_their_unit(text: str, unit: float, tmp_path: Path):
    (tmp_path / "p.csv").write_text(text)
    found = find(tmp_path / "p.csv")
    assert found.positions_m is not None
    np.testing.assert_allclose(found.positions_m, np.array([[1, 2], [3, 4]]) * unit)


def test_frames_without_a_position_are_left_out_by_number(tmp_path: Path, scan: dict[str, Any]):
    found = find(ptylab(tmp_path / "a.h5", scan))
    found.frame_index = np.arange(len(scan["diff3d"]))
    kept = np.array([0, 2, 5, 5])
    found.position_index, found.positions_m = kept, scan["places_m"][kept]
    made = prepare(found, ImportOptions())
    assert made.rows.tolist() == [0, 2, 5]
    assert any("left out" in note for note in made.notes)
    assert any("several times" in note for note in made.notes)


def test_counts_of_frames_and_positions_must_agree(tmp_path: Path, scan: dict[str, Any]):
    found = find(ptylab(tmp_path / "a.h5", scan))
    found.positions_m = scan["places_m"][:-1]
    with pytest.raises(DataError, match="30 frames but 29 positions"):
        prepare(found, ImportOptions())


def test_a_larger_detector_is_cropped_around_the_beam_and_keeps_its_geometry(
    tmp_path: Path, scan: dict[str, Any]
):
    wide = np.zeros((len(scan["diff3d"]), 50, 44), np.uint16)
    wide[:, 7 : 7 + N, 5 : 5 + N] = scan["diff3d"]
    path = ptylab(tmp_path / "a.h5", {**scan, "diff3d": wide})
    options = ImportOptions(N=N, centre_row_px=7 + N // 2, centre_column_px=5 + N // 2)
    made = prepare(find(path), options)
    np.testing.assert_array_equal(made.frames[:], scan["diff3d"])
    assert made.geometry.object_pixel_size_m(N) == pytest.approx(PIXEL_M, rel=1e-6)
    larger = prepare(find(path), ImportOptions(N=64, centre_row_px=23.0, centre_column_px=21.0))
    assert larger.bad_pixels is not None and larger.bad_pixels[0, 0]
    assert larger.geometry.object_pixel_size_m(64) == pytest.approx(PIXEL_M / 2, rel=1e-6)


def test_binning_adds_counts_and_makes_pixels_of_the_object_smaller_in_number(
    tmp_path: Path, scan: dict[str, Any]
):
    fine = np.repeat(np.repeat(scan["diff3d"], 2, axis=1), 2, axis=2).astype(np.uint16)
    path = ptylab(tmp_path / "a.h5", {**scan, "diff3d": fine})
    made = prepare(find(path), ImportOptions(bin=2, N=N, centre_row_px=float(N), centre_column_px=float(N)))
    np.testing.assert_array_equal(made.frames[:], scan["diff3d"].astype(int) * 4)
    assert made.geometry.detector_pixel_size_m == pytest.approx(2 * DETECTOR_M)


def test_dark_and_flat_frames(tmp_path: Path, scan: dict[str, Any]):
    dark, flat = np.full((N, N), 3), np.full((N, N), 2.0)
    flat[0, 0] = 0.0
    found = find(ptylab(tmp_path / "a.h5", {**scan, "diff3d": scan["diff3d"].astype(int) * 2 + 3}))
    found.dark, found.flat = dark, flat
    made = prepare(found, ImportOptions())
    np.testing.assert_allclose(made.frames[:][:, 1:, 1:], scan["diff3d"][:, 1:, 1:])
    assert made.bad_pixels is not None and made.bad_pixels[0, 0] and made.bad_pixels.sum() == 1


def test_formats_are_listed_once_each_and_an_unknown_one_is_named(tmp_path: Path):
    assert {"cxi", "nexus", "eiger", "ptyd", "ptylab", "tiff", "npy", "zarr", "hdf5"} <= set(formats())
    (tmp_path / "a.bin").write_bytes(b"nothing known")
    with pytest.raises(InputError, match="no known format"):
        format_of(tmp_path / "a.bin")
    with pytest.raises(InputError, match="'cix' is not known"):
        format_of(tmp_path / "a.bin", "cix")


def test_electrons_have_the_relativistic_wavelength():
    geometry = Geometry.of_settings({"voltage_V": 80e3, "angular_pixel_size_rad": 1e-3})
    assert geometry.wavelength_m == pytest.approx(4.1757e-12, rel=1e-4)
    assert geometry.object_pixel_size_m(100) == pytest.approx(4.1757e-11, rel=1e-4)
    assert Geometry.of_settings(geometry.as_settings()).wavelength_m == pytest.approx(geometry.wavelength_m)


def test_two_settings_that_contradict_each_other_are_refused():
    with pytest.raises(DataError, match="contradicts"):
        Geometry.of_settings({"energy_eV": 8000.0, "wavelength_m": 1e-9})


def test_a_link_on_the_way_may_not_lead_out_of_the_folder(tmp_path: Path, scan: dict[str, Any]):
    inside = tmp_path / "in"
    inside.mkdir()
    with h5py.File(tmp_path / "far.h5", "w") as archive:
        archive["g/d"] = scan["diff3d"]
    with h5py.File(inside / "a.h5", "w") as archive:
        archive["group"] = h5py.ExternalLink("../far.h5", "/g")
    with pytest.raises(DataError, match="outside the folder.*path.links=anywhere"):
        find(inside / "a.h5", {"frames": "group/d"})
    with links_anywhere(True):
        assert find(inside / "a.h5", {"frames": "group/d"}).frames is not None


def test_numbers_stored_outside_the_file_stay_beside_it(tmp_path: Path, scan: dict[str, Any]):
    inside = tmp_path / "in"
    inside.mkdir()
    values = np.ascontiguousarray(scan["diff3d"].astype(np.uint32))
    for folder in (tmp_path, inside):
        (folder / "raw.bin").write_bytes(values.tobytes())
    for name, place in (("good", "raw.bin"), ("bad", "../raw.bin"), ("gone", "none.bin")):
        with h5py.File(inside / f"{name}.h5", "w") as archive:
            archive.create_dataset("d", values.shape, values.dtype, external=[(place, 0, values.nbytes)])
    frames = find(inside / "good.h5", {"frames": "d"}).frames
    assert frames is not None and frames.shape == values.shape
    with pytest.raises(DataError, match="outside the folder"):
        find(inside / "bad.h5", {"frames": "d"})
    with pytest.raises(DataError, match="none.bin.*not there"):
        find(inside / "gone.h5", {"frames": "d"})


def test_a_dead_link_below_a_group_is_named(tmp_path: Path, scan: dict[str, Any]):
    path = nexus(tmp_path / "a.h5", scan)
    with h5py.File(path, "a") as archive:
        del archive["entry/instrument/detector/distance"]
        archive["entry/instrument/detector/distance"] = h5py.SoftLink("/gone")
    with pytest.raises(DataError, match="'distance' links to '/gone', which is not in the file"):
        find(path)


def test_what_the_user_says_wins_over_what_the_file_measured(tmp_path: Path, scan: dict[str, Any]):
    path = shelves(tmp_path / "x.h5", scan)
    with_pixel = Geometry.of_settings({"object_pixel_size_m": 2 * PIXEL_M})
    assert prepare(find(path), ImportOptions(geometry=with_pixel)).geometry.object_pixel_size_m(
        N
    ) == pytest.approx(2 * PIXEL_M)
    rest = {"distance_m": DISTANCE_M, "detector_pixel_size_m": DETECTOR_M / 2}
    computed = prepare(find(path), ImportOptions(geometry=Geometry.of_settings(rest))).geometry
    assert computed.object_pixel_size_m(N) == pytest.approx(2 * PIXEL_M)


def test_a_measured_object_pixel_follows_a_crop_of_the_detector(tmp_path: Path, scan: dict[str, Any]):
    centre = {"centre_row_px": float(N // 2), "centre_column_px": float(N // 2)}
    made = prepare(find(shelves(tmp_path / "x.h5", scan)), ImportOptions(N=N // 2, **centre))
    assert made.geometry.object_pixel_size_m(N // 2) == pytest.approx(2 * PIXEL_M)
    binned = prepare(find(tmp_path / "scan_dp.hdf5"), ImportOptions(bin=2, **centre))
    assert binned.geometry.object_pixel_size_m(N // 2) == pytest.approx(PIXEL_M)


def test_an_object_of_other_pixels_is_left_out_and_said(tmp_path: Path, scan: dict[str, Any]):
    found = find(ptylab(tmp_path / "a.h5", scan))
    found.object = scan["objectGuess"]
    made = prepare(found, ImportOptions())
    assert made.object is None and any("object is left out" in note for note in made.notes)


def test_amplitude_stays_amplitude_on_the_way_through_an_import(tmp_path: Path, scan: dict[str, Any]):
    from ptycho.io.cxi import write_scan_cxi

    arrays = {key: value for key, value in scan.items() if key != "places_m"}
    np.savez(tmp_path / "a.npz", **{**arrays, "diff3d": np.sqrt(scan["diff3d"]).astype(np.float32)})
    write_scan_cxi(tmp_path / "b.h5", prepare(find(tmp_path / "a.npz"), ImportOptions()))
    for name in ("a.npz", "b.h5"):
        assert RawData.from_file(tmp_path / name).diffraction_unit == "amplitude"
