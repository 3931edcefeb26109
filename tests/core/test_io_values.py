"""Files by the byte: renames, checksums, rows in any order, frames off the centre, names of earlier logs."""

from __future__ import annotations

import errno
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptycho.errors import ConfigError, DataError, RunError
from ptycho.io import resources
from ptycho.io.aside import earlier_name
from ptycho.io.atomic import atomic_write
from ptycho.io.lazy import LazyPatterns, NotByRows, as_lazy
from ptycho.io.lazy_files import npz_patterns
from ptycho.io.npz import open_npz, read_npz, write_npz
from ptycho.io.ptychodus_diffraction import Diffraction, read_diffraction, write_diffraction
from ptycho.io.ptychodus_frame import ObjectFrame, centre_offset_px, far_field_pixel_m
from ptycho.io.ptychodus_hdf5 import open_hdf5
from ptycho.io.ptychodus_product import Metadata, Product, read_product, write_product
from ptycho.io.ptychodus_scan import paired, read_ptychodus_scan, scan_arrays
from ptycho.io.registry import read_scan
from ptycho.io.scratch import ScratchArray, goes_to_disk

# writing


def test_a_file_is_replaced_by_a_rename_not_written_over(tmp_path):
    """Another name of the old file keeps the old bytes, as a reader that holds it open does."""
    path, other = tmp_path / "a.json", tmp_path / "link.json"
    path.write_text("old")
    os.link(path, other)
    with atomic_write(path) as temporary:
        assert temporary.parent == tmp_path and temporary != path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert (path.read_text(), other.read_text()) == ("new", "old")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "link.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_called_full_and_leaves_nothing(tmp_path, code):

    def write() -> None:
        with atomic_write(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            raise OSError(code, os.strerror(code))

    with pytest.raises(RunError, match="the disk is full"):
        write()
    assert not list(tmp_path.iterdir())


def test_an_earlier_file_gets_a_number_above_all_that_are_there(tmp_path):
    path = tmp_path / "metrics.csv"
    assert earlier_name(path).name == "metrics.1.csv"
    for number in (1, 2, 3):
        (tmp_path / f"metrics.{number}.csv").write_text(str(number))
    assert earlier_name(path).name == "metrics.4.csv"
    (tmp_path / "metrics.1.csv").unlink()
    assert earlier_name(path).name == "metrics.4.csv"
    (tmp_path / "metrics.10.csv").write_text("")
    (tmp_path / "metrics.x.csv").write_text("")
    (tmp_path / "other.77.csv").write_text("")
    assert earlier_name(path).name == "metrics.11.csv"
    (tmp_path / "earlier.2").mkdir()
    assert earlier_name(tmp_path / "earlier").name == "earlier.3"
    assert earlier_name(tmp_path / "nowhere" / "a.log").name == "a.1.log"


# NPZ


def test_a_pickled_array_is_never_opened(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, made=np.array([{"a": 1}], dtype=object))
    with open_npz(path) as archive, pytest.raises(ValueError, match="allow_pickle"):
        _ = archive["made"]


def test_the_older_key_counts_only_where_the_newer_is_missing(scan_arrays, tmp_path):
    older = {**scan_arrays, "diffraction": scan_arrays["diff3d"] + 1}
    write_npz(tmp_path / "both.npz", older)
    assert (read_npz(tmp_path / "both.npz")["diff3d"] == scan_arrays["diff3d"]).all()
    older.pop("diff3d")
    write_npz(tmp_path / "older.npz", older)
    assert (read_npz(tmp_path / "older.npz")["diff3d"] == older["diffraction"]).all()


def member(path: Path, data: bytes, *, packed: bool, extra: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        info = zipfile.ZipInfo("diff3d.npy")
        info.compress_type = archive.compression
        info.extra = extra
        archive.writestr(info, data)
    return path


def npy(array: np.ndarray) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


PATTERNS = np.arange(7 * 4 * 4, dtype=np.float32).reshape(7, 4, 4)


@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_read_behind_every_header(tmp_path, packed):
    extra = b"\xff\xee\x04\x00abcd"  # a field of the zip header, as other writers leave them
    path = member(tmp_path / "a.npz", npy(PATTERNS), packed=packed, extra=extra)
    made = npz_patterns(path, "diff3d", tmp_path)
    assert (made[:] == PATTERNS).all() and (made[3] == PATTERNS[3]).all()


@pytest.mark.parametrize("packed", [False, True])
def test_a_changed_byte_or_another_length_is_damage(tmp_path, packed):
    path = member(tmp_path / "a.npz", npy(PATTERNS), packed=False)
    data = bytearray(path.read_bytes())
    at = data.index(npy(PATTERNS)[128:]) + 40
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        npz_patterns(path, "diff3d")
    for wrong in (npy(PATTERNS)[:-4], npy(PATTERNS) + b"1234"):
        path = member(tmp_path / "b.npz", wrong, packed=True)
        with pytest.raises(DataError, match="damaged"):
            npz_patterns(path, "diff3d", tmp_path)


def test_fortran_order_cannot_be_read_by_rows(tmp_path):
    path = member(tmp_path / "a.npz", npy(np.asfortranarray(PATTERNS)), packed=False)
    with pytest.raises(NotByRows, match="Fortran order"):
        npz_patterns(path, "diff3d")


# rows


def test_rows_in_any_order_selection_and_chunk():
    lazy = as_lazy(PATTERNS)
    for rows in ([6, 2, 4], [1, 1, 0], [0, 6], [5, 4, 3], [2, 3, 6], [0, 1, 2]):
        assert (lazy[np.array(rows)] == PATTERNS[rows]).all()
    far = LazyPatterns(lambda a, b: np.arange(a, b)[:, None], (1000, 1), np.int64)
    rows = np.array([3, 4, 900, 17, 16, 901])
    assert far[rows][:, 0].tolist() == rows.tolist()
    picked = lazy.select(np.array([5, 1, 3])).map(lambda part: part * 2, np.float32)
    assert (picked[:] == 2 * PATTERNS[[5, 1, 3]]).all() and len(picked) == 3
    chunks = list(lazy.chunks(3 * 64))
    assert [begin for begin, _ in chunks] == [0, 3, 6]
    assert (np.concatenate([chunk for _, chunk in chunks]) == PATTERNS).all()
    assert [len(list(lazy.chunks(n))) for n in (1, 64, 10_000)] == [7, 7, 1]


def test_scratch_rows_of_any_dtype(tmp_path):
    for dtype in (np.complex64, np.uint16, np.float64):
        array = ScratchArray((5, 2, 3), dtype, tmp_path)
        wanted = np.arange(30).reshape(5, 2, 3).astype(dtype)
        for row in (3, 0, 4, 1, 2):
            array.write(row, wanted[row : row + 1])
        assert (array.map() == wanted).all()
        with pytest.raises(ValueError, match="rows 4 to 6"):
            array.write(4, wanted[:2])


def test_where_patterns_are_kept(monkeypatch):
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: 1000)
    assert [goes_to_disk(n, "auto") for n in (400, 500, 501, 900)] == [False, False, True, True]
    assert goes_to_disk(1, "disk") and not goes_to_disk(10**9, "memory")
    with pytest.raises(ConfigError, match="patterns = 'tape'"):
        goes_to_disk(1, "tape")
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: None)
    assert not goes_to_disk(10**12, "auto")


def test_memory_is_the_least_of_machine_and_limits(monkeypatch):
    monkeypatch.setattr(resources, "_machine", lambda: 5000)
    monkeypatch.setattr(resources, "_limits", lambda: iter((9000, 3000)))
    assert resources.available_memory_bytes() == 3000
    monkeypatch.setattr(resources, "_limits", lambda: iter((-7,)))
    assert resources.available_memory_bytes() == 0
    monkeypatch.setattr(resources, "_limits", lambda: iter(()))
    assert resources.available_memory_bytes() == 5000


# ptychodus


def test_frame_of_a_wide_object_off_the_centre():
    """Object of 7 x 10 px: its centre is pixel (4.5, 3.0); positions are of pixel (N//2, N//2) of a patch."""
    frame = ObjectFrame((7, 10), (2.0, 0.5), (100.0, -50.0))
    for N, half in ((8, 0.5), (9, 0.0)):
        assert centre_offset_px(N) == half
        made = frame.to_pixels(np.array([100.0, 104.0]), np.array([-50.0, -51.0]), N)
        assert made.tolist() == [[4.5 + half, 3.0 + half], [6.5 + half, 1.0 + half]]
        assert frame.to_metres(made, N) == pytest.approx(np.array([[100.0, -50.0], [104.0, -51.0]]))
    placed = frame.placed((4, 5), (3.0, 2.0))
    # its middle is pixel (2, 1.5) of its own, (5, 3.5) of the object: (0.5, 0.5) px from the object's middle
    assert placed.shape == (4, 5) and placed.center_xy_m == pytest.approx((101.0, -49.75))
    assert far_field_pixel_m(8000.0, 0.75, 64, 75e-6) == pytest.approx(
        1.549802480e-10 * 0.75 / (64 * 75e-6), rel=1e-6
    )


def product(**changes) -> Product:
    frame = ObjectFrame((40, 44), (8e-9, 8e-9))
    values = {
        "object": np.ones((40, 44), np.complex64), "frame": frame, "probe": np.ones((32, 32), np.complex64),
        "indexes": np.array([4, 2, 4, 7]), "x_m": np.array([2.0, 1.0, 4.0, 9.0]), "y_m": np.zeros(4),
        "metadata": Metadata("a", "", 0.7, 8000.0),
    }  # fmt: skip
    return Product(**{**values, **changes})


def test_positions_are_paired_by_their_numbers():
    """Repeated numbers are averaged, missing ones interpolated, patterns before and after left out."""
    rows, x, _ = paired(np.array([0, 2, 3, 4, 7, 8]), product())
    assert rows.tolist() == [1, 2, 3, 4] and x.tolist() == [1.0, 2.0, 3.0, 9.0]


def test_near_field_is_refused():
    diffraction = Diffraction(
        np.ones((4, 32, 32), np.uint16), np.array([2, 3, 4, 7]), np.zeros((32, 32), bool), (1e-6, 1e-6)
    )
    assert len(scan_arrays(diffraction, product())["xcoords"]) == 4
    with pytest.raises(DataError, match="near field"):
        scan_arrays(diffraction, product(metadata=Metadata("a", "", 0.7, 8000.0, far_field=False)))


def test_detector_pixel_and_losses_come_back_as_written(tmp_path):
    made = Diffraction(
        np.ones((2, 4, 6), np.uint16), np.arange(2), np.zeros((4, 6), bool), (3e-6, 5e-6), np.ones(2)
    )
    write_diffraction(tmp_path / "d.h5", made)
    assert read_diffraction(tmp_path / "d.h5").detector_pixel_xy_m == (3e-6, 5e-6)
    kept = product(loss_epochs=np.array([2, 4]), loss_values=np.array([1.0, 0.5]))
    write_product(tmp_path / "p.h5", kept)
    assert read_product(tmp_path / "p.h5").loss_epochs.tolist() == [2, 4]
    with h5py.File(tmp_path / "p.h5", "r+") as archive:
        archive.attrs["probe_energy_eV"] = archive.attrs["photon_energy_eV"]
        del archive.attrs["photon_energy_eV"]
    assert read_product(tmp_path / "p.h5").metadata.photon_energy_ev == 8000.0


def test_a_training_file_of_ptychodus_counts_from_the_middle_of_the_pattern(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as archive:
        archive["probe_position_x_px"], archive["probe_position_y_px"] = np.arange(3.0), np.arange(3.0) + 10
        archive["patterns"] = np.ones((3, 32, 32), np.uint16)
        archive["probe"], archive["object"] = np.ones((32, 32), complex), np.ones((60, 60), complex)
        archive["bad_pixels"] = np.zeros((32, 32), bool)
    made = read_ptychodus_scan(tmp_path / "t.h5")
    assert made["xcoords"].tolist() == [0.5, 1.5, 2.5] and made["ycoords"].tolist() == [10.5, 11.5, 12.5]


def test_files_are_known_by_their_first_bytes_and_any_case(tmp_path, scan_arrays):
    (tmp_path / "a.h5").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    with pytest.raises(DataError, match="is not an HDF5 file"), open_hdf5(tmp_path / "a.h5"):
        pass
    write_npz(tmp_path / "scan.npz", scan_arrays)
    (tmp_path / "scan.npz").rename(tmp_path / "SCAN.NPZ")
    assert len(read_scan(tmp_path / "SCAN.NPZ")["xcoords"]) == 30
    assert replace(product(), loss_values=None).loss_epochs.shape == (0,)
