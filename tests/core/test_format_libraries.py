"""What tifffile, zarr, hdf5plugin, scipy and h5py themselves write is read as the arrays they were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.io.formats.registry import find, format_of
from ptycho.io.importing import ImportOptions, prepare

hdf5plugin = pytest.importorskip("hdf5plugin")
PIXEL_M, WAVELENGTH_M = 30e-9, 1.4e-10
CODECS = {
    "bitshuffle lz4": hdf5plugin.Bitshuffle(cname="lz4"),
    "bitshuffle zstd": hdf5plugin.Bitshuffle(cname="zstd"),
    "lz4": hdf5plugin.LZ4(), "zstd": hdf5plugin.Zstd(), "blosc": hdf5plugin.Blosc(),
    "blosc2": hdf5plugin.Blosc2(), "bzip2": hdf5plugin.BZip2(), "gzip": {"compression": "gzip"},
    "lzf": {"compression": "lzf"}, "shuffle": {"shuffle": True, "compression": "gzip"},
}  # fmt: skip


@pytest.fixture
def frames(scan_arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Thirty frames of counts (M, N, N) uint32."""
    return scan_arrays["diff3d"].astype(np.uint32)


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec(codec: str, frames: np.ndarray, tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as archive:
        archive.create_dataset("d", data=frames, chunks=(1, *frames.shape[1:]), **dict(CODECS[codec]))
    found = find(tmp_path / "a.h5", {"frames": "d"})
    assert found.frames is not None
    np.testing.assert_array_equal(found.frames[:], frames)
    assert found.codec.split(" + ")[-1] == codec.split()[0] or "gzip" in found.codec


def test_a_damaged_chunk_is_named_by_its_frames(frames: np.ndarray, tmp_path: Path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as archive:
        archive.create_dataset("d", data=frames, chunks=(1, *frames.shape[1:]), compression="gzip")
        where = archive["d"].id.get_chunk_info(4)
    with path.open("r+b") as stream:
        stream.seek(where.byte_offset)
        stream.write(b"\xff" * where.size)
    found = find(path, {"frames": "d"}).frames
    assert found is not None
    np.testing.assert_array_equal(found[0:4], frames[:4])
    with pytest.raises(DataError, match=r"a\.h5: frames 4 to 4 of 'd' cannot be read"):
        found[4:5]


@pytest.mark.parametrize("library", ["latest", "earliest"])
def test_a_virtual_dataset_of_several_files_and_a_grid(library: str, frames: np.ndarray, tmp_path: Path):
    layout = h5py.VirtualLayout((3, 10, *frames.shape[1:]), frames.dtype)
    for row in range(3):
        with h5py.File(tmp_path / f"row{row}.h5", "w", libver=library) as archive:
            archive["d"] = frames[10 * row : 10 * row + 10]
        layout[row] = h5py.VirtualSource(f"row{row}.h5", "d", shape=(10, *frames.shape[1:]))
    with h5py.File(tmp_path / "master.h5", "w", libver="latest") as archive:
        archive.create_virtual_dataset("grid", layout)
    found = find(tmp_path / "master.h5", {"frames": "grid"})
    assert found.grid == (3, 10) and found.frames is not None
    np.testing.assert_array_equal(found.frames[:], frames)
    np.testing.assert_array_equal(found.frames[np.array([2, 11, 29])], frames[[2, 11, 29]])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_stacks_and_folders(compression: str | None, frames: np.ndarray, tmp_path: Path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", frames, compression=compression)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(frames):  # no leading zeros: 10 comes after 9
        tifffile.imwrite(folder / f"f{number}.tif", frame, compression=compression)
    for path, name in ((tmp_path / "a.tif", "tiff"), (folder, "tiffs")):
        assert format_of(path).name == name
        found = find(path)
        assert found.frames is not None
        np.testing.assert_array_equal(found.frames[:], frames)
        np.testing.assert_array_equal(found.frames[7], frames[7])


def test_a_tiff_written_by_imagej_and_a_grid(frames: np.ndarray, tmp_path: Path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", frames.astype(np.uint16), imagej=True)
    tifffile.imwrite(tmp_path / "b.tif", frames.reshape(5, 6, *frames.shape[1:]))
    for name, grid in (("a.tif", None), ("b.tif", (5, 6))):
        found = find(tmp_path / name)
        assert found.frames is not None and found.grid == grid
        np.testing.assert_array_equal(found.frames[3:9], frames[3:9])


@pytest.mark.parametrize("form", [2, 3])
def test_zarr_arrays_and_groups(form: Any, frames: np.ndarray, tmp_path: Path):
    zarr = pytest.importorskip("zarr")
    one = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=frames.shape, dtype="uint32", chunks=(4, 32, 32), zarr_format=form
    )
    one[:] = frames
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w", zarr_format=form)
    group.create_array("det", shape=frames.shape, dtype="uint32")[:] = frames
    for name, paths in (("a.zarr", {}), ("g.zarr", {}), ("g.zarr", {"frames": "det"})):
        found = find(tmp_path / name, paths)
        assert found.frames is not None
        np.testing.assert_array_equal(found.frames[:], frames)
    with pytest.raises(DataError, match="no array 'gone'; it holds det"):
        find(tmp_path / "g.zarr", {"frames": "gone"})


def test_matlab_of_both_kinds(frames: np.ndarray, scan_arrays: dict[str, np.ndarray], tmp_path: Path):
    from scipy.io import savemat

    x, y = scan_arrays["xcoords"] * PIXEL_M, scan_arrays["ycoords"] * PIXEL_M
    arrays = {"ppX": x, "ppY": y, "lambda": WAVELENGTH_M, "dx": PIXEL_M}
    savemat(tmp_path / "a.mat", {"dp": np.moveaxis(frames, 0, -1), **arrays}, do_compression=True)
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as archive:  # MATLAB stores axes in reverse
        archive["dp"] = frames.swapaxes(-1, -2)
        archive["dp"].attrs["MATLAB_class"] = np.bytes_("uint32")
        for name, values in arrays.items():
            archive[name] = np.atleast_2d(values)
    with (tmp_path / "b.mat").open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    for name, kind in (("a.mat", "matlab"), ("b.mat", "shelves")):
        assert format_of(tmp_path / name).name == kind
        made = prepare(find(tmp_path / name), ImportOptions())
        np.testing.assert_array_equal(made.frames[:], frames)
        shift = made.positions_px - np.stack([scan_arrays["xcoords"], scan_arrays["ycoords"]], axis=1)
        np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-6)
        assert made.geometry.object_pixel_size_m(32) == pytest.approx(PIXEL_M)


def test_npy_is_read_by_rows_and_never_unpickled(frames: np.ndarray, tmp_path: Path):
    np.save(tmp_path / "a.npy", frames)
    found = find(tmp_path / "a.npy")
    assert found.frames is not None
    np.testing.assert_array_equal(found.frames[5:8], frames[5:8])
    np.save(tmp_path / "b.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="holds Python objects"):
        find(tmp_path / "b.npy")
