"""Triage without a network: faults do what they say, pictures, numbers, precision, decisions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ptycho.errors import DataError
from ptycho.scan.raw_data import RawData
from ptycho.triage.decision import (
    decide,
    tails_of,
    thresholds_in_scan,
    thresholds_of,
    thresholds_of_scans,
)
from ptycho.triage.faults import DETECTOR, OPTICAL, Setting, moved
from ptycho.triage.features import NUMBERS, images, look, measure, pooling
from ptycho.triage.labels import DUPLICATED, EMPTY, FAULTS, LABELS
from ptycho.triage.precision import average_precision, goodness, judge
from ptycho.triage.sampling import asked_faults, damage, distribution
from ptycho.triage.scans import Ranges, draw_scan

RANGES = Ranges((1e5, 1e5), (64,), (1.0,), (64, 64), 0.0)


@pytest.fixture(scope="module")
def scan():
    """A clean scan of 64 frames of 64 px and about 1e5 photons."""
    return draw_scan(RANGES, np.random.default_rng(3))


def put_in(name: str, scan, seed: int) -> np.ndarray:
    """The fault in a frame; where chance gives one that would not show, the next chance."""
    setting = Setting(scan.counts[9], scan.light[9], 0.0, ~scan.bad_pixels)
    rng = np.random.default_rng(seed)
    made = ({**OPTICAL, **DETECTOR}[name](setting, rng) for _ in range(20))
    return next(frame for frame in made if frame is not None)


def test_the_same_seed_gives_the_same_scan_and_another_another(scan):
    again = draw_scan(RANGES, np.random.default_rng(3))
    other = draw_scan(RANGES, np.random.default_rng(4))
    assert_array_equal(again.counts, scan.counts)
    assert other.counts.sum() != scan.counts.sum()


def test_empty_has_no_light(scan):
    assert put_in("empty", scan, 0).sum() == 0


@pytest.mark.parametrize("seed", range(5))
def test_dim_keeps_at_most_half_of_each_pixels_counts(scan, seed):
    made = put_in("dim", scan, seed)
    assert np.all(made <= scan.counts[9])
    assert 0.04 < made.sum() / scan.counts[9].sum() < 0.51


@pytest.mark.parametrize("seed", range(5))
def test_saturated_stops_at_one_value_in_four_pixels_or_more(scan, seed):
    made = put_in("saturated", scan, seed)
    assert (made == made.max()).sum() >= 4 and made.max() >= 8


@pytest.mark.parametrize("seed", range(5))
def test_shifted_is_the_frame_moved_by_5_to_20_percent_of_the_side(scan, seed):
    made = put_in("shifted", scan, seed)
    spectrum = np.fft.fft2(made) * np.conj(np.fft.fft2(scan.counts[9]))
    at = np.unravel_index(np.fft.ifft2(spectrum).real.argmax(), made.shape)
    shift = np.array([k - 64 if k > 32 else k for k in at])
    assert 0.04 * 64 < np.hypot(*shift) < 0.22 * 64
    assert_array_equal(made, moved(scan.counts[9], *shift))


@pytest.mark.parametrize("seed", range(6))
def test_module_changes_a_rectangle_and_nothing_else(scan, seed):
    changed = put_in("module", scan, seed) != scan.counts[9]
    rows, columns = np.nonzero(changed)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height <= 32 and width <= 32
    assert changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].mean() > 0.2


@pytest.mark.parametrize("seed", range(5))
def test_ring_adds_light_at_one_radius(scan, seed):
    added = put_in("ring", scan, seed) - scan.counts[9]
    assert added.min() >= 0
    assert 0.05 < added.sum() / scan.light[9].sum() < 1.3
    radius = np.hypot(*(np.indices(added.shape) - 32))
    mean = (added * radius).sum() / added.sum()
    assert np.sqrt((added * (radius - mean) ** 2).sum() / added.sum()) < 2.5


def test_what_would_not_show_is_not_put_in(scan):
    dark = Setting(np.zeros((64, 64), np.int64), np.zeros((64, 64)), 0.0, ~scan.bad_pixels)
    rng = np.random.default_rng(0)
    assert all(make(dark, rng) is None for make in (*OPTICAL.values(), DETECTOR["saturated"]))


def test_duplicates_and_their_labels_go_together(scan):
    asked = [()] * 64
    asked[15], asked[16] = ("dim",), ("duplicated",)
    for seed in range(8):
        made = damage(scan.counts, asked, np.random.default_rng(seed), light=scan.light)
        source = next(m for m in range(16) if np.array_equal(made.counts[m], made.counts[16]))
        assert made.labels[16, DUPLICATED]
        assert_array_equal(np.delete(made.labels[16], DUPLICATED), np.delete(made.labels[source], DUPLICATED))
        found = measure(made.counts).repeats
        assert found[16] == source and (found >= 0).sum() == 1


def test_the_sampler_asks_for_the_share_that_it_was_given():
    rng = np.random.default_rng(0)
    asked = asked_faults(4000, 0.2, rng)
    share = np.mean([bool(names) for names in asked])
    assert 0.17 < share < 0.23
    assert {name for names in asked for name in names} == set(FAULTS)
    assert all(names == () or len(names) <= 2 for names in asked)


def test_the_distribution_counts_good_frames_and_pairs():
    labels = np.zeros((4, len(FAULTS)), bool)
    labels[0, 1] = labels[1, 1] = labels[1, 3] = True
    known = distribution(labels)
    assert (known["good"], known["dim"], known["shifted"], known["several"]) == (0.5, 0.5, 0.25, 0.25)


@pytest.mark.parametrize("N", [32, 40, 64, 100, 256])
def test_pooling_adds_up_every_pixel_once_in_the_middle(N):
    into = pooling(N)
    assert_array_equal(into.sum(axis=1), 1)
    frame = np.zeros((1, N, N), np.float32)
    frame[0, N // 2, N // 2] = 7
    pooled = measure(frame, "counts").pooled[0]
    assert pooled.sum() == 7 and pooled[16, 16] == 7


def test_bad_pixels_and_the_unit_do_not_change_what_is_measured(scan):
    counts = scan.counts[:8].copy()
    mask = np.zeros((64, 64), bool)
    mask[3, 4:9] = True
    clean = np.where(mask, 0, counts)
    counts[:, mask] = -1
    a, b = measure(counts, "counts", mask), measure(np.sqrt(clean.astype(np.float64)), "amplitude")
    assert_allclose(a.pooled, b.pooled, rtol=1e-5)
    assert_array_equal(a.n_top, measure(clean).n_top)


def test_a_nan_is_named(scan):
    frames = scan.counts[:8].astype(np.float32)
    frames[2, 5, 5] = np.nan
    with pytest.raises(DataError, match="1 frames: mark the pixels in bad_pixels"):
        measure(frames)


def test_too_few_frames_are_refused(scan):
    with pytest.raises(DataError, match="at least 6 frames, this scan has 5"):
        look(measure(scan.counts[:5]), scan.positions_px[:5])


def test_neighbours_are_the_mean_of_the_middle_three_of_five(scan):
    from ptycho.scan.grouping import nearest_neighbors

    measured = measure(scan.counts)
    seen = look(measured, scan.positions_px)
    near = nearest_neighbors(scan.positions_px, 5)
    wanted = np.sort(measured.pooled[near], axis=1)[:, 1:4].mean(axis=1)
    assert_allclose(seen.around, wanted, rtol=1e-4, atol=1e-3)


def test_one_strange_frame_does_not_move_its_neighbours_reference(scan):
    counts = scan.counts.copy()
    before = look(measure(counts), scan.positions_px)
    counts[20] = 0
    after = look(measure(counts), scan.positions_px)
    share = np.abs(after.around - before.around).sum(axis=(1, 2)) / before.around.sum(axis=(1, 2))
    assert share.max() < 0.25 and np.median(share) < 0.01


def test_the_numbers_say_what_their_names_say(scan):
    counts = scan.counts.copy()
    counts[20] = counts[20] // 10
    counts[30] = counts[12]
    seen = look(measure(counts), scan.positions_px)
    column = {name: seen.numbers[:, k] for k, name in enumerate(NUMBERS)}
    assert column["log total over that of the neighbours"][20] == pytest.approx(-1, abs=0.15)
    assert_array_equal(np.flatnonzero(column["repeats an earlier frame"]), [30])
    assert column["log median total of the scan"][0] == pytest.approx(
        np.log10(np.median(counts.sum((1, 2)))), abs=0.01
    )


def test_pictures_are_anscombes_and_blind_to_a_dose_that_all_frames_share(scan):
    frames, around = measure(scan.counts[:4]).pooled, measure(scan.counts[4:8]).pooled
    made = images(frames, around, around[:1], 2.0)
    z = (2 * np.sqrt(frames + 0.375) - 2 * np.sqrt(around + 0.375)) / 2
    assert_allclose(made[:, 3], np.sign(z) * np.log(1 + np.abs(z)), rtol=1e-4, atol=1e-5)
    assert_allclose((made[:, 0] ** 2).mean(axis=(1, 2)), 1, rtol=1e-3)
    assert np.abs(images(4 * frames, frames, frames[:1], 1.0)[:, 4]).max() < 0.3


def test_average_precision_of_hand_computed_rankings():
    assert average_precision([3, 2, 1], [1, 0, 1]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([3, 2, 1, 0], [0, 0, 0, 1]) == pytest.approx(1 / 4)
    assert average_precision([1, 1, 1, 1], [0, 1, 0, 1]) == pytest.approx(1 / 2)  # ties are one threshold
    assert average_precision([0.9, 0.1], [1, 0]) == 1.0


def oracle(scores: np.ndarray, positive: np.ndarray) -> float:
    """Average precision by its definition: every threshold tried, one after another."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        called = [bool(s >= threshold) for s in scores]
        hits = sum(c and p for c, p in zip(called, positive.tolist(), strict=True))
        recall, precision = hits / int(positive.sum()), hits / sum(called)
        total, before = total + (recall - before) * precision, recall
    return total


@pytest.mark.parametrize("seed", range(10))
def test_average_precision_equals_its_definition_with_ties(seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.2
    positive[0] = True
    scores = np.round(rng.random(60) + 0.4 * positive, 1)
    assert average_precision(scores, positive) == pytest.approx(oracle(scores, positive))


@pytest.mark.parametrize("scores, positive", [([0.1, 0.2], [0, 0]), ([np.nan, 0.2], [0, 1])])
def test_average_precision_that_cannot_be_had_is_zero_with_a_warning(scores, positive, caplog):
    assert average_precision(scores, positive) == 0.0
    assert "0.0 is taken" in caplog.text


def test_the_judgement_counts_each_label_and_the_confusion_each_row():
    labels = np.zeros((5, len(FAULTS)), bool)
    labels[0, EMPTY] = labels[1, 1] = labels[2, 1] = labels[2, 3] = True
    probability = np.where(labels, 0.9, 0.1)
    probability[1, 1] = 0.2
    judged = judge(probability, labels)
    assert judged.recall["dim"] == 0.5 and judged.precision["dim"] == 1.0
    assert judged.precision["good"] == pytest.approx(2 / 3) and judged.recall["good"] == 1.0
    assert judged.average_precision["dim"] == 1.0
    row = dict(zip(LABELS, judged.confusion[LABELS.index("dim")].tolist(), strict=True))
    assert row["good"] == 1 and row["dim"] == 1
    assert judged.confusion.sum() == 6  # the frame of two faults counts in both rows
    assert_allclose(goodness(np.array([[0.5, 0.5]])), 0.25)


def test_thresholds_lie_above_every_good_frame():
    probability = np.full((3, len(FAULTS)), 0.01)
    probability[0, 2], probability[2, 1] = 0.8, 0.99
    labels = np.zeros((3, len(FAULTS)), bool)
    labels[2, 1] = True
    made = thresholds_of(probability, labels)
    assert made[2] > 0.8 and made[1] == pytest.approx(0.5)
    assert not (probability[:2] >= made).any()


def scan_of(odds: list[float], fault: int) -> np.ndarray:
    """Probabilities of a scan whose frames have these log odds of one fault, and hardly of the others."""
    made = np.full((len(odds), len(FAULTS)), 1e-4)
    made[:, fault] = 1 / (1 + np.exp(-np.array(odds)))
    return made


def test_a_scan_that_looks_like_a_fault_throughout_needs_more():
    usual = np.full(len(FAULTS), -3.0)
    limits = np.full(len(FAULTS), 0.95, np.float32)
    quiet = scan_of([-6.0] * 90 + [3.5] * 10, 4)
    loud = scan_of([-6.0] * 60 + [0.0] * 38 + [3.5] * 2, 4)
    assert_array_equal(thresholds_in_scan(quiet, limits, None), limits)
    assert_allclose(thresholds_in_scan(quiet, limits, usual), limits)
    raised = thresholds_in_scan(loud, limits, usual)
    assert raised[4] == pytest.approx(1 / (1 + np.exp(-(np.log(19) + 3))), rel=1e-5)
    assert_allclose(np.delete(raised, 4), 0.95)
    never = np.full(100, -1)
    assert decide(quiet, limits, never, None, usual).bad.sum() == 10
    assert decide(loud, limits, never, None, usual).bad.sum() == 0
    assert decide(loud, limits, never).bad.sum() == 2


def test_a_clear_fault_of_many_frames_does_not_raise_its_own_threshold():
    many = scan_of([-6.0] * 60 + [7.0] * 40, 4)
    limits, usual = np.full(len(FAULTS), 0.95), np.full(len(FAULTS), -3.0)
    assert decide(many, limits, np.full(100, -1), None, usual).bad.sum() == 40
    assert_allclose(tails_of(scan_of([9.0] * 5, 4))[4], -np.inf)


def test_thresholds_of_scans_lie_above_every_good_frame_in_its_scan():
    rng = np.random.default_rng(0)
    scans = [scan_of(list(rng.normal(-6 + (k == 3) * 7, 1.0, 50)), 4) for k in range(20)]
    labels = [np.zeros((50, len(FAULTS)), bool) for _ in scans]
    limits, usual = thresholds_of_scans(scans, labels)
    assert limits[1:].min() >= 0.9 - 1e-6
    assert limits[0] == 0.5
    assert not any((one >= thresholds_in_scan(one, limits, usual)).any() for one in scans)
    assert limits[4] < thresholds_of(np.concatenate(scans), np.concatenate(labels))[4]


def test_a_duplicate_is_called_by_comparison_alone():
    probability = np.zeros((3, len(FAULTS)), np.float32)
    probability[0, DUPLICATED] = 1.0
    called = decide(probability, np.full(len(FAULTS), 0.5), np.array([-1, -1, 0])).called
    assert_array_equal(called[:, DUPLICATED], [False, False, True])


def test_what_was_called_in_words_as_findings_and_as_a_record():
    probability = np.zeros((8, len(FAULTS)), np.float32)
    probability[2, 1] = probability[2, 3] = probability[5, EMPTY] = 0.9
    made = decide(probability, np.full(len(FAULTS), 0.5), np.full(8, -1), np.arange(10, 18))
    assert made.line() == "2 of 8 frames look bad: 1 empty, 1 dim, 1 shifted"
    assert made.reasons() == {12: ["dim", "shifted"], 15: ["empty"]}
    assert [f.kind for f in made.findings()] == ["triage_empty", "triage_dim", "triage_shifted"]
    assert [f.kind for f in made.findings({"empty_patterns"})] == ["triage_dim", "triage_shifted"]
    assert made.as_dict()["frames"][0]["frame"] == 12
    made.check_few("scan.npz")


def test_more_than_half_bad_is_refused():
    probability = np.zeros((8, len(FAULTS)), np.float32)
    probability[:5, 1] = 0.9
    with pytest.raises(DataError, match="scan.npz: 5 of 8 frames look bad: 5 dim; more than half"):
        decide(probability, np.full(len(FAULTS), 0.5), np.full(8, -1)).check_few("scan.npz")


def test_a_scan_without_frames_keeps_positions_patterns_and_numbers_in_step(make_scan):
    raw = make_scan()
    left = raw.without([3, 7]).without([0])
    rows = [m for m in range(30) if m not in (0, 3, 7)]
    rows_twice = [m for k, m in enumerate(m for m in range(30) if m not in (3, 7)) if k != 0]
    assert rows == rows_twice
    assert_array_equal(left.frame_numbers, rows)
    assert_array_equal(left.xcoords, raw.xcoords[rows])
    assert_array_equal(np.asarray(left.diff3d), np.asarray(raw.diff3d)[rows])
    assert raw.frame_numbers is None and raw.without([]) is raw
    assert isinstance(left, RawData) and left.n_positions == 27
    with pytest.raises(DataError, match="no frame would be left"):
        raw.without(range(30))


def test_frames_that_are_not_trusted_stand_for_no_neighbour(scan):
    measured = measure(scan.counts)
    trusted = np.ones(64, bool)
    trusted[[20, 21, 22]] = False
    counts = scan.counts.copy()
    counts[[20, 21, 22]] = 7
    spoiled = look(measure(counts), scan.positions_px, 1.0, trusted)
    clean = look(measured, scan.positions_px, 1.0, trusted)
    assert_array_equal(spoiled.around, clean.around)
    assert_array_equal(spoiled.usual, clean.usual)
    assert not np.array_equal(clean.around, look(measured, scan.positions_px).around)
