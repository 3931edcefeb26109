"""Scan files: what comes back is what went in, and a damaged file says so in one line."""

from __future__ import annotations

import errno
import zipfile

import numpy as np
import pytest

from ptycho.errors import DataError, InputError, MissingFileError, RunError
from ptycho.io.atomic import atomic_write
from ptycho.io.registry import read_scan, register_format, write_scan
from ptycho.scan.raw_data import RawData

OPTIONAL = ("objectGuess", "bad_pixels", "scan_index")


def test_round_trip(make_scan, tmp_path):
    raw = make_scan(
        bad_pixels=np.eye(32, dtype=bool), xcoords_start=np.arange(30.0), ycoords_start=np.ones(30)
    )
    raw.to_file(tmp_path / "scan.npz")
    again = RawData.from_file(tmp_path / "scan.npz")
    for key in ("xcoords", "ycoords", "xcoords_start", "ycoords_start", "diff3d", "probeGuess", *OPTIONAL):
        np.testing.assert_array_equal(getattr(again, key), getattr(raw, key))
        assert getattr(again, key).dtype == getattr(raw, key).dtype
    assert again.diffraction_unit == "counts"


def test_round_trip_keeps_the_unit_of_floats(make_scan, tmp_path, scan_arrays):
    patterns = scan_arrays["diff3d"].astype(np.float32)
    for unit in ("counts", "amplitude"):
        make_scan(diff3d=patterns, diffraction_unit=unit, bad_pixels=np.eye(32, dtype=bool)).to_file(
            tmp_path / "s.npz"
        )
        assert RawData.from_file(tmp_path / "s.npz").diffraction_unit == unit


def test_round_trip_of_as_many_patterns_as_pixels(make_scan, tmp_path):
    raw = make_scan(n_positions=32, pattern_order="MNN")
    raw.to_file(tmp_path / "s.npz")
    np.testing.assert_array_equal(RawData.from_file(tmp_path / "s.npz").diff3d, raw.diff3d)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_file_and_memory_agree(scan_arrays, tmp_path, dtype):
    arrays = {**scan_arrays, "diff3d": scan_arrays["diff3d"].astype(dtype)}
    np.savez(tmp_path / "s.npz", **arrays)
    from_file, in_memory = RawData.from_file(tmp_path / "s.npz"), RawData.from_coords_without_pc(**arrays)
    assert from_file.diffraction_unit == in_memory.diffraction_unit
    np.testing.assert_array_equal(from_file.amplitude(), in_memory.amplitude())


def test_legacy_diffraction_key(scan_arrays, tmp_path):
    patterns = scan_arrays.pop("diff3d")
    np.savez(tmp_path / "s.npz", diffraction=np.moveaxis(patterns, 0, -1), **scan_arrays)
    np.testing.assert_array_equal(RawData.from_file(tmp_path / "s.npz").diff3d, patterns)


class TestAsManyPatternsAsPixels:
    """A file with 32 patterns of 32 x 32: `pattern_order` is seldom written, so the contents decide."""

    @pytest.fixture
    def write(self, make_scan, tmp_path):
        def written(order, key="diff3d", centred=True, dtype=np.uint16, **more):
            raw = make_scan(n_positions=32)
            patterns = raw.diff3d if centred else np.fft.ifftshift(raw.diff3d, axes=(1, 2))
            patterns = (patterns if order == "MNN" else np.moveaxis(patterns, 0, -1)).astype(dtype)
            arrays = {"xcoords": raw.xcoords, "ycoords": raw.ycoords, "probeGuess": raw.probeGuess}
            np.savez(tmp_path / "s.npz", **arrays, **{key: patterns}, **more)
            return tmp_path / "s.npz", raw.diff3d if centred else patterns

        return written

    @pytest.mark.parametrize("place", ["memory", "disk"])
    @pytest.mark.parametrize("dtype", ["float32", "uint16"])
    def test_the_mean_pattern_peaks_in_the_middle(self, write, dtype, place, caplog):
        path, patterns = write("MNN", dtype=dtype)
        np.testing.assert_array_equal(np.asarray(RawData.from_file(path, patterns=place).diff3d), patterns)
        path, patterns = write("NNM", dtype=dtype)
        np.testing.assert_array_equal(np.asarray(RawData.from_file(path).diff3d), patterns)
        assert "pattern_order" not in caplog.text

    @pytest.mark.parametrize("order", ["MNN", "NNM"])
    def test_a_hot_pixel_is_no_peak(self, write, order, caplog):
        path, patterns = write("MNN")
        patterns = patterns.copy()
        patterns[:, 3, 5] = 60000
        with np.load(path) as archive:
            cube = patterns if order == "MNN" else np.moveaxis(patterns, 0, -1)
            arrays = {**archive, "diff3d": cube}
        np.savez(path, **arrays)
        np.testing.assert_array_equal(RawData.from_file(path).diff3d, patterns)
        assert "pattern_order" not in caplog.text

    def test_only_ptychodus_writes_bad_pixels(self, write):
        path, patterns = write("MNN", centred=False, bad_pixels=np.eye(32, dtype=bool))
        np.testing.assert_array_equal(RawData.from_file(path).diff3d, patterns)

    @pytest.mark.parametrize("none", [True, False])
    def test_what_the_middle_does_not_tell_is_patterns_first_with_one_warning(self, write, none, caplog):
        more = {"bad_pixels": np.array(None)} if none else {}
        path, patterns = write("MNN", centred=False, **more)
        np.testing.assert_array_equal(RawData.from_file(path).diff3d, patterns)
        said = [record for record in caplog.records if "pattern_order" in record.getMessage()]
        assert len(said) == 1 and said[0].levelname == "WARNING"
        assert "s.npz: 'diff3d' has shape (32, 32, 32)" in said[0].getMessage()

    def test_the_key_wins_over_the_contents(self, write):
        path, patterns = write("MNN", pattern_order="NNM")
        np.testing.assert_array_equal(RawData.from_file(path).diff3d, np.moveaxis(patterns, -1, 0))

    @pytest.mark.parametrize("order", ["MNN", "NNM"])
    def test_the_older_key_stays_refused(self, write, order):
        path, _ = write(order, key="diffraction")
        with pytest.raises(DataError, match=r"s\.npz: 'diffraction' .*\(M,N,N\).*\(N,N,M\).*pattern_order"):
            RawData.from_file(path)
        path, patterns = write(order, key="diffraction", pattern_order=order)
        np.testing.assert_array_equal(RawData.from_file(path).diff3d, patterns)

    def test_another_number_of_positions_is_named_as_that(self, write):
        path, _ = write("MNN")
        with np.load(path) as archive:
            arrays = {**archive, "xcoords": np.arange(30.0), "ycoords": np.arange(30.0)}
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=r"no axis of diff3d .* matches the 30 positions"):
            RawData.from_file(path)


class Trap:
    """A Python object that says so when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


@pytest.mark.parametrize("value", [None, {"a": 1}, Trap()])
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_an_optional_key_that_holds_none_is_absent(scan_arrays, tmp_path, caplog, value, place):
    """Older programs wrote None as a 0-d object array; its header tells, and nothing is unpickled."""
    keys = ("objectGuess", "scan_index", "xcoords_start", "ycoords_start", "Y", "bad_pixels",
            "diffraction_unit")  # fmt: skip
    np.savez(tmp_path / "s.npz", **{**scan_arrays, **dict.fromkeys(keys, np.array(value, dtype=object))})
    raw = RawData.from_file(tmp_path / "s.npz", patterns=place)
    assert raw.objectGuess is None and raw.Y is None and raw.bad_pixels is None
    np.testing.assert_array_equal(raw.xcoords_start, raw.xcoords)
    np.testing.assert_array_equal(raw.scan_index, 0)
    for key in keys:
        assert f"'{key}' is a Python object, as None is written: taken as absent" in caplog.text


def test_labels_of_older_files_have_one_axis_more(scan_arrays, tmp_path):
    rng = np.random.default_rng(1)
    labels = (rng.normal(size=(30, 32, 32)) + 1j).astype(np.complex64)
    np.savez(tmp_path / "s.npz", **scan_arrays, Y=labels[..., None])
    np.testing.assert_array_equal(RawData.from_file(tmp_path / "s.npz").Y, labels)
    np.savez(tmp_path / "s.npz", **scan_arrays, Y=labels[..., None, None])
    with pytest.raises(DataError, match="Y has shape"):
        RawData.from_file(tmp_path / "s.npz")


@pytest.mark.parametrize("key", ["xcoords", "diff3d", "probeGuess"])
def test_a_required_key_that_holds_none_is_refused(scan_arrays, tmp_path, key):
    np.savez(tmp_path / "s.npz", **{**scan_arrays, key: np.array(None)})
    with pytest.raises(DataError, match=f"s.npz: '{key}' holds Python objects"):
        RawData.from_file(tmp_path / "s.npz")


def test_unknown_keys_are_not_read(scan_arrays, tmp_path):
    np.savez(tmp_path / "s.npz", note=np.array([{"python": "object"}], dtype=object), **scan_arrays)
    assert RawData.from_file(str(tmp_path / "s.npz")).n_positions == 30


def test_pickled_arrays_are_refused(scan_arrays, tmp_path):
    scan_arrays["scan_index"] = np.array([None] * 30, dtype=object)
    np.savez(tmp_path / "s.npz", **scan_arrays)
    with pytest.raises(DataError, match="s.npz: 'scan_index' holds Python objects"):
        RawData.from_file(tmp_path / "s.npz")


@pytest.mark.parametrize("key", ["xcoords", "ycoords", "diff3d", "probeGuess"])
def test_a_missing_key_is_named_with_what_is_there(scan_arrays, tmp_path, key):
    del scan_arrays[key]
    np.savez(tmp_path / "s.npz", **scan_arrays)
    with pytest.raises(DataError, match=rf"s\.npz has no '{key}'; it holds .*objectGuess"):
        RawData.from_file(tmp_path / "s.npz")


def write_bytes(path, data):
    path.write_bytes(data)
    return path


def truncated(tmp_path, arrays):
    np.savez(tmp_path / "whole.npz", **arrays)
    return write_bytes(tmp_path / "t.npz", (tmp_path / "whole.npz").read_bytes()[:5000])


def flipped(tmp_path, arrays):
    np.savez(tmp_path / "whole.npz", **arrays)
    data = bytearray((tmp_path / "whole.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "whole.npz") as archive:
        start = archive.getinfo("diff3d.npy").header_offset + 3000
    data[start : start + 100] = bytes(100 * [255])
    return write_bytes(tmp_path / "t.npz", bytes(data))


def text_member(tmp_path, arrays):
    np.savez(tmp_path / "t.npz", **{k: v for k, v in arrays.items() if k != "probeGuess"})
    with zipfile.ZipFile(tmp_path / "t.npz", "a") as archive:
        archive.writestr("probeGuess", "not an array")
    return tmp_path / "t.npz"


BAD_FILES = {
    "missing": (lambda t, a: t / "no.npz", MissingFileError, "no.npz does not exist"),
    "folder": (lambda t, a: t, InputError, "is a folder"),
    "empty": (lambda t, a: write_bytes(t / "t.npz", b""), DataError, "is empty"),
    "not a zip": (lambda t, a: write_bytes(t / "t.npz", b"hello world" * 9), DataError, "not an NPZ file"),
    "npy inside": (
        lambda t, a: write_bytes(t / "t.npz", b"\x93NUMPY" + bytes(99)),
        DataError,
        "single array",
    ),
    "truncated": (truncated, DataError, "truncated"),
    "flipped": (flipped, DataError, "'diff3d' is damaged"),
    "text member": (text_member, DataError, "'probeGuess' is not an array"),
    "suffix": (lambda t, a: write_bytes(t / "scan.xyz", b"1"), InputError, r"'\.xyz'.*known: .*\.npz"),
    "no suffix": (lambda t, a: write_bytes(t / "scan", b"1"), InputError, r"known: .*\.npz"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(tmp_path, scan_arrays, case):
    make, kind, message = BAD_FILES[case]
    path = make(tmp_path, scan_arrays)
    with pytest.raises(kind, match=message) as caught:
        RawData.from_file(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_bad_contents_name_the_file(scan_arrays, tmp_path):
    scan_arrays["ycoords"] = scan_arrays["ycoords"][:-1]
    np.savez(tmp_path / "s.npz", **scan_arrays)
    with pytest.raises(DataError, match=r"s\.npz: xcoords has 30"):
        RawData.from_file(tmp_path / "s.npz")


def test_unit_key_must_be_text(scan_arrays, tmp_path):
    np.savez(tmp_path / "s.npz", diffraction_unit=np.arange(3), **scan_arrays)
    with pytest.raises(DataError, match="diffraction_unit"):
        RawData.from_file(tmp_path / "s.npz")


def test_a_format_of_ones_own(make_scan, tmp_path):
    kept = {}
    register_format(".mine", lambda path: kept[path], lambda path, arrays: kept.__setitem__(path, arrays))
    (tmp_path / "a.mine").touch()
    raw = make_scan()
    raw.to_file(tmp_path / "a.mine")
    np.testing.assert_array_equal(RawData.from_file(tmp_path / "a.mine").diff3d, raw.diff3d)


def test_the_registry_speaks_plain_arrays(scan_arrays, tmp_path):
    write_scan(tmp_path / "a.npz", scan_arrays)
    arrays = read_scan(tmp_path / "a.npz")
    assert set(arrays) == set(scan_arrays)


def test_writing_an_unknown_format_is_refused(make_scan, tmp_path):
    with pytest.raises(InputError, match=r"known: .*\.npz"):
        make_scan().to_file(tmp_path / "scan.abc")


def test_atomic_write_replaces_and_makes_folders(tmp_path):
    target = tmp_path / "new" / "a.txt"
    for text in ("one", "two"):
        with atomic_write(target) as path:
            assert path.parent == target.parent and path.suffix == ".txt"
            path.write_text(text)
    assert target.read_text() == "two" and list(target.parent.iterdir()) == [target]


def test_atomic_write_keeps_the_old_file_on_failure(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), atomic_write(target) as path:  # noqa: PT012
        path.write_text("half")
        raise KeyError("x")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("number, message", [(errno.ENOSPC, "disk is full"), (errno.EACCES, "permissions")])
def test_atomic_write_explains_the_disk(tmp_path, number, message):
    with pytest.raises(RunError, match=rf"a\.txt.*{message}"), atomic_write(tmp_path / "a.txt"):
        raise OSError(number, "reason")
    assert list(tmp_path.iterdir()) == []


def test_atomic_write_refuses_a_folder(tmp_path):
    with pytest.raises(InputError, match="is a folder"), atomic_write(tmp_path):
        pass


def test_atomic_write_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"), atomic_write(tmp_path / "file" / "a.txt"):
        pass


def test_full_disk_for_real(tmp_path):
    """/dev/full answers every write with ENOSPC."""
    with pytest.raises(RunError, match="disk is full"), atomic_write(tmp_path / "a.bin") as path:  # noqa: PT012
        path.touch()
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")
