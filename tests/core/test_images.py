"""Every kind of image file that is written is read again as the same image, in the same place and size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.writing import check_writes, kinds_of, start_of, write_kinds
from ptycho.errors import DataError, InputError, MissingFileError
from ptycho.io.geometry import Geometry
from ptycho.io.images import Image, read_image
from ptycho.io.npz import write_npz
from ptycho.report.products import open_product

KNOWN = Geometry.of_settings({"energy_eV": 8800.0, "distance_m": 2.0, "detector_pixel_size_m": 75e-6})
FILES = {
    "cxi": "reconstruction.cxi", "tiff": "reconstruction_amplitude.tif", "product": "product.h5",
    "ptyr": "reconstruction.ptyr",
}  # fmt: skip


@pytest.fixture
def raw(make_scan):
    scan = make_scan()
    scan.geometry = KNOWN
    return scan


@pytest.fixture
def image(raw) -> Image:
    rng = np.random.default_rng(3)
    obj = (rng.random((50, 61)) + 0.5) * np.exp(1j * rng.uniform(-1, 1, (50, 61)))
    seen = np.ones(obj.shape, np.float32)
    seen[:3] = 0
    size = raw.object_pixel_size_m
    return Image(obj.astype(np.complex64), raw.probe_modes, (-3.0, 4.0), raw.positions_px, seen, size)


@pytest.mark.parametrize("kind", FILES)
def test_what_is_written_is_read_again(kind: str, raw, image: Image, tmp_path: Path):
    said: list[str] = []
    write_kinds([kind], tmp_path, image, raw, tmp_path / "scan.npz", said.append)
    again = read_image(tmp_path / FILES[kind])
    np.testing.assert_allclose(again.object, image.object, atol=1e-6)
    assert again.object_pixel_size_m == pytest.approx(image.object_pixel_size_m, rel=1e-9)
    assert len(said) == 1
    if kind != "tiff":
        np.testing.assert_array_equal(again.probe, image.probe)
        start = start_of(tmp_path / FILES[kind], raw)
        assert start["initial_origin_xy"] == (-3, 4)
        np.testing.assert_allclose(start["initial_object"], image.object, atol=1e-5)
    else:
        assert again.origin_xy == image.origin_xy
    opened = open_product(tmp_path / FILES[kind])
    np.testing.assert_allclose(opened.object, image.object, atol=1e-6)


def test_tiff_says_its_resolution(raw, image: Image, tmp_path: Path):
    tifffile = pytest.importorskip("tifffile")
    write_kinds(["tiff"], tmp_path, image, raw, tmp_path / "scan.npz", lambda line: None)
    with tifffile.TiffFile(tmp_path / "reconstruction_phase.tif") as opened:
        top, below = opened.pages[0].tags["XResolution"].value
        unit = int(opened.pages[0].tags["ResolutionUnit"].value)
    assert unit == 3  # pixels a centimetre
    assert below / top * 1e-2 == pytest.approx(image.object_pixel_size_m, rel=1e-4)


def test_half_of_a_tiff_image_names_the_other_half(raw, image: Image, tmp_path: Path):
    write_kinds(["tiff"], tmp_path, image, raw, tmp_path / "scan.npz", lambda line: None)
    (tmp_path / "reconstruction_phase.tif").unlink()
    with pytest.raises(MissingFileError, match="put reconstruction_phase.tif beside it"):
        read_image(tmp_path / FILES["tiff"])


def test_what_a_file_needs_is_asked_before_the_work(make_scan, tmp_path: Path):
    scan = make_scan()
    for kind in ("product", "ptyr"):
        with pytest.raises(DataError, match="energy_eV.*distance_m.*detector_pixel_size_m"):
            check_writes([kind], scan, tmp_path / "scan.npz")
    check_writes(["npz", "cxi", "tiff"], scan, tmp_path / "scan.npz")
    with pytest.raises(InputError, match="--write png: not known; known: npz, cxi"):
        kinds_of("npz,png")


def test_a_start_of_other_pixels_is_refused(raw, image: Image, tmp_path: Path):
    write_npz(
        tmp_path / "a.npz",
        {
            "object": image.object,
            "origin_xy": np.zeros(2),
            "object_pixel_size_m": image.object_pixel_size_m * 2,
        },
    )
    with pytest.raises(DataError, match="object pixels are .* m, those of the scan"):
        start_of(tmp_path / "a.npz", raw)


def test_a_product_moved_by_a_fraction_of_a_pixel_starts_where_it_was(raw, image: Image, tmp_path: Path):
    write_kinds(["cxi"], tmp_path, image, raw, tmp_path / "scan.npz", lambda line: None)
    import h5py

    with h5py.File(tmp_path / "reconstruction.cxi", "a") as archive:
        archive["ptychopinn/positions_px"][:] -= 10.0
        archive["ptychopinn"].attrs["origin_xy"] -= 10.0
    start = start_of(tmp_path / "reconstruction.cxi", raw)
    assert start["initial_origin_xy"] == (-3, 4)


def test_a_file_without_an_image_is_named(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(b"nothing known")
    with pytest.raises(InputError, match="holds no image that is known"):
        read_image(tmp_path / "a.bin")
    np.savez(tmp_path / "a.npz", b=np.ones(3))
    with pytest.raises(DataError, match="no 'object'"):
        read_image(tmp_path / "a.npz")


def test_an_older_cxi_has_its_images_in_the_other_order(raw, image: Image, tmp_path: Path):
    """Until November 2026 the object was image 1; the titles tell."""
    import h5py

    with h5py.File(tmp_path / "a.cxi", "w") as archive:
        archive["cxi_version"] = 160
        for number, title, values in ((1, "object", image.object), (2, "probe", image.probe)):
            archive[f"entry_1/image_{number}/data"] = values
            archive[f"entry_1/image_{number}/title"] = title
    again = read_image(tmp_path / "a.cxi")
    np.testing.assert_array_equal(again.object, image.object)
    np.testing.assert_array_equal(again.probe, image.probe)
