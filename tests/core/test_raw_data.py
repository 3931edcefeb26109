"""One scan as arrays: what is accepted, what is refused and in which words."""

from __future__ import annotations

import numpy as np
import pytest

import ptycho.scan.raw_data
from ptycho.errors import DataError, InputError
from ptycho.raw_data import RawData

GROUPED_KEYS = {
    "diffraction",
    "Y",
    "coords_offsets",
    "coords_relative",
    "coords_start_offsets",
    "coords_start_relative",
    "coords_nn",
    "coords_start_nn",
    "nn_indices",
    "objectGuess",
    "X_full",
}


def test_keeps_what_was_given(make_scan, scan_arrays):
    raw = make_scan()
    assert (raw.n_positions, raw.N, raw.diffraction_unit) == (30, 32, "counts")
    assert raw.diff3d.dtype == np.uint16
    np.testing.assert_array_equal(raw.diff3d, scan_arrays["diff3d"])
    np.testing.assert_array_equal(raw.xcoords_start, raw.xcoords)
    np.testing.assert_allclose(raw.amplitude() ** 2, raw.diff3d, rtol=1e-6)


def test_coordinates_are_float64_and_exact(make_scan):
    x = np.linspace(20, 40, 30) + 0.123456789
    assert make_scan(xcoords=x).xcoords.dtype == np.float64
    np.testing.assert_array_equal(make_scan(xcoords=x).xcoords, x)


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 1), (1, 32, 32), (3, 32, 32)])
def test_probe_shapes(make_scan, scan_arrays, shape):
    probe = np.ones(shape, np.complex128)
    modes = make_scan(probeGuess=probe).probe_modes
    assert modes.dtype == np.complex64
    assert modes.shape == ((3, 32, 32) if shape[0] == 3 else (1, 32, 32))


@pytest.mark.parametrize("reorder", [lambda d: np.moveaxis(d, 0, -1), lambda d: d[..., None],
                                     lambda d: np.moveaxis(d, 0, -1)[..., None]])  # fmt: skip
def test_format_001_orders(make_scan, scan_arrays, reorder):
    raw = make_scan(diff3d=reorder(scan_arrays["diff3d"]))
    np.testing.assert_array_equal(raw.diff3d, scan_arrays["diff3d"])


def test_as_many_patterns_as_pixels_are_patterns_first_in_memory(make_scan, caplog):
    """Programs hand over (M, N, N) and cannot say so; nothing is guessed from the contents."""
    raw = make_scan(n_positions=32)
    np.testing.assert_array_equal(raw.diff3d, make_scan(n_positions=32, pattern_order="MNN").diff3d)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("order", ["MNN", "NNM"])
def test_ambiguous_order_can_be_said(make_scan, order):
    stack = np.zeros((32, 32, 32), np.uint16)
    stack[3, 4, 5] = 1
    raw = make_scan(n_positions=1, xcoords=np.arange(32.0), ycoords=np.arange(32.0), diff3d=stack,
                    scan_index=None, pattern_order=order)  # fmt: skip
    assert raw.diff3d[(3, 4, 5) if order == "MNN" else (5, 3, 4)] == 1


def nan_at(array, index, value=np.nan):
    changed = np.array(array, dtype=np.result_type(array, np.float32))
    changed[index] = value
    return changed


BAD = {
    "coords length": (lambda a: {"ycoords": a["ycoords"][:-1]}, r"xcoords has 30 .* ycoords has 29"),
    "coords 2d": (lambda a: {"xcoords": a["xcoords"][:, None]}, "xcoords must be one-dimensional"),
    "coords nan": (
        lambda a: {"xcoords": nan_at(a["xcoords"], 4)},
        "xcoords holds 1 NaN or infinite.*first at 4",
    ),
    "coords inf": (lambda a: {"ycoords": nan_at(a["ycoords"], 2, np.inf)}, "ycoords holds 1 NaN or infinite"),
    "coords complex": (lambda a: {"xcoords": a["xcoords"] + 1j}, "xcoords has dtype complex128"),
    "coords text": (lambda a: {"xcoords": np.array(["a"] * 30)}, "xcoords has dtype"),
    "start length": (
        lambda a: {"xcoords_start": a["xcoords"][:5], "ycoords_start": a["ycoords"][:5]},
        "xcoords_start has 5",
    ),
    "no positions": (
        lambda a: {"xcoords": np.zeros(0), "ycoords": np.zeros(0), "diff3d": a["diff3d"][:0]},
        "scan has no positions",
    ),
    "pattern count": (
        lambda a: {"diff3d": a["diff3d"][:-1]},
        r"no axis of diff3d .*29.* matches the 30 positions",
    ),
    "not square": (lambda a: {"diff3d": a["diff3d"][:, :, :30]}, "30 x 32|32 x 30"),
    "2d": (lambda a: {"diff3d": a["diff3d"][0]}, r"diff3d has shape \(32, 32\)"),
    "odd N": (lambda a: {"diff3d": np.ones((30, 33, 33), int)}, "N is 33.*even"),
    "small N": (lambda a: {"diff3d": np.ones((30, 16, 16), int)}, "N is 16.*at least 32"),
    "negative": (
        lambda a: {"diff3d": nan_at(a["diff3d"], (7, 1, 2), -3)},
        r"negative.*pattern 7.*np.maximum",
    ),
    "nan pattern": (lambda a: {"diff3d": nan_at(a["diff3d"], (5, 1, 2))}, "NaN or infinite.*pattern 5"),
    "inf pattern": (
        lambda a: {"diff3d": nan_at(a["diff3d"], (6, 1, 2), np.inf)},
        "NaN or infinite.*pattern 6",
    ),
    "all zero": (lambda a: {"diff3d": np.zeros_like(a["diff3d"])}, "every diffraction pattern is zero"),
    "complex": (lambda a: {"diff3d": a["diff3d"] + 0j}, "modulus"),
    "unit": (lambda a: {"diffraction_unit": "photons"}, "'counts' or 'amplitude'"),
    "unit clash": (lambda a: {"diffraction_unit": "amplitude"}, "whole numbers are counts"),
    "probe size": (
        lambda a: {"probeGuess": np.ones((64, 64), complex)},
        r"probeGuess .*64.*patterns are 32 x 32",
    ),
    "probe 4d": (
        lambda a: {"probeGuess": np.ones((1, 1, 32, 32), complex)},
        r"probeGuess has shape \(1, 1, 32, 32\)",
    ),
    "probe zero": (lambda a: {"probeGuess": np.zeros((32, 32), complex)}, "probeGuess is zero everywhere"),
    "probe nan": (lambda a: {"probeGuess": np.full((32, 32), np.nan + 0j)}, "probeGuess holds .*NaN"),
    "probe text": (lambda a: {"probeGuess": np.full((32, 32), "x")}, "probeGuess has dtype"),
    "probe none": (lambda a: {"probeGuess": None}, "probeGuess is missing"),
    "object 3d": (lambda a: {"objectGuess": a["objectGuess"][None]}, r"objectGuess has shape \(1"),
    "object real": (lambda a: {"objectGuess": np.ones((90, 90))}, "objectGuess has dtype float64.*complex"),
    "object nan": (lambda a: {"objectGuess": np.full((90, 90), np.nan + 0j)}, "objectGuess holds .*NaN"),
    "bad pixels shape": (
        lambda a: {"bad_pixels": np.zeros((16, 16), bool)},
        r"bad_pixels has shape \(16, 16\)",
    ),
    "bad pixels all": (lambda a: {"bad_pixels": np.ones((32, 32), bool)}, "bad_pixels marks every pixel"),
    "bad pixels values": (lambda a: {"bad_pixels": np.full((32, 32), 7)}, "bad_pixels .*True or False"),
    "scan index": (lambda a: {"scan_index": np.zeros(4, int)}, "scan_index has 4"),
    "order": (lambda a: {"pattern_order": "NMN"}, "pattern_order is 'NMN'"),
    "order clash": (lambda a: {"pattern_order": "NNM"}, "pattern_order says NNM"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_refused_in_one_line(scan_arrays, case):
    change, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        RawData.from_coords_without_pc(**{**scan_arrays, **change(scan_arrays)})
    assert "\n" not in str(caught.value) and isinstance(caught.value, InputError)


def test_some_zero_patterns_are_accepted(make_scan, scan_arrays):
    patterns = scan_arrays["diff3d"].copy()
    patterns[3] = 0
    assert make_scan(diff3d=patterns).n_positions == 30


def test_subsample_is_seeded_sorted_and_keeps_pairs(make_scan):
    raw = make_scan(bad_pixels=np.eye(32, dtype=bool))
    a, b, c = raw.subsample(10, seed=1), raw.subsample(10, seed=1), raw.subsample(10, seed=2)
    np.testing.assert_array_equal(a.xcoords, b.xcoords)
    assert not np.array_equal(a.diff3d, c.diff3d)
    rows = [int(np.flatnonzero((raw.diff3d == p).all((1, 2)))[0]) for p in a.diff3d]
    assert rows == sorted(rows) and len(set(rows)) == 10
    np.testing.assert_array_equal(a.ycoords, raw.ycoords[rows])
    assert a.bad_pixels is not None
    assert raw.subsample(99, seed=0) is raw and raw.subsample(None, seed=0) is raw
    with pytest.raises(DataError, match="n_subsample is 0"):
        raw.subsample(0, seed=0)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_grouped_data(make_scan, gridsize):
    raw = make_scan()
    data = raw.generate_grouped_data(32, K=6, nsamples=12, seed=3, gridsize=gridsize)
    assert set(data) == GROUPED_KEYS
    C = gridsize**2
    nn = data["nn_indices"]
    assert nn.shape == (12, C) and data["diffraction"].shape == data["X_full"].shape == (12, 32, 32, C)
    assert data["coords_nn"].shape == (12, 1, 2, C) and data["coords_offsets"].shape == (12, 1, 2, 1)
    amplitude = raw.amplitude()
    for k in range(C):
        np.testing.assert_array_equal(data["diffraction"][..., k], amplitude[nn[:, k]])
    np.testing.assert_array_equal(data["coords_nn"][:, 0, 0], raw.xcoords[nn])
    np.testing.assert_array_equal(data["coords_nn"][:, 0, 1], raw.ycoords[nn])
    np.testing.assert_allclose(data["coords_relative"], data["coords_offsets"] - data["coords_nn"])
    np.testing.assert_array_equal(data["coords_start_relative"], data["coords_relative"])
    np.testing.assert_array_equal(data["objectGuess"], raw.objectGuess)


def test_grouped_data_normalises_the_whole_scan_to_one_gauge(make_scan):
    data = make_scan().generate_grouped_data(32, nsamples=30, gridsize=1)
    assert np.mean(np.sum(data["X_full"].astype(float) ** 2, axis=(1, 2))) == pytest.approx(16**2, rel=1e-5)
    reused = make_scan().generate_grouped_data(32, nsamples=30, gridsize=1, normalization=0.5)
    np.testing.assert_array_equal(reused["X_full"], reused["diffraction"] * np.float32(0.5))


def test_labels_sit_at_each_patterns_own_position(make_scan):
    """At whole positions the label is a plain slice of the object, for every member of the group."""
    raw = make_scan()
    data = raw.generate_grouped_data(32, K=6, nsamples=5, seed=0, gridsize=2)
    for b, group in enumerate(data["nn_indices"]):
        for k, m in enumerate(group):
            x, y = int(raw.xcoords[m]), int(raw.ycoords[m])
            expected = raw.objectGuess[y - 16 : y + 16, x - 16 : x + 16]
            np.testing.assert_allclose(data["Y"][b, ..., k], expected, atol=1e-6)


def test_no_object_no_labels(make_scan):
    data = make_scan(objectGuess=None).generate_grouped_data(32, gridsize=1)
    assert data["Y"] is None and data["objectGuess"] is None


def test_grouped_data_refuses_another_n(make_scan):
    with pytest.raises(DataError, match="N is 64 but the patterns are 32 x 32"):
        make_scan().generate_grouped_data(64, gridsize=1)


def test_from_simulation_obeys_parseval(scan_arrays):
    """Unit object: every simulated pattern carries the probe's power; two modes add as intensities."""
    probe = np.stack([scan_arrays["probeGuess"], 0.5 * np.roll(scan_arrays["probeGuess"], 5, axis=1)])
    raw = RawData.from_simulation(
        scan_arrays["xcoords"] + 0.25, scan_arrays["ycoords"], probe, np.ones((120, 120), np.complex64)
    )
    assert raw.diffraction_unit == "amplitude" and raw.diff3d.dtype == np.float32
    power = np.sum(raw.diff3d.astype(float) ** 2, axis=(1, 2))
    np.testing.assert_allclose(power, np.sum(np.abs(probe.astype(complex)) ** 2), rtol=1e-5)


def test_from_simulation_matches_an_independent_fft(scan_arrays):
    raw = RawData.from_simulation(
        scan_arrays["xcoords"], scan_arrays["ycoords"], scan_arrays["probeGuess"], scan_arrays["objectGuess"]
    )
    x, y = int(raw.xcoords[4]), int(raw.ycoords[4])
    patch = scan_arrays["objectGuess"][y - 16 : y + 16, x - 16 : x + 16]
    field = np.fft.fftshift(np.fft.fft2(patch * scan_arrays["probeGuess"])) / 32
    np.testing.assert_allclose(raw.diff3d[4], np.abs(field), atol=1e-3)


def test_simulating_a_square_number_of_patterns_is_not_ambiguous(scan_arrays):
    x = np.linspace(40, 60, 32)
    raw = RawData.from_simulation(x, x, scan_arrays["probeGuess"], np.ones((120, 120), complex))
    assert raw.diff3d.shape == (32, 32, 32)


def test_global_numpy_state_is_untouched(make_scan):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_scan().generate_grouped_data(32, K=6, nsamples=5, seed=0, gridsize=2)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_a_clients_scan_stays_one_and_is_a_scan_of_the_package(tmp_path, scan_arrays):
    """Whatever makes a scan from a client's class makes one that can lay out its groups."""
    raw = RawData.from_coords_without_pc(**scan_arrays)
    raw.to_file(tmp_path / "scan.npz")
    simulated = RawData.from_simulation(
        raw.xcoords, raw.ycoords, raw.probeGuess, np.ones((200, 200), complex)
    )
    made = [
        raw,
        raw.subsample(5),
        raw.with_storage("memory"),
        RawData.from_file(tmp_path / "scan.npz"),
        simulated,
    ]
    for scan in made:
        assert isinstance(scan, RawData)
        assert isinstance(scan, ptycho.scan.raw_data.RawData)
        grouped = scan.generate_grouped_data(32, nsamples=3, gridsize=1)
        assert grouped["X_full"].shape == (3, 32, 32, 1)


def test_marks_of_frames_stay_in_step_and_are_checked(make_scan, tmp_path):
    arrays = {**make_scan(n_positions=40).as_arrays(), "bad_frames": np.arange(40) % 13 == 4}
    raw = RawData(**arrays)
    assert np.flatnonzero(raw.without([0, 17]).bad_frames).tolist() == [3, 28]
    some = raw.subsample(20, seed=1)
    places = [set(map(tuple, one.positions_px[one.bad_frames])) for one in (some, raw)]
    assert places[0] == places[1] & set(map(tuple, some.positions_px))
    raw.to_file(tmp_path / "scan.npz")
    np.testing.assert_array_equal(RawData.from_file(tmp_path / "scan.npz").bad_frames, raw.bad_frames)
    assert "marked_frames" in [one.kind for one in raw.check()]
    for wrong in (np.zeros(39, bool), np.arange(40), np.zeros(40)):
        with pytest.raises(DataError, match="bad_frames"):
            RawData(**{**arrays, "bad_frames": wrong})
