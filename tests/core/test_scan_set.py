"""Several scans in one training: batches of one scan each, numbers, normalisation, and who is like whom."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho.config.config import ModelConfig, TrainingConfig
from ptycho.errors import ConfigError, DataError, MissingFileError
from ptycho.run.batches import epoch_batches, split_scans
from ptycho.run.preparation import plan_training, train_and_test
from ptycho.scan.scan_set import ScanSet, most_alike, stacked


def config(**changes) -> TrainingConfig:
    return TrainingConfig(ModelConfig(N=32), batch_size=8, **changes)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_every_group_once_an_epoch_beside_groups_of_its_own_scan(ratio):
    scans = [np.arange(50), np.arange(50, 71), np.arange(71, 75)]
    centres = np.random.default_rng(0).uniform(0, 60, (75, 2))
    turns = set()
    for epoch in range(3):
        batches = epoch_batches(scans, centres, 8, region_ratio=ratio, seed=1, epoch=epoch)
        assert len(batches) == 7 + 3 + 1
        assert sorted(np.concatenate([groups for groups, _ in batches])) == list(range(75))
        for groups, _ in batches:
            assert sum(bool(np.isin(groups, scan).all()) for scan in scans) == 1
        turns.add("".join(str(sum(g[0] >= s[0] for s in scans)) for g, _ in batches))
    assert len(turns) == 3, "the scans take turns at random"


def test_one_scan_is_batched_as_ever():
    """The order of one scan is that of the versions that knew one scan only, so that their runs repeat."""
    centres = np.random.default_rng(0).uniform(0, 60, (12, 2))
    batches = epoch_batches([np.arange(12)], centres, 4, region_ratio=0.5, seed=2, epoch=1)
    wanted = [([1, 10, 9, 3], True), ([7, 6, 0, 5], False), ([4, 2, 8, 11], True)]
    assert [(groups.tolist(), region) for groups, region in batches] == wanted


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_every_scan_holds_out_its_share(ratio):
    rng = np.random.default_rng(0)
    splits = split_scans(
        [rng.uniform(0, 60, (50, 2)), rng.uniform(0, 60, (20, 2))],
        val_fraction=0.1, batch_size=8, region_ratio=ratio, seed=0,
    )  # fmt: skip
    assert [int(split.held_out.sum()) for split in splits] == [5, 2]
    begin = 0
    for split in splits:
        own = np.arange(begin, begin + len(split.held_out))
        assert set(split.train) == set(own[~split.held_out])
        judged = np.concatenate([groups for groups, _ in split.validation])
        assert set(own[split.held_out]) <= set(judged) <= set(own)
        begin += len(own)


def test_groups_are_numbered_through_all_scans(pair):
    scans, _ = train_and_test(pair, None, config())
    assert isinstance(scans, ScanSet) and len(scans) == 64 and scans.n_patterns == 64
    place, local = scans.where(np.array([40, 45, 63]))
    assert place == 1 and local.tolist() == [0, 5, 23]
    assert scans.where(np.array([39]))[0] == 0


def test_each_scan_has_a_normalisation_of_its_own(pair):
    scans, _ = train_and_test(pair, None, config())
    for one in scans.containers:
        power = np.square(one.patterns.astype(float)).sum((1, 2)).mean()
        assert power == pytest.approx((32 / 2) ** 2, rel=1e-5)
    weak, strong = (one.nphotons for one in scans.containers)
    assert 50 < strong / weak < 200


def test_a_list_of_one_is_that_one(pair):
    (alone, _), (listed, _) = (train_and_test(given, None, config()) for given in (pair[0], [pair[0]]))
    assert np.array_equal(alone.patterns, listed.patterns) and alone.x_scale == listed.x_scale


def test_a_held_out_scan_is_seen_as_the_one_it_is_like(pair, make_scan):
    held = make_scan(n_positions=16, photons=1e6, seed=8, curvature=-0.05)
    scans, test = train_and_test(pair, held, config())
    assert test.numbers == (1,)
    assert test.containers[0].x_scale == scans.containers[1].x_scale
    plan = plan_training(scans, test, config())
    assert plan.validation_set is test and plan.held_out is None and plan.n_groups == 64


def test_the_nearest_probe_wins_then_the_nearest_dose(pair):
    one, other = (scan.probe_modes for scan in pair)
    assert most_alike(other * 3j, 1.0, [(one, 1.0), (other, 50.0)]) == 1
    assert most_alike(one, 2.0, [(one, 0.1), (one * 2, 1.9), (one, 40.0)]) == 1
    assert most_alike(one, 2.0, [(one, 2.0), (one, 2.0)]) == 0


def test_fewer_modes_are_filled_with_dark_ones():
    modes = [np.ones((2, 4, 4), np.complex64), np.ones((1, 4, 4), np.complex64)]
    made = stacked(modes)
    assert made.shape == (2, 2, 4, 4) and not made[1, 1].any() and made[1, 0].all()


def test_no_scan():
    with pytest.raises(DataError, match="no scan to train on"):
        train_and_test([], None, config())


def test_another_size_is_named(make_scan):
    small, large = make_scan(N=32), make_scan(N=64)
    with pytest.raises(ConfigError, match=r"ModelConfig.N = 32, but the patterns are 64 x 64"):
        train_and_test([small, large], None, config())
    containers = [
        train_and_test(scan, None, dataclasses.replace(config(), model=ModelConfig(N=scan.N)))[0]
        for scan in (small, large)
    ]
    with pytest.raises(DataError, match=r"scan 1 has patterns of 64 x 64 px, 1 a group, scan 0 of 32 x 32"):
        ScanSet.of(containers)


def test_labels_missing_in_one_scan_are_named(pair, make_scan):
    blind = make_scan(objectGuess=None)
    supervised = config()
    supervised.model.model_type = "supervised"
    scans, _ = train_and_test([pair[0], blind], None, supervised)
    with pytest.raises(DataError, match="training scan 1: labels are needed"):
        plan_training(scans, None, supervised)


def test_further_files_are_looked_for(tmp_path, pair):
    from ptycho.run.validation import validate_training_config

    pair[0].to_file(tmp_path / "a.npz")
    given = config(train_data_file=tmp_path / "a.npz", output_dir=tmp_path / "out")
    for files, error, words in (
        ([str(tmp_path / "none.npz")], MissingFileError, "more_train_data_files: .*none.npz.*no such file"),
        ([str(tmp_path / "a.npz")], ConfigError, "is given twice: a scan counts once"),
        ([3], ConfigError, "3 must be a path"),
    ):
        given.more_train_data_files = files
        with pytest.raises(error, match=words):
            validate_training_config(given)
