"""The region context: true patches come back from their common canvas, and every group is trained once an
epoch.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptycho import physics as oracle
from ptycho.run import batches as plans
from ptycho.run.preparation import TrainingPlan
from ptycho_torch import data
from ptycho_torch.physics import merge_and_extract
from ptycho_torch.region import Canvas, region_views

N = 32


def smooth_object(side: int = 96) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / 16
    return (1 + 0.3 * np.cos(x + 0.4 * y)) * np.exp(1j * np.sin(0.9 * y - 0.7 * x))


def gaussian(sigma: float = 5.0) -> torch.Tensor:
    axis = torch.arange(N, dtype=torch.float64) - N // 2
    return torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * sigma**2))


def places(B: int, C: int, seed: int = 0, whole: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    positions = rng.uniform(30, 60, (B, 1, 2)) + rng.uniform(-4, 4, (B, C, 2))
    return np.round(positions) if whole else positions


def true_patches(positions: np.ndarray) -> torch.Tensor:
    flat = positions.reshape(-1, 2)
    patches = oracle.extract(smooth_object(), flat[:, 0], flat[:, 1], N)
    return torch.from_numpy(patches.reshape(*positions.shape[:2], N, N))


class TestViews:
    @pytest.mark.parametrize("B, C", [(1, 1), (12, 1), (5, 4)])
    def test_whole_pixels_give_true_patches_back_exactly(self, B, C):
        positions = places(B, C, whole=True)
        truth, where = true_patches(positions), torch.from_numpy(positions)
        torch.testing.assert_close(region_views(truth, where, where, gaussian()), truth)

    def test_sub_pixel_positions_give_smooth_patches_back(self):
        positions = places(12, 1)
        truth, where = true_patches(positions), torch.from_numpy(positions)
        error = (region_views(truth, where, where, gaussian()) - truth).abs()[..., 4:-4, 4:-4]
        assert error.max() < 0.01

    def test_one_group_is_the_merge_of_training(self):
        positions = places(1, 4, whole=True)
        # a group mean on whole pixels, so that both canvases have the same grid
        positions[0, 3] = 4 * np.round(positions[0].mean(0)) - positions[0, :3].sum(0)
        where = torch.from_numpy(positions)
        rng = np.random.default_rng(1)
        patches = torch.from_numpy(rng.normal(size=(1, 4, N, N)) + 1j * rng.normal(size=(1, 4, N, N)))
        window = gaussian()
        merged = merge_and_extract(patches, where - where.mean(1, keepdim=True), window / window.max())
        torch.testing.assert_close(region_views(patches, where, where, window), merged)

    def test_blocks_of_any_batch_are_one_canvas(self):
        """A pattern sees its neighbours' patches, wherever in the batch they stand."""
        positions = places(6, 4)
        where = torch.from_numpy(positions)
        rng = np.random.default_rng(1)
        patches = torch.from_numpy(rng.normal(size=(6, 4, N, N)) + 1j * rng.normal(size=(6, 4, N, N)))
        views = region_views(patches, where, where, gaussian())
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        shuffled = region_views(patches[order], where[order], where[order], gaussian())
        torch.testing.assert_close(shuffled, views[order])
        flat = region_views(
            patches.reshape(24, 1, N, N), where.view(24, 1, 2), where.view(24, 1, 2), gaussian()
        )
        torch.testing.assert_close(flat.view(6, 4, N, N), views)

    def test_a_shared_patch_serves_every_pattern_of_its_group(self):
        positions = places(4, 4)
        centre = positions.mean(1, keepdims=True)
        looks, where = torch.from_numpy(positions), torch.from_numpy(centre)
        views = region_views(true_patches(centre), where, looks, gaussian())
        assert views.shape == (4, 4, N, N)
        error = (views - true_patches(positions)).abs()[..., 8:-8, 8:-8]
        assert error.max() < 0.01

    def test_the_window_gauge_is_free(self):
        where = torch.from_numpy(places(5, 1))
        truth = true_patches(places(5, 1))
        one, other = (region_views(truth, where, where, factor * gaussian()) for factor in (1, 1e6))
        torch.testing.assert_close(one, other)

    def test_gradient(self):
        rng = np.random.default_rng(2)
        where = torch.from_numpy(rng.uniform(10, 13, (3, 1, 2)))
        patches = torch.from_numpy(rng.normal(size=(3, 1, 6, 6)) + 1j * rng.normal(size=(3, 1, 6, 6)))
        window = torch.from_numpy(rng.uniform(0.1, 1, (6, 6)))
        assert torch.autograd.gradcheck(
            lambda p: torch.view_as_real(region_views(p, where, where, window)), patches.requires_grad_()
        )

    def test_a_canvas_holds_every_patch(self):
        where = torch.from_numpy(places(20, 1).reshape(-1, 2))
        canvas = Canvas.around(where, N)
        corners = canvas.corners(where, N)
        height, width = canvas.shape
        assert (corners >= 0).all()
        assert (corners <= torch.tensor([width - N - 1, height - N - 1])).all()


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
