"""Batches of a run: blocks are compact, every group is trained once an epoch, processes share the steps."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.run import batches as plans
from ptycho.run.preparation import TrainingPlan
from ptycho_torch import data


class TestBlocks:
    @pytest.mark.parametrize("count, size", [(1, 16), (16, 16), (17, 16), (500, 16), (90, 7)])
    def test_every_point_once_and_one_short_block_at_most(self, count, size):
        positions = np.random.default_rng(0).uniform(0, 100, (count, 2))
        blocks = plans.compact_blocks(positions, size, np.random.default_rng(1))
        assert sorted(np.concatenate(blocks)) == list(range(count))
        assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)

    def test_blocks_are_compact(self):
        """Within a block points lie as close as in a square patch of the scan, not as in a random batch."""
        positions = np.random.default_rng(0).uniform(0, 100, (1600, 2))
        blocks = plans.compact_blocks(positions, 16, np.random.default_rng(1))
        spread = np.mean([np.sqrt(positions[block].var(0).sum()) for block in blocks])
        square = 10 / np.sqrt(6)  # a square that holds 16 of 1600 points has a side of 10
        assert spread < 1.6 * square
        assert spread < 0.2 * np.sqrt(positions.var(0).sum())

    @pytest.mark.parametrize("ratio", [0.0, 0.25, 1 / 3, 0.5, 0.9, 1.0])
    def test_region_steps_are_spread_evenly(self, ratio):
        steps = [plans.is_region_step(step, ratio) for step in range(600)]
        done = np.cumsum(steps)
        assert np.abs(done - ratio * np.arange(1, 601)).max() <= 1


def order_of(count: int = 50, *, region_ratio: float = 0.5, seed: int = 3) -> data.GroupBatches:
    plan = TrainingPlan(
        scans=(np.random.default_rng(1).permutation(200)[:count],),
        centres_xy=np.random.default_rng(0).uniform(0, 60, (200, 2)),
        batch_size=8,
        region_ratio=region_ratio,
        seed=seed,
        validation_set=None,  # type: ignore[arg-type]
        validation=[],
        held_out=None,
        label_scales=None,
    )
    return data.GroupBatches(plan)


def plain(batches) -> list[tuple[list[int], bool]]:
    return [(groups.tolist(), region) for groups, region in batches]


class TestGroupBatches:
    @pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
    def test_every_group_once_an_epoch(self, ratio):
        order = order_of(region_ratio=ratio)
        for epoch in range(3):
            order.set_epoch(epoch)
            batches = list(order)
            assert len(batches) == len(order) == 7
            assert sorted(np.concatenate([groups for groups, _ in batches])) == sorted(order.plan.scans[0])
            assert np.mean([region for _, region in batches]) == pytest.approx(ratio, abs=0.1)

    def test_an_epoch_repeats_and_epochs_differ(self):
        one, other = order_of(), order_of()
        for _ in range(3):
            list(other)  # what was drawn before does not matter
        one.set_epoch(4)
        other.set_epoch(4)
        assert plain(one) == plain(other) == plain(one)
        other.set_epoch(5)
        assert plain(one) != plain(other)
        assert plain(order_of(seed=4)) != plain(order_of(seed=3))

    def test_region_steps_go_on_across_epochs(self):
        order, regions = order_of(region_ratio=0.3), []
        for epoch in range(10):
            order.set_epoch(epoch)
            regions += [region for _, region in order]
        assert regions == [plans.is_region_step(step, 0.3) for step in range(70)]

    def test_region_batches_are_compact_and_the_others_are_not(self):
        order = order_of(count=200, region_ratio=0.5)
        spread = {True: [], False: []}
        for groups, region in order:
            spread[region].append(np.sqrt(order.plan.centres_xy[groups].var(0).sum()))
        assert np.mean(spread[True]) < 0.5 * np.mean(spread[False])

    @pytest.mark.parametrize("count", [48, 50])
    def test_two_processes_share_an_epoch(self, monkeypatch, count):
        whole = plain(order_of(count))
        shares = []
        for rank in (0, 1):
            monkeypatch.setattr(data, "_world", lambda rank=rank: (rank, 2))
            order = order_of(count)
            shares.append(plain(order))
            assert len(shares[-1]) == len(order)
        assert len(shares[0]) == len(shares[1])
        together = [batch for pair in zip(*shares, strict=True) for batch in pair]
        assert together[: len(whole)] == whole
        assert together[len(whole) :] == whole[: len(together) - len(whole)]

    def test_two_processes_share_fixed_batches(self, monkeypatch):
        batches = [(np.array([i]), False) for i in range(5)]
        seen = []
        for rank in (0, 1):
            monkeypatch.setattr(data, "_world", lambda rank=rank: (rank, 2))
            mine = list(data.FixedBatches(batches))
            assert len(mine) == len(data.FixedBatches(batches)) == 3
            seen += [int(groups[0]) for groups, _ in mine]
        assert sorted(seen) == [0, 0, 1, 2, 3, 4]

    def test_more_processes_than_batches(self, monkeypatch):
        """Every process takes the same number of steps, or they would wait for each other for ever."""
        lengths = []
        for rank in range(8):
            monkeypatch.setattr(data, "_world", lambda rank=rank: (rank, 8))
            order = order_of(count=16)  # two batches
            lengths.append((len(list(order)), len(order)))
        assert set(lengths) == {(1, 1)}

    def test_one_validation_batch_for_four_processes(self, monkeypatch):
        lengths = []
        for rank in range(4):
            monkeypatch.setattr(data, "_world", lambda rank=rank: (rank, 4))
            lengths.append(len(list(data.FixedBatches([(np.arange(3), True)]))))
        assert lengths == [1, 1, 1, 1]


class TestSplit:
    @pytest.mark.parametrize("ratio", [0.0, 0.5])
    @pytest.mark.parametrize("count", [2, 3, 40])
    def test_train_and_held_out_are_apart_and_together_everything(self, ratio, count):
        centres = np.random.default_rng(0).uniform(0, 60, (count, 2))
        (split,) = plans.split_scans([centres], val_fraction=0.1, batch_size=8, region_ratio=ratio, seed=0)
        held = np.flatnonzero(split.held_out)
        assert len(held) == max(1, round(0.1 * count)) and len(split.train) == count - len(held)
        assert sorted([*split.train, *held]) == list(range(count))
        judged = np.concatenate([groups for groups, _ in split.validation])
        assert set(held) <= set(judged) and len(set(judged)) == len(judged)
