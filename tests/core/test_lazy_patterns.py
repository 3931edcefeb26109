"""Patterns that stay on disk read as those in memory do, to the bit, and nothing is left behind of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptycho.errors import ConfigError, DataError, InputError
from ptycho.io import resources, scratch
from ptycho.io.lazy import LazyPatterns, as_lazy
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.normalization import has_integer_squares, mean_power, photons_from_data
from ptycho.scan.raw_data import RawData
from ptycho.scan.report import describe_scan
from ptycho.scan.units import to_amplitude

BAD = np.zeros((32, 32), bool)
BAD[3, 4] = True


def as_hdf5(arrays: dict[str, np.ndarray], path: Path, **options: object) -> Path:
    """The scan as training data that ptychodus exports."""
    with h5py.File(path, "w") as archive:
        archive.create_dataset("patterns", data=arrays["diff3d"], **options)
        archive["probe_position_x_px"] = arrays["xcoords"]
        archive["probe_position_y_px"] = arrays["ycoords"]
        archive["probe"], archive["object"] = arrays["probeGuess"], arrays["objectGuess"]
        archive["bad_pixels"] = np.zeros(arrays["diff3d"].shape[1:], bool)
    return path


FILES = {
    "contiguous.h5": lambda arrays, path: as_hdf5(arrays, path),
    "chunked.h5": lambda arrays, path: as_hdf5(arrays, path, chunks=(4, 32, 32), compression="lzf"),
    "stored.npz": lambda arrays, path: np.savez(path, **arrays),
    "deflated.npz": lambda arrays, path: np.savez_compressed(path, **arrays),
}


@pytest.fixture(params=FILES)
def scan_file(request, scan_arrays, tmp_path) -> Path:
    """The same scan in every kind of file that can be read by rows."""
    FILES[request.param](scan_arrays, tmp_path / request.param)
    return tmp_path / request.param


def test_a_file_read_by_rows_is_the_same_scan(scan_file):
    held, lazy = (RawData.from_file(scan_file, patterns=mode) for mode in ("memory", "disk"))
    assert isinstance(held.diff3d, np.ndarray) and isinstance(lazy.diff3d, LazyPatterns)
    assert lazy.diff3d.shape == held.diff3d.shape and lazy.diff3d.dtype == held.diff3d.dtype
    assert (lazy.diffraction_unit, lazy.unit_reason, lazy.N) == (
        held.diffraction_unit, held.unit_reason, held.N,
    )  # fmt: skip
    for index in (0, -1, slice(3, 9), slice(None, None, 7), np.array([5, 2, 2, 29]), np.array([[1, 4]])):
        np.testing.assert_array_equal(lazy.diff3d[index], held.diff3d[index])
    np.testing.assert_array_equal(np.asarray(lazy.diff3d), held.diff3d)
    np.testing.assert_array_equal(lazy.amplitude(), held.amplitude())
    assert photons_from_data(lazy) == photons_from_data(held)
    few = lazy.subsample(7, 3)
    assert isinstance(few.diff3d, LazyPatterns)
    np.testing.assert_array_equal(few.diff3d[:], held.subsample(7, 3).diff3d)
    assert describe_scan(lazy) == describe_scan(held)
    # rows that are far apart are read run by run
    np.testing.assert_array_equal(lazy.diff3d[np.array([29, 0])], held.diff3d[[29, 0]])


def test_a_container_on_disk_has_the_same_bits(scan_file, tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    made = {}
    for mode in ("memory", "disk"):
        raw = RawData.from_file(scan_file, patterns=mode, scratch_folder=folder)
        made[mode] = PtychoDataContainer.from_raw(raw, 2)
    held, lazy = made["memory"], made["disk"]
    assert isinstance(lazy.patterns, np.memmap) and not lazy.patterns.flags.writeable
    assert not isinstance(held.patterns, np.memmap)
    assert (lazy.x_scale, lazy.nphotons) == (held.x_scale, held.nphotons)
    assert lazy.patterns.dtype == np.float32 and lazy.patterns.shape == held.patterns.shape
    assert lazy.patterns.tobytes() == held.patterns.tobytes()
    rows = lazy.patterns[lazy.nn_indices[:3]]
    assert type(rows) is np.ndarray and rows.flags.writeable and rows.shape == (3, 4, 32, 32)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "dtype, unit",
    [
        *((dtype, "counts") for dtype in ("uint16", "int32", "float32", "float64")),
        *((dtype, "amplitude") for dtype in ("float32", "float64")),
    ],
)
def test_gauges_over_rows_have_the_same_bits(scan_arrays, dtype, unit):
    patterns = np.sqrt(scan_arrays["diff3d"]) if unit == "amplitude" else scan_arrays["diff3d"]
    patterns = patterns.astype(dtype)
    held = to_amplitude(patterns, unit)
    lazy = as_lazy(patterns).map(lambda part: to_amplitude(part, unit), np.float32)
    for bad in (None, BAD):
        assert mean_power(lazy, bad) == mean_power(held, bad)
    assert has_integer_squares(lazy) == has_integer_squares(held)
    np.testing.assert_array_equal(lazy[:], held)


@pytest.mark.parametrize(
    "row, value, message",
    [(17, np.nan, "first in pattern 17"), (23, -1.0, "negative counts"), (None, 0.0, "every diffraction")],
)
def test_rows_are_checked_as_arrays_are(scan_arrays, tmp_path, row, value, message):
    patterns = scan_arrays["diff3d"].astype(np.float32)
    patterns[slice(None) if row is None else row] = value
    path = as_hdf5({**scan_arrays, "diff3d": patterns}, tmp_path / "scan.h5")
    said = []
    for mode in ("memory", "disk"):
        with pytest.raises(DataError, match=message) as caught:
            RawData.from_file(path, patterns=mode)
        said.append(str(caught.value))
    assert said[0] == said[1] and "scan.h5" in said[0]


def test_diffraction_of_ptychodus_whose_last_pattern_has_no_position_is_read_by_rows(scan_arrays, tmp_path):
    from ptycho.io.ptychodus_diffraction import Diffraction, write_diffraction
    from ptycho.io.ptychodus_frame import ObjectFrame
    from ptycho.io.ptychodus_product import Metadata, Product, write_product

    obj = scan_arrays["objectGuess"]
    frame = ObjectFrame(obj.shape, (8e-9, 9e-9))
    metres = frame.to_metres(np.stack([scan_arrays["xcoords"], scan_arrays["ycoords"]], 1), 32)[:29]
    probe = scan_arrays["probeGuess"][None, None]
    write_product(
        tmp_path / "product.h5",
        Product(
            object=obj[None], frame=frame, probe=probe, indexes=np.arange(29), x_m=metres[:, 0],
            y_m=metres[:, 1], metadata=Metadata("scan", "", 0.9, 8800.0), probe_pixel_xy_m=(8e-9, 9e-9),
        ),
    )  # fmt: skip
    given = Diffraction(scan_arrays["diff3d"], np.arange(30), BAD, (75e-6, 75e-6))
    write_diffraction(tmp_path / "diffraction.h5", given)
    for name in ("diffraction.h5", "product.h5"):
        held, lazy = (RawData.from_file(tmp_path / name, patterns=mode) for mode in ("memory", "disk"))
        assert isinstance(lazy.diff3d, LazyPatterns) and len(lazy.diff3d) == 29
        np.testing.assert_array_equal(lazy.diff3d[:], held.diff3d)
        np.testing.assert_array_equal(lazy.xcoords, held.xcoords)


def test_what_cannot_be_read_by_rows_is_refused_by_name(scan_arrays, tmp_path):
    legacy = {**scan_arrays, "diff3d": np.moveaxis(scan_arrays["diff3d"], 0, 2)}
    np.savez(tmp_path / "legacy.npz", **legacy)
    with pytest.raises(DataError, match=r"legacy\.npz.*\(N,N,M\).*cannot be read by rows"):
        RawData.from_file(tmp_path / "legacy.npz", patterns="disk")
    assert RawData.from_file(tmp_path / "legacy.npz", patterns="auto").n_positions == 30
    np.savez(tmp_path / "fortran.npz", **{**scan_arrays, "diff3d": np.asfortranarray(scan_arrays["diff3d"])})
    with pytest.raises(DataError, match=r"fortran\.npz.*Fortran order.*cannot be read by rows"):
        RawData.from_file(tmp_path / "fortran.npz", patterns="disk")
    with pytest.raises(ConfigError, match="patterns = 'tape'"):
        RawData.from_file(tmp_path / "legacy.npz", patterns="tape")
    trailing = {**scan_arrays, "diff3d": scan_arrays["diff3d"][..., None]}
    np.savez(tmp_path / "trailing.npz", **trailing)
    lazy = RawData.from_file(tmp_path / "trailing.npz", patterns="disk")
    np.testing.assert_array_equal(lazy.diff3d[:], scan_arrays["diff3d"])


@pytest.mark.parametrize("kind", ["stored.npz", "deflated.npz"])
def test_damage_in_an_npz_is_told_in_one_line(scan_arrays, tmp_path, kind):
    path = tmp_path / kind
    FILES[kind](scan_arrays, path)
    contents = bytearray(path.read_bytes())
    where = contents.index(b"diff3d.npy") + 4000
    contents[where : where + 200] = os.urandom(200)
    path.write_bytes(contents)
    with pytest.raises(DataError, match="'diff3d' is damaged") as caught:
        RawData.from_file(path, patterns="disk")
    assert "\n" not in str(caught.value)


def test_a_scan_goes_to_disk_by_itself_only_where_memory_is_short(make_scan, monkeypatch, caplog):
    raw = make_scan()
    needed = 30 * 32 * 32 * 4
    caplog.set_level("INFO")
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: 2 * needed)
    assert not isinstance(PtychoDataContainer.from_raw(raw, 1).patterns, np.memmap)
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: 2 * needed - 2)
    assert isinstance(PtychoDataContainer.from_raw(raw, 1).patterns, np.memmap)
    assert "scratch file" in caplog.text
    assert not isinstance(PtychoDataContainer.from_raw(raw.with_storage("memory"), 1).patterns, np.memmap)
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: None)
    assert not isinstance(PtychoDataContainer.from_raw(raw, 1).patterns, np.memmap)


def test_available_memory_is_what_the_system_says():
    psutil = pytest.importorskip("psutil")
    found = resources.available_memory_bytes()
    assert found is not None and 0 < found <= 1.2 * psutil.virtual_memory().available


def test_a_disk_with_too_little_room_is_told_before_anything_is_written(tmp_path):
    huge = (10**9, 256, 256)
    with pytest.raises(InputError, match=r"262144.0 GB.*GB free.*TMPDIR") as caught:
        scratch.ScratchArray(huge, np.float32, tmp_path)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


_FULL = """
import resource, signal, sys
import numpy as np
from ptycho.io.scratch import ScratchArray
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
array = ScratchArray((20, 32, 32), np.float32, sys.argv[1])
for row in range(20):
    array.write(row, np.ones((1, 32, 32), np.float32))
"""


def test_a_file_that_may_not_grow_is_told_in_one_line(tmp_path):
    """A limit on the size of files is met as a full disk or a spent quota is: by an error of the write."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "ptycho.errors.RunError: cannot write the scratch file" in last and "full" in last, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_nothing(tmp_path):
    program = (
        "import os, signal, sys\nimport numpy as np\nfrom ptycho.io.scratch import ScratchArray\n"
        "array = ScratchArray((4, 32, 32), np.float32, sys.argv[1])\n"
        "array.write(0, np.ones((4, 32, 32), np.float32))\nmapped = array.map()\n"
        "assert mapped.sum() == 4 * 32 * 32\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60)
    assert done.returncode == -9 and list(tmp_path.iterdir()) == []


def test_rows_written_in_any_order_stand_where_they_belong(tmp_path):
    array = scratch.ScratchArray((6, 3, 2), np.complex64, tmp_path)
    wanted = np.arange(36, dtype=np.complex64).reshape(6, 3, 2) * (1 + 2j)
    for row in (4, 0, 2):
        array.write(row, wanted[row : row + 2])
    np.testing.assert_array_equal(array.map(), wanted)
    with pytest.raises(ValueError, match="rows 5 to 7"):
        array.write(5, wanted[:2])


def test_the_folder_is_the_outputs_or_its_nearest_that_exists(tmp_path, monkeypatch):
    assert scratch.folder_for(tmp_path / "not" / "made") == tmp_path
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert scratch.folder_for(None) == scratch.folder_for(Path()) == tmp_path


_LIMITED = """
import resource, sys
import numpy as np
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.raw_data import RawData
before = int(next(l for l in open('/proc/self/status') if l.startswith('VmData')).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (before + 160_000_000,) * 2)
raw = RawData.from_file(sys.argv[1], patterns=sys.argv[2])
container = PtychoDataContainer.from_raw(raw, 1)
print(container.patterns[np.array([0, 1999])].sum())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
@pytest.mark.parametrize("suffix", ["h5", "npz"])
def test_a_scan_larger_than_the_memory_that_is_allowed(scan_arrays, tmp_path, suffix):
    """66 MB of counts, 131 MB as network input, under a limit of 160 MB on what may be allocated in all."""
    rng = np.random.default_rng(0)
    count = 8000
    arrays = {
        **scan_arrays,
        "xcoords": rng.uniform(20, 40, count), "ycoords": rng.uniform(20, 40, count),
        "diff3d": np.resize(scan_arrays["diff3d"], (count, 64, 64)), "scan_index": np.zeros(count, int),
        "probeGuess": np.ones((64, 64), np.complex64),
    }  # fmt: skip
    path = tmp_path / f"scan.{suffix}"
    if suffix == "h5":
        as_hdf5(arrays, path, chunks=(10, 64, 64), compression="lzf")
    else:
        np.savez_compressed(path, **arrays)
    ended = {}
    for mode in ("disk", "memory"):
        done = subprocess.run(
            [sys.executable, "-c", _LIMITED, str(path), mode], capture_output=True, text=True, timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        ended[mode] = done
    assert ended["disk"].returncode == 0, ended["disk"].stderr
    assert ended["memory"].returncode != 0 and "llocate" in ended["memory"].stderr, ended["memory"].stderr
