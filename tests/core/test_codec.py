"""Compressed scans: bit-exact or within the stated bound, read as any other scan, damage named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho.codec import Counts, Prediction, compress, lowrank_prediction, object_prediction
from ptycho.errors import ConfigError, DataError
from ptycho.io.compressed.file import read_header
from ptycho.io.compressed.levels import from_levels, stabilised, to_levels
from ptycho.io.compressed.reading import compressed_by_rows
from ptycho.io.geometry import Geometry
from ptycho.io.registry import read_scan, shape_of
from ptycho.scan.raw_data import RawData
from ptycho.simulation import Scenario, simulate


@pytest.fixture(scope="module")
def made():
    """A simulated scan whose answer is known, M = 40, N = 32."""
    return simulate(Scenario(N=32, n_positions=40, photons=2e4, step_px=3.0, probe="gaussian", seed=11))


def prediction_of(method: str, raw: RawData, made: Any = None) -> Prediction | None:
    counts = Counts(raw)
    if method == "lowrank":
        return lowrank_prediction(counts, counts.survey(), 4)
    if method == "object":
        everywhere = np.ones(made.object_true.shape)
        return object_prediction(made.object_true, made.probe_true, (0, 0), raw.positions_px, everywhere)
    return None


def error_of(decoded: np.ndarray, raw: RawData) -> float:
    """Largest difference on the axis where a Poisson standard deviation is 1."""
    return float(np.abs(stabilised(decoded) - stabilised(raw.diff3d)).max())


@pytest.mark.parametrize("dtype", ["u1", "u2", "<i4", ">u4", "i8", "<f4", "f8"])
def test_lossless_is_bit_exact_whatever_the_type(dtype: str, make_scan, tmp_path: Path):
    counts = make_scan(photons=2e3).diff3d
    given = np.sqrt(counts).astype(dtype) if np.dtype(dtype).kind == "f" else counts.astype(dtype)
    header = compress(make_scan(photons=2e3, diff3d=given), tmp_path / "a.h5", "lossless")
    found = read_scan(tmp_path / "a.h5")["diff3d"]
    assert found.dtype == given.dtype and found.tobytes() == given.tobytes()
    assert header.error_max == 0 and header.ratio > 1


def test_lossless_keeps_what_stands_in_bad_pixels(make_scan, tmp_path: Path):
    bad = np.zeros((32, 32), bool)
    bad[3, 4] = True
    counts = make_scan().diff3d.astype(np.int32)
    counts[:, 3, 4] = -1
    raw = make_scan(diff3d=counts, bad_pixels=bad)
    compress(raw, tmp_path / "a.h5", "lossless")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.h5")["diff3d"], counts)


@pytest.mark.parametrize("method", ["poisson", "lowrank", "object"])
def test_no_count_is_farther_off_than_the_stated_bound(method: str, made, tmp_path: Path):
    for step in (0.3, 1.0, 3.0):
        header = compress(
            made.raw, tmp_path / "a.h5", method, step=step, prediction=prediction_of(method, made.raw, made)
        )
        decoded = read_scan(tmp_path / "a.h5")["diff3d"]
        assert decoded.dtype == made.raw.diff3d.dtype
        assert error_of(decoded, made.raw) == pytest.approx(header.error_max) and header.error_max < step
        assert header.error_bound == step and 0 < header.error_rms < step / 2


def test_counts_below_four_over_the_square_of_the_step_are_kept():
    few = np.arange(100)
    np.testing.assert_array_equal(from_levels(to_levels(few, 0.2), 0.2), few)


@pytest.mark.parametrize("step", [0.05, 0.37, 1.0, 2.5, 10.0])
def test_decoded_counts_have_the_same_levels_up_to_two_to_the_31(step: float):
    counts = np.random.default_rng(0).integers(0, 2**31, 5000)
    levels = to_levels(counts, step)
    again = from_levels(levels, step)
    np.testing.assert_array_equal(to_levels(again, step), levels)
    assert np.abs(stabilised(again) - stabilised(counts)).max() < step


def test_a_larger_step_takes_fewer_bits_and_loses_more(made, tmp_path: Path):
    steps = (0.25, 0.5, 1.0, 2.0, 4.0)
    found = [compress(made.raw, tmp_path / "a.h5", step=step) for step in steps]
    bits = [header.bits_per_frame for header in found]
    errors = [header.error_rms for header in found]
    assert bits == sorted(bits, reverse=True) and errors == sorted(errors)
    assert bits[0] > 1.5 * bits[-1]


def test_what_is_predicted_changes_the_bits_and_not_the_counts(made, tmp_path: Path):
    bits, decoded = {}, {}
    for method in ("poisson", "lowrank", "object"):
        header = compress(
            made.raw, tmp_path / "a.h5", method, prediction=prediction_of(method, made.raw, made)
        )
        bits[method], decoded[method] = header.bits_per_frame, read_scan(tmp_path / "a.h5")["diff3d"]
    np.testing.assert_array_equal(decoded["object"], decoded["poisson"])
    np.testing.assert_array_equal(decoded["lowrank"], decoded["poisson"])
    assert len(set(bits.values())) == 3


def test_the_object_alone_gives_the_expected_counts(made, tmp_path: Path):
    everywhere = np.ones(made.object_true.shape)
    found = object_prediction(
        made.object_true, made.probe_true, (0, 0), made.raw.positions_px, everywhere, alone=True
    )
    header = compress(made.raw, tmp_path / "a.h5", "object", prediction=found, residual=False)
    arrays = read_scan(tmp_path / "a.h5")
    assert arrays["diff3d"].dtype == np.float32 and arrays["diffraction_unit"] == "counts"
    from ptycho.simulation import diffract_scan

    expected = diffract_scan(made.object_true, made.probe_true, made.raw.positions_px)
    away = stabilised(arrays["diff3d"]) - stabilised(expected)
    assert np.sqrt(np.mean(away**2)) < 0.1
    noise = stabilised(made.raw.diff3d) - stabilised(expected)  # which is what is lost
    assert header.error_bound is None
    assert header.error_rms == pytest.approx(np.sqrt(np.mean(noise**2)), rel=0.05)


def test_the_best_few_shapes_are_found(make_scan, tmp_path: Path):
    """Against NumPy's own decomposition: no other four shapes leave less."""
    raw = make_scan(photons=1e6)
    values = stabilised(raw.diff3d).reshape(len(raw.diff3d), -1)
    spectrum = np.linalg.svd(values - values.mean(0), compute_uv=False)
    compress(raw, tmp_path / "a.h5", "lowrank", prediction=prediction_of("lowrank", raw), residual=False)
    left = stabilised(read_scan(tmp_path / "a.h5")["diff3d"]).reshape(values.shape) - values
    assert np.sum(left**2) < 1.1 * np.sum(spectrum[4:] ** 2)


def test_rows_read_lazily_are_those_decoded_at_once(made, tmp_path: Path):
    for method in ("lossless", "poisson", "lowrank", "object"):
        compress(made.raw, tmp_path / "a.h5", method, prediction=prediction_of(method, made.raw, made))
        whole = read_scan(tmp_path / "a.h5")["diff3d"]
        rows = compressed_by_rows(tmp_path / "a.h5")["diff3d"]
        on_disk = read_scan(tmp_path / "a.h5", patterns="disk")["diff3d"]
        for wanted in (slice(7, 9), np.array([39, 0, 5]), 3):
            np.testing.assert_array_equal(rows[wanted], whole[wanted])
            np.testing.assert_array_equal(on_disk[wanted], whole[wanted])


def test_everything_else_is_kept_exactly(make_scan, tmp_path: Path):
    bad = np.zeros((32, 32), bool)
    bad[1, 2:9] = True
    raw = make_scan(bad_pixels=bad)
    raw.geometry = Geometry.of_settings(
        {"energy_eV": 8123.4, "distance_m": 2.1, "detector_pixel_size_m": 75e-6}
    )
    raw.xcoords_start = raw.xcoords + 0.125
    compress(raw, tmp_path / "a.h5")
    found = RawData.from_file(tmp_path / "a.h5")
    before, after = raw.as_arrays(), found.as_arrays()
    for name in (
        "xcoords",
        "ycoords",
        "xcoords_start",
        "probeGuess",
        "objectGuess",
        "scan_index",
        "bad_pixels",
    ):
        assert after[name].dtype == before[name].dtype
        np.testing.assert_array_equal(after[name], before[name])
    assert found.geometry == raw.geometry and found.diffraction_unit == "counts"
    assert shape_of(tmp_path / "a.h5") == (30, 32)


def test_bad_pixels_are_zero_and_no_part_of_the_error(make_scan, tmp_path: Path):
    bad = np.zeros((32, 32), bool)
    bad[5] = True
    counts = make_scan().diff3d.astype(np.float32)
    counts[:, 5] = np.nan
    header = compress(make_scan(diff3d=counts, bad_pixels=bad), tmp_path / "a.h5", step=2.0)
    found = read_scan(tmp_path / "a.h5")["diff3d"]
    assert not found[:, 5].any() and found.dtype == np.uint16 and header.masked == 32
    assert 0 < header.error_max < 2.0


def test_float_numbers_are_taken_where_they_are_counts_and_refused_else(make_scan, tmp_path: Path):
    counts = make_scan().diff3d
    amplitude = make_scan(diff3d=np.sqrt(counts).astype(np.float32), diffraction_unit="amplitude")
    header = compress(amplitude, tmp_path / "a.h5", step=0.01)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.h5")["diff3d"], counts)
    assert (header.original_unit, header.unit) == ("amplitude", "counts")
    half = make_scan(diff3d=counts + np.float32(0.5), diffraction_unit="counts")
    with pytest.raises(DataError, match="not whole numbers.*use --method lossless"):
        compress(half, tmp_path / "b.h5")
    assert not (tmp_path / "b.h5").exists()
    compress(half, tmp_path / "b.h5", "lossless")
    np.testing.assert_array_equal(read_scan(tmp_path / "b.h5")["diff3d"], half.diff3d)


@pytest.mark.parametrize("method", ["lossless", "poisson", "lowrank"])
@pytest.mark.parametrize("size", [(1, 32), (3, 50), (65, 34)])
def test_one_frame_and_odd_sizes(method: str, size: tuple[int, int], tmp_path: Path):
    M, N = size
    rng = np.random.default_rng(M)
    counts, places = rng.poisson(5.0, (M, N, N)).astype(np.uint16), 3.0 * np.arange(M)
    raw = RawData.from_coords_without_pc(
        places, places, counts, np.ones((N, N), np.complex64), pattern_order="MNN"
    )
    compress(raw, tmp_path / "a.h5", method, step=0.1, prediction=prediction_of(method, raw))
    np.testing.assert_array_equal(RawData.from_file(tmp_path / "a.h5").diff3d, counts)


def test_the_header_says_what_was_done(made, tmp_path: Path):
    import hashlib

    compress(made.raw, tmp_path / "a.h5", "lowrank", step=0.5, prediction=prediction_of("lowrank", made.raw))
    found = read_header(tmp_path / "a.h5")
    assert (found.method, found.step, found.residual, found.parameters["rank"]) == ("lowrank", 0.5, True, 4)
    assert found.sha256 == hashlib.sha256(made.raw.diff3d.astype("<i4").tobytes()).hexdigest()
    assert 0 < found.bits_per_frame * 40 <= 8 * (tmp_path / "a.h5").stat().st_size


def test_equal_scans_give_equal_files(made, tmp_path: Path):
    for name in ("a.h5", "b.h5"):
        compress(made.raw, tmp_path / name, "lowrank", prediction=prediction_of("lowrank", made.raw))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_damaged_block_is_named_by_file_and_frames(made, tmp_path: Path):
    import h5py

    path = tmp_path / "a.h5"
    compress(made.raw, path)
    with h5py.File(path, "r") as archive:
        where = archive["frames"].id.get_chunk_info(0)
    with path.open("r+b") as stream:
        stream.seek(where.byte_offset + where.size // 2)
        stream.write(b"\xff\x00\xff")
    with pytest.raises(DataError, match=r"a\.h5.*'?frames'? .*damaged"):
        read_scan(path)


def test_a_file_that_is_not_ours_or_newer_is_refused(made, tmp_path: Path):
    import h5py

    from ptycho.io.sealed_hdf5 import put

    compress(made.raw, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as archive:
        text = archive["about"][()].decode()
        del archive["about"]
        put(archive, "about", text.replace('"format": 1', '"format": 2'))
    with pytest.raises(DataError, match=r"a\.h5.*format 2 is newer"):
        read_scan(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as archive:
        del archive["about"]
        put(archive, "about", text.replace("[40, 32, 32]", "[4000000, 32, 32]"))
    with pytest.raises(DataError, match=r"a\.h5.*its header says"):
        read_scan(tmp_path / "a.h5")


def test_what_cannot_be_asked_for_is_refused(made, tmp_path: Path):
    for method, step, match in (
        ("best", 1.0, "must be one of"),
        ("poisson", 0.0, "step"),
        ("object", 1.0, "need"),
    ):
        with pytest.raises(ConfigError, match=match):
            compress(made.raw, tmp_path / "a.h5", method, step=step)
    assert not (tmp_path / "a.h5").exists()
