"""A scan's numbers by hand: partial chunks, bright bad pixels, odd halves, seeds, options that must count."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.physics import extract
from ptycho.scan import checks, normalization, units
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.grouping import group_offsets, group_positions, nearest_neighbors
from ptycho.scan.labels import cut_patches
from ptycho.scan.pattern_store import store_patterns
from ptycho.scan.probe import illuminated_diameter_px, orthogonalise_modes, probe_mask, radius_px
from ptycho.scan.raw_data import RawData
from ptycho.scan.report import describe_scan
from ptycho.scan.scan_set import ScanSet, most_alike, probe_overlap

Make = Callable[..., RawData]
RNG = np.random.default_rng


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of three patterns of 32 x 32: thirty-one patterns end with a chunk of one."""
    monkeypatch.setattr(normalization, "_CHUNK_BYTES", 3 * 8 * 32 * 32)


def bright_mask() -> np.ndarray:
    """A mask over the brightest pixels, in the middle of the pattern."""
    bad = np.zeros((32, 32), bool)
    bad[14:18, 15:17] = True
    return bad


# checks


def test_a_negative_count_in_a_later_chunk_is_found():
    from ptycho.io.lazy import CHUNK_BYTES

    rows = CHUNK_BYTES // (32 * 32 * 4) + 5
    patterns = np.broadcast_to(np.ones((1, 32, 32), np.float32), (rows, 32, 32)).copy()
    patterns[-1, 3, 4] = -2.0
    with pytest.raises(
        DataError, match=rf"negative counts \(lowest -2\) at pixel \(3, 4\), the first in pattern {rows - 1}"
    ):
        checks.check_patterns(patterns, "counts")
    patterns[-1, 3, 4] = np.inf
    with pytest.raises(DataError, match=f"first in pattern {rows - 1}"):
        checks.check_patterns(patterns, "counts")


@pytest.mark.parametrize("values", [[0.0, 1.0, 1.5], [0.0, np.nan, 1.0]])
def test_scan_index_is_whole(values):
    with pytest.raises(DataError, match="whole numbers"):
        checks.check_scan_index(values, 3)
    assert checks.check_scan_index([0.0, 1.0, 2.0], 3).tolist() == [0, 1, 2]


def test_one_bad_pixel_is_a_map_and_all_are_not():
    bad = np.zeros((32, 32))
    assert not checks.check_bad_pixels(bad, 32).any()
    bad[0, 0] = 1
    assert checks.check_bad_pixels(bad, 32).sum() == 1
    with pytest.raises(DataError, match="marks every pixel"):
        checks.check_bad_pixels(np.ones((32, 32)), 32)


# groups


def scattered(count: int = 40, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    x, y = RNG(seed).uniform(0, 50, (2, count))
    return x, y


def test_every_seed_is_a_seed_of_its_own():
    x, y = scattered()
    made = [group_positions(x, y, 2, n_groups=25, seed=seed) for seed in (0, 1, 2, None)]
    assert (made[0] == made[3]).all()
    for one, other in combinations(made[:3], 2):
        assert (one != other).any()


def test_members_of_a_group_are_drawn_from_all_k_neighbours():
    x, y = scattered(400)
    groups = group_positions(x, y, 2, n_neighbors=8, seed=0)
    distance = np.hypot(x[groups] - x[groups[:, :1]], y[groups] - y[groups[:, :1]])
    order = nearest_neighbors(np.stack([x, y], 1), 8)
    rank = (groups[:, 1:, None] == order[groups[:, 0]][:, None]).argmax(-1)
    assert (distance[:, 0] == 0).all() and set(rank.ravel()) == set(range(8))
    assert np.bincount(rank.ravel(), minlength=8).min() > 0.7 * rank.size / 8


def test_nearest_neighbours_are_the_nearest_others():
    x, y = scattered(25)
    places = np.stack([x, y], 1)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (nearest_neighbors(places, 5) == np.argsort(distance, 1)[:, :5]).all()


def test_pool_widens_what_is_drawn_from():
    x, y = scattered(60)
    near = group_positions(x, y, 2, n_neighbors=3, seed=0)
    wide = group_positions(x, y, 2, n_neighbors=3, neighbor_pool_size=20, seed=0)
    order = nearest_neighbors(np.stack([x, y], 1), 20)
    rank = [(groups[:, 1:, None] == order[:, None][groups[:, 0]]).argmax(-1).max() for groups in (near, wide)]
    assert rank[0] == 2 and rank[1] >= 15


def test_sequential_takes_the_first_positions():
    x, y = scattered()
    assert group_positions(x, y, 1, n_groups=7, sequential=True, seed=5)[:, 0].tolist() == list(range(7))
    assert group_positions(x, y, 1, n_groups=7, seed=5)[:, 0].tolist() != list(range(7))


def test_more_groups_than_positions_are_asked_for_and_end_at_the_ceiling():
    x, y = scattered(6)
    options = {"n_neighbors": 4, "seed": 0, "enable_oversampling": True}
    ceiling = 6 * math.comb(4, 3)
    made = group_positions(x, y, 2, n_groups=ceiling, **options)
    keys = {(row[0], *sorted(row[1:])) for row in made.tolist()}
    assert len(keys) == ceiling
    with pytest.raises(DataError, match=f"only {ceiling} distinct groups"):
        group_positions(x, y, 2, n_groups=ceiling + 1, **options)
    with pytest.raises(DataError, match="enable_oversampling"):
        group_positions(x, y, 2, n_groups=7, n_neighbors=4)


def test_no_combination_repeats_while_unused_ones_remain():
    """Strides of several seeds: those that share a factor with the number of combinations would repeat."""
    x, y = scattered(9)
    for seed in range(6):
        made = group_positions(x, y, 2, n_groups=9 * 15, n_neighbors=6, seed=seed, enable_oversampling=True)
        keys = {(row[0], *sorted(row[1:])) for row in made.tolist()}
        assert len(keys) == len(made)


def test_relative_positions_point_from_the_pattern_to_the_mean():
    offsets, relative = group_offsets(np.array([0.0, 4.0]), np.array([1.0, 3.0]), np.array([[0, 1]]))
    assert offsets[0, 0, :, 0].tolist() == [2.0, 2.0]
    assert relative[0, 0].tolist() == [[2.0, -2.0], [1.0, -1.0]]


# labels


def test_labels_of_more_positions_than_one_chunk():
    obj = (RNG(0).standard_normal((20, 22)) + 1j).astype(np.complex64)
    places = RNG(1).uniform(4, 16, (261, 2))
    made = cut_patches(obj, places, 4)
    assert np.allclose(made, extract(obj, places[:, 0], places[:, 1], 4), atol=1e-6)
    assert cut_patches(obj, places[:6].reshape(2, 3, 2), 4).shape == (2, 3, 4, 4)


def test_label_scale_multiplies_both_kinds_of_labels(make_scan):
    raw = make_scan(n_positions=6)
    cut = PtychoDataContainer.from_raw(raw, 1)
    rows = np.arange(3)
    assert np.allclose(cut.pattern_labels(rows, 2.5), 2.5 * cut.pattern_labels(rows))
    arrays = raw.as_arrays()
    given = RawData(**{**arrays, "Y": np.ones(raw.diff3d.shape, complex) * (1 + 1j)})
    assert np.allclose(PtychoDataContainer.from_raw(given, 1).pattern_labels(rows, 2.5), 2.5 + 2.5j)


# normalisation


def test_mean_power_is_the_mean_over_patterns_whatever_the_chunks(small_chunks):
    amplitude = RNG(0).uniform(0, 3, (31, 32, 32)).astype(np.float32)
    amplitude[-1] *= 9  # the last, partial chunk is the brightest
    bad = bright_mask()
    power = amplitude.astype(float) ** 2
    assert normalization.mean_power(amplitude) == pytest.approx(power.sum((1, 2)).mean())
    power[:, bad] = 0
    assert normalization.mean_power(amplitude, bad) == pytest.approx(power.sum((1, 2)).mean())
    wanted = math.sqrt((32 / 2) ** 2 / power.sum((1, 2)).mean())
    assert normalization.x_scale(amplitude, bad) == pytest.approx(wanted)


def test_numbers_of_a_container_leave_bad_pixels_out(make_scan):
    bad = bright_mask()
    raw = make_scan(n_positions=12, bad_pixels=bad)
    counts = raw.diff3d.astype(float) * ~bad
    stored = store_patterns(raw)
    assert stored.nphotons == pytest.approx(counts.sum((1, 2)).mean())
    assert stored.x_scale == pytest.approx(16 / math.sqrt(counts.sum((1, 2)).mean()))
    assert normalization.photons_from_data(raw) == pytest.approx(stored.nphotons)
    given = store_patterns(raw, x_scale=0.25, nphotons=7.0)
    assert (given.x_scale, given.nphotons) == (0.25, 7.0)
    assert given.patterns == pytest.approx(0.25 * raw.amplitude())
    made = PtychoDataContainer.from_raw(raw, 1)
    assert made.x_scale == pytest.approx(stored.x_scale)
    assert made.intensity_scale == pytest.approx(2 * math.sqrt(stored.nphotons) / 32)


def test_grouped_data_are_normalised_without_bad_pixels(make_scan):
    bad = bright_mask()
    raw = make_scan(n_positions=12, bad_pixels=bad)
    made = raw.generate_grouped_data(32, nsamples=12, gridsize=1)
    scale = 16 / math.sqrt((raw.diff3d.astype(float) * ~bad).sum((1, 2)).mean())
    assert made["X_full"] == pytest.approx(scale * made["diffraction"], rel=1e-5)
    given = raw.generate_grouped_data(32, nsamples=12, gridsize=1, normalization=0.5)
    assert given["X_full"] == pytest.approx(0.5 * given["diffraction"])


def test_photons_of_amplitudes_whose_squares_are_whole(make_scan):
    raw = make_scan(n_positions=12)
    bad = bright_mask()
    found = normalization.photons_from_amplitude(raw.amplitude(), "amplitude", bad)
    assert found == pytest.approx((raw.diff3d.astype(float) * ~bad).sum((1, 2)).mean(), rel=1e-5)
    blurred = raw.amplitude() * 1.013
    assert normalization.photons_from_amplitude(blurred, "amplitude") == normalization.DEFAULT_NPHOTONS


def test_probe_gauge_counts_the_power_of_all_modes():
    modes = np.stack([np.full((8, 8), 2.0 + 0j), np.full((8, 8), 1j)])
    made, factor = normalization.normalize_probe(modes, 3.0)
    assert factor == pytest.approx((8 / 2) * (3.0 / 2) / math.sqrt(64 * 5))
    assert made == pytest.approx(modes * factor)


# probe


def test_mask_follows_diameter_and_softness():
    from scipy.stats import norm

    r = radius_px(16)
    assert r[8, 8] == 0 and r[8, 0] == 8 and r[11, 12] == 5
    assert (probe_mask(16, 0.0, 10.0) == (r <= 5)).all()
    assert (probe_mask(16, 0.0) == (r <= 4)).all()
    for sigma, diameter in ((1.0, 6.0), (2.5, 9.0)):
        assert probe_mask(16, sigma, diameter) == pytest.approx(
            norm.cdf((diameter / 2 - r) / sigma), abs=1e-6
        )


def test_modes_come_out_orthogonal_and_strongest_first():
    modes = RNG(0).standard_normal((3, 8, 8)) + 1j * RNG(1).standard_normal((3, 8, 8))
    modes *= np.array([0.1, 1.0, 3.0])[:, None, None]
    made = orthogonalise_modes(modes).reshape(3, -1).astype(np.complex128)
    gram = made @ made.conj().T
    power = gram.diagonal().real
    assert np.abs(gram - np.diag(power)).max() < 1e-4 * power.max()
    assert (np.diff(power) < 0).all()
    wanted = modes.reshape(3, -1)
    assert np.allclose(made.T @ made.conj(), wanted.T @ wanted.conj(), atol=1e-4)


def test_diameter_holds_the_share_that_was_asked_for():
    disk = (radius_px(64) <= 20).astype(complex)
    for fraction in (0.3, 0.9):
        wanted = 2 * 20 * math.sqrt(fraction)
        assert illuminated_diameter_px(disk, fraction) == pytest.approx(wanted, abs=1.0)
    assert illuminated_diameter_px(disk) == illuminated_diameter_px(disk, 0.9)


# raw data


def test_subsample_takes_the_rows_of_everything(make_scan):
    raw = make_scan(n_positions=30, bad_pixels=bright_mask(), scan_index=np.arange(30))
    arrays = raw.as_arrays()
    raw = RawData(**{**arrays, "xcoords_start": raw.xcoords + 100, "ycoords_start": raw.ycoords - 100})
    picks = []
    for seed in (0, 1, 2):
        made = raw.subsample(11, seed)
        rows = made.scan_index
        picks.append(tuple(rows))
        assert (made.xcoords == raw.xcoords[rows]).all() and (made.diff3d == raw.diff3d[rows]).all()
        assert (made.xcoords_start == raw.xcoords[rows] + 100).all()
        assert (made.ycoords_start == raw.ycoords[rows] - 100).all()
        assert (made.bad_pixels == raw.bad_pixels).all()
    assert len(set(picks)) == 3 and tuple(raw.subsample(11).scan_index) == picks[0]
    made = PtychoDataContainer.from_raw(raw, 1)
    assert (made.true_positions_px[:, 0] == raw.xcoords_start).all()
    assert made.coords_true.shape == made.local_offsets.shape


def test_simulation_in_chunks_is_the_oracle(make_scan):
    from ptycho.physics import diffract

    raw = make_scan(n_positions=67)
    made = RawData.from_simulation(raw.xcoords, raw.ycoords, raw.probeGuess, raw.objectGuess)
    wanted = np.sqrt(diffract(extract(raw.objectGuess, raw.xcoords, raw.ycoords, 32), raw.probeGuess))
    assert np.abs(made.diff3d - wanted).max() < 1e-4 * wanted.max()


def test_split_holds_out_at_least_one_and_never_all(make_scan):
    made = PtychoDataContainer.from_raw(make_scan(n_positions=9), 1)
    train, held = made.split(0.0)
    assert (len(train), len(held)) == (8, 1)
    assert [len(part) for part in made.split(1.0)] == [1, 8]
    assert [len(part) for part in made.split(0.5)] == [5, 4]
    picks = {tuple(made.split(0.4, seed)[1]) for seed in range(5)}
    assert len(picks) > 1
    assert (made.split(0.4, None)[1] == made.split(0.4, 0)[1]).all()


# units


def test_whole_numbers_are_never_amplitude():
    counts = np.ones((2, 4, 4), np.uint16)
    with pytest.raises(DataError, match="whole numbers are counts"):
        units.decide_unit(counts, "amplitude")
    floats = counts.astype(np.float32) * 0.5
    assert units.decide_unit(floats) == "amplitude" and units.decide_unit(floats, None, True) == "counts"
    assert units.decide_unit(floats, "amplitude", True) == "amplitude"
    assert units.to_amplitude(counts * 9, "counts")[0, 0, 0] == 3.0


# what validate says


def test_report_counts_without_bad_pixels(make_scan):
    bad = bright_mask()
    raw = make_scan(n_positions=14, bad_pixels=bad)
    raw.diff3d[:, bad] = 9000  # brighter than any good pixel
    counts = raw.diff3d.astype(float) * ~bad
    made = describe_scan(raw)
    assert made.max_count == pytest.approx(counts.max(), rel=1e-5)
    sums = counts.sum((1, 2))
    assert made.counts_mean == pytest.approx(sums.mean(), rel=1e-5)
    assert (made.counts_min, made.counts_max) == pytest.approx((sums.min(), sums.max()), rel=1e-5)
    assert made.n_bad_pixels == bad.sum()


def test_light_off_the_centre_is_told_by_row_and_column(make_scan):
    raw = make_scan(n_positions=9)
    arrays = raw.as_arrays()
    moved = RawData(**{**arrays, "diff3d": np.roll(raw.diff3d, (6, -3), (1, 2))})
    found = next(problem for problem in describe_scan(moved).problems if "zero frequency" in problem)
    row, column = (float(re.search(rf"{word} ([0-9.]+)", found)[1]) for word in ("row", "column"))
    assert row == pytest.approx(22, abs=0.7) and column == pytest.approx(13, abs=0.7)


def test_positions_on_the_last_pixel_of_the_object_are_inside(make_scan):
    raw = make_scan(n_positions=9)
    height, width = raw.objectGuess.shape
    raw.xcoords[:] = np.linspace(0, width - 1, 9)
    raw.ycoords[:] = np.linspace(0, height - 1, 9)
    assert not any("outside" in problem for problem in describe_scan(raw).problems)
    raw.xcoords[8] = width - 0.5
    raw.ycoords[0] = -0.5
    assert any("outside" in problem for problem in describe_scan(raw).problems)


# which training scan


def test_most_alike_by_the_strongest_mode_and_then_by_the_scale():
    rng = RNG(0)
    one, other = (rng.standard_normal((8, 8)) + 1j * rng.standard_normal((8, 8)) for _ in range(2))
    two = np.stack([0.1 * other, one])
    assert probe_overlap(two, one[None] * np.exp(2.1j)) == pytest.approx(1.0)
    wanted = abs(np.vdot(one, other)) / np.linalg.norm(one) / np.linalg.norm(other)
    assert probe_overlap(one[None], other[None]) == pytest.approx(wanted)
    known = [(other[None], 1.0), (one[None], 8.0), (one[None], 1.0), (one[None], 0.3)]
    assert most_alike(two, 1.2, known) == 2
    assert most_alike(two, 0.25, known) == 3
    assert most_alike(two, 100.0, known) == 1


def test_scan_set_knows_whose_group_it_is(make_scan):
    made = ScanSet.of([PtychoDataContainer.from_raw(make_scan(n_positions=n), 1) for n in (4, 9)])
    assert len(made) == 13
    place, local = made.where(np.array([4, 12]))
    assert place == 1 and local.tolist() == [0, 8]
    assert made.where(np.array([3]))[0] == 0
