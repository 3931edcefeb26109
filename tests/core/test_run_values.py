"""Batches, schedules, held-out groups, labels, starting probes and stitching of a run, against plain
values.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from ptycho.config.settings import InferenceConfig, ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import DataError
from ptycho.physics import extract
from ptycho.run.batches import (
    compact_blocks,
    epoch_batches,
    is_region_step,
    label_scale,
    split_scans,
)
from ptycho.run.coverage import position_counts, write_coverage
from ptycho.run.preparation import (
    ensure_container,
    inference_container,
    plan_training,
    train_and_test,
    with_execution,
)
from ptycho.run.schedules import learning_rate_factor
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.raw_data import RawData

Make = Callable[..., RawData]
RNG = np.random.default_rng


def small(**changes) -> TrainingConfig:
    model = {"N": 32, "n_filters_scale": 1, **changes.pop("model", {})}
    return TrainingConfig(model=ModelConfig(**model), **changes)


# schedules


def course(name: str, total: int, per_epoch: int, **settings) -> list[float]:
    config = TrainingConfig(**settings)
    return [learning_rate_factor(config, name, step, per_epoch, total) for step in range(total + 1)]


def test_flat_and_exponential_courses():
    assert course("Default", 6, 2) == [1.0] * 7
    assert course("Exponential", 6, 2, lr_gamma=0.5) == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_warm_up_and_cosine_at_points_worked_out_by_hand():
    made = course("WarmupCosine", 100, 10, lr_warmup_epochs=2, lr_min_ratio=0.1)
    assert made[:3] == pytest.approx([1 / 20, 2 / 20, 3 / 20]) and made[19] == 1.0
    assert made[20] == pytest.approx(1.0)
    assert made[60] == pytest.approx(0.1 + 0.9 / 2)  # half way
    assert made[40] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)  # a quarter of the way
    assert made[100] == pytest.approx(0.1)
    short = course("WarmupCosine", 20, 10, lr_warmup_epochs=2, lr_min_ratio=0.1)
    assert short[4] == 1.0 and short[3] == pytest.approx(4 / 5)  # never longer than a quarter


def test_one_cycle_from_its_first_to_its_last_value():
    made = course("OneCycle", 100, 10)
    assert made[0] == pytest.approx(0.04) and made[30] == pytest.approx(1.0)
    assert made[15] == pytest.approx(0.04 + 0.96 / 2)
    assert made[65] == pytest.approx(1e-4 + (1 - 1e-4) / 2)
    assert made[100] == pytest.approx(1e-4) and made[99] < 7e-4
    assert max(made) == made[30]


# batches


def test_blocks_are_strips_that_run_to_and_fro():
    """Neighbouring blocks touch: the way from the end of one block to the next is never across the scan."""
    places = RNG(0).uniform(0, 100, (200, 2))
    for seed in range(3):
        blocks = compact_blocks(places, 8, RNG(seed))
        assert sorted(np.concatenate(blocks)) == list(range(200)) and len(blocks) == 25
        ends = np.array(
            [np.linalg.norm(places[a[-1]] - places[b[0]]) for a, b in zip(blocks, blocks[1:], strict=False)]
        )
        assert ends.max() < 50
    first, second = (compact_blocks(places, 8, RNG(seed)) for seed in (0, 1))
    assert any((a != b).any() for a, b in zip(first, second, strict=True))


def test_blocks_are_turned_at_random():
    """On a grid, strips without a rotation would hold columns; turned ones do not."""
    places = np.stack(np.meshgrid(np.arange(16.0), np.arange(16.0)), -1).reshape(-1, 2)
    spans = []
    for seed in range(4):
        block = compact_blocks(places, 16, RNG(seed))[5]
        spans.append(np.ptp(places[block], axis=0))
    assert np.unique(np.array(spans), axis=0).shape[0] > 1


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
def test_region_steps_are_bresenhams(ratio):
    made = [is_region_step(step, ratio) for step in range(60)]
    for count in range(1, 61):
        assert sum(made[:count]) == math.floor(count * ratio + 1e-9)
    if ratio == 0.5:
        assert made[:4] == [False, True, False, True]


def epochs_of(seed: int, epochs: int, ratio: float = 0.3, sizes=(23, 18)) -> list:
    centres = RNG(9).uniform(0, 50, (sum(sizes), 2))
    scans = [np.arange(sizes[0]), np.arange(sizes[0], sum(sizes))]
    return [
        epoch_batches(scans, centres, 4, region_ratio=ratio, seed=seed, epoch=epoch)
        for epoch in range(epochs)
    ]


def test_region_steps_go_on_over_the_epochs():
    made = epochs_of(0, 4)
    asked = [region for epoch in made for _, region in epoch]
    assert asked == [is_region_step(step, 0.3) for step in range(len(asked))]
    per_epoch = len(made[0])
    assert asked[:per_epoch] != asked[per_epoch : 2 * per_epoch]


def test_every_epoch_and_seed_orders_anew():
    keys = set()
    for seed in (0, 1):
        for epoch in epochs_of(seed, 3):
            assert sorted(np.concatenate([groups for groups, _ in epoch])) == list(range(41))
            keys.add(tuple(np.concatenate([groups for groups, _ in epoch])))
    assert len(keys) == 6


def test_scans_take_turns_and_loose_groups_are_mixed():
    for epoch in epochs_of(0, 2, ratio=0.0):
        scan = [int(groups[0] >= 23) for groups, _ in epoch]
        assert scan != sorted(scan) and scan != sorted(scan, reverse=True)
    centres = RNG(9).uniform(0, 50, (400, 2))
    loose, region = (
        epoch_batches([np.arange(400)], centres, 8, region_ratio=ratio, seed=0, epoch=0)
        for ratio in (0.0, 1.0)
    )
    spread = [np.mean([np.ptp(centres[groups], 0).mean() for groups, _ in made]) for made in (loose, region)]
    assert spread[0] > 2 * spread[1]


# what is held out


def test_held_out_groups_are_judged_among_their_neighbours():
    centres = [RNG(0).uniform(0, 50, (60, 2)), RNG(1).uniform(0, 50, (37, 2))]
    made = split_scans(centres, val_fraction=0.2, batch_size=8, region_ratio=1.0, seed=0)
    for split, count, first in zip(made, (60, 37), (0, 60), strict=True):
        assert split.held_out.sum() == round(0.2 * count)
        assert sorted([*split.train, *(np.flatnonzero(split.held_out) + first)]) == list(
            range(first, first + count)
        )
        blocks = [groups - first for groups, region in split.validation if region]
        assert len(blocks) == len(split.validation)
        judged = np.concatenate(blocks)
        assert split.held_out[judged].sum() == split.held_out.sum()
        for block in blocks:  # every other group of a block trains, and is there
            assert len(block) - split.held_out[block].sum() >= len(block) // 2
        assert (~split.held_out[judged]).sum() >= len(judged) // 2


def test_held_out_groups_without_regions_end_with_a_partial_batch():
    centres = [RNG(0).uniform(0, 50, (50, 2))]
    picks = []
    for seed in (0, 1):
        split = split_scans(centres, val_fraction=0.22, batch_size=4, region_ratio=0.0, seed=seed)[0]
        assert [len(groups) for groups, _ in split.validation] == [4, 4, 3]
        assert not any(region for _, region in split.validation)
        picks.append(tuple(np.flatnonzero(split.held_out)))
    assert picks[0] != picks[1]
    tiny = split_scans([np.zeros((1, 2))], val_fraction=0.1, batch_size=4, region_ratio=1.0, seed=0)[0]
    assert tiny.held_out.all() and tiny.train.tolist() == [0]


# labels


def test_label_gauge_makes_the_rms_amplitude_in_the_beam_two_over_probe_scale(make_scan):
    """Scaled labels weighted by the probe's intensity, worked out from the object itself."""
    made = PtychoDataContainer.from_raw(make_scan(n_positions=23), 1)
    light = (np.abs(made.probe) ** 2).sum(0)
    labels = extract(made.objectGuess, *made.positions_px.T, 32)
    power = np.mean([(light * np.abs(label) ** 2).sum() / light.sum() for label in labels])
    for scale in (4.0, 2.5):
        assert label_scale(made, scale) == pytest.approx(2 / scale / math.sqrt(power), rel=1e-5)
    bright = make_scan(n_positions=23)
    bright = RawData(**{**bright.as_arrays(), "objectGuess": 7 * bright.objectGuess})
    assert label_scale(PtychoDataContainer.from_raw(bright, 1), 4.0) == pytest.approx(
        label_scale(made, 4.0) / 7, rel=1e-5
    )
    dark = RawData(**{**bright.as_arrays(), "objectGuess": 0 * bright.objectGuess})
    with pytest.raises(DataError, match="zero wherever the probe shines"):
        label_scale(PtychoDataContainer.from_raw(dark, 1), 4.0)


# from settings to containers


def test_grouping_settings_reach_the_container(make_scan):
    raw = make_scan(n_positions=30)

    def groups(**changes):
        return ensure_container(raw, small(model={"gridsize": 2}, **changes)).nn_indices

    first = groups()
    assert (groups(seed=5, subsample_seed=0) == first).all() and (groups(seed=5) != first).any()
    assert (groups(subsample_seed=7) != first).any()
    assert groups(n_groups=9, sequential_sampling=True)[:, 0].tolist() == list(range(9))
    assert len(groups(n_groups=50, enable_oversampling=True)) == 50
    assert (groups(neighbor_count=9) != first).any()
    assert (groups(neighbor_pool_size=12) == groups(neighbor_count=12)).all()
    assert ensure_container(raw, small(nphotons=123.0)).nphotons == 123.0
    assert ensure_container(raw, small(nphotons=123.0), nphotons=9.0).nphotons == 9.0
    assert len(ensure_container(raw, small(n_subsample=11)).patterns) == 11
    other = [ensure_container(raw, small(n_subsample=11, subsample_seed=s)).positions_px for s in (0, 1)]
    assert (other[0] != other[1]).any()


def test_the_test_scan_is_whole_and_in_the_training_gauge(make_scan):
    train, test = make_scan(n_positions=30), make_scan(n_positions=20, photons=3e5, seed=2)
    made, judged = train_and_test(train, test, small(n_groups=5, n_subsample=8, nphotons=None))
    assert len(made) == 5 and len(judged) == 20
    assert (judged.x_scale, judged.nphotons) == (made.x_scale, made.nphotons)
    assert judged.patterns == pytest.approx(made.x_scale * test.amplitude())


def test_inference_takes_its_own_sampling_settings(make_scan):
    raw = make_scan(n_positions=30)
    trained = small(model={"gridsize": 2})

    def made(**changes):
        return inference_container(raw, trained, InferenceConfig(**changes), x_scale=0.5, nphotons=9.0)

    assert made(neighbor_count=0).nn_indices.shape == (30, 4)
    assert (made().x_scale, made().nphotons) == (0.5, 9.0)
    assert (made(subsample_seed=3).nn_indices != made().nn_indices).any()
    picks = [made(n_subsample=12, subsample_seed=seed).positions_px for seed in (0, 4)]
    assert (picks[0] != picks[1]).any()
    assert len(made(n_groups=7)) == 7 and len(made(n_groups=40, enable_oversampling=True)) == 40
    assert (made(neighbor_pool_size=15).nn_indices != made().nn_indices).any()


def test_what_the_execution_says_wins():
    config = small(scheduler="OneCycle", gradient_clip_val=2.0)
    assert with_execution(config, PyTorchExecutionConfig()) == config
    made = with_execution(config, PyTorchExecutionConfig(scheduler="Exponential", gradient_clip_val=0.5))
    assert (made.scheduler, made.gradient_clip_val) == ("Exponential", 0.5)


def test_plan_of_two_scans(make_scan):
    scans, _ = train_and_test([make_scan(n_positions=21), make_scan(n_positions=13)], None, small())
    plan = plan_training(scans, None, small(batch_size=8, val_fraction=0.1))
    sizes = [len(groups) for groups in plan.scans]
    assert sizes == [19, 12] and plan.n_groups == 31 and plan.n_batches == 3 + 2
    assert len(plan.epoch(0)) == plan.n_batches and plan.region_ratio == 1.0 and plan.label_scales is None
    supervised = small(model={"model_type": "supervised"})
    plan = plan_training(scans, None, supervised)
    assert plan.region_ratio == 0.0
    assert plan.label_scales == pytest.approx([label_scale(one, 4.0) for one in scans.containers])
    bare = make_scan(n_positions=9)
    bare = RawData(**{**bare.as_arrays(), "objectGuess": None})
    one, none = train_and_test(make_scan(n_positions=21), bare, supervised)
    with pytest.raises(DataError, match="test data: labels are needed"):
        plan_training(one, none, supervised)


def test_coverage_counts_every_visit(make_scan, tmp_path):
    """A group holds a position once; oversampled groups of one batch hold it several times."""
    config = small(model={"gridsize": 2}, n_groups=80, enable_oversampling=True, batch_size=16)
    made = ensure_container(make_scan(n_positions=30), config)
    plan = plan_training(made, None, config)
    counts = position_counts(plan, made, 3)
    wanted = np.bincount(made.nn_indices[plan.scans[0]].ravel(), minlength=30) * 3
    assert counts.tolist() == wanted.tolist()
    counts = np.array([0, 4, 2] + [3] * 27)
    assert write_coverage(tmp_path, made, counts, epochs=3) == (2, 4)
    with np.load(tmp_path / "coverage.npz") as stored:
        assert stored["counts"].tolist() == counts.tolist() and stored["epochs"] == 3
