"""Batches of groups, made from a container without copying its patterns.

A batch is a dict: `x` (B, C, N, N) float32, `positions_xy` (B, C, 2) float64 px, `counted` (B, C) bool,
`region` bool, and `labels` (B, C, N, N) complex64 where the scan has them. Which groups stand together is
decided by `GroupBatches`, a pure function of (seed, epoch), so that an interrupted run repeats exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho.errors import DataError
from ptycho.loader import PtychoDataContainer

Index = NDArray[np.int64]
Batch = tuple[Index, bool]


class GroupDataset(Dataset[dict[str, Any]]):
    """Groups of one container; item = (group numbers, region?) -> batch. Memory: views of the container."""

    def __init__(
        self,
        container: PtychoDataContainer,
        *,
        held_out: NDArray[np.bool_] | None = None,
        label_scale: float | None = None,
    ) -> None:
        self.container = container
        self.held_out = held_out
        self.label_scale = label_scale

    def __len__(self) -> int:
        return len(self.container)

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        groups, region = batch
        members = self.container.nn_indices[groups]
        counted = np.ones(members.shape, bool)
        if self.held_out is not None:
            counted &= self.held_out[groups][:, None]
        item: dict[str, Any] = {
            "x": torch.from_numpy(self.container.patterns[members]),
            "positions_xy": torch.from_numpy(self.container.positions_px[members]),
            "counted": torch.from_numpy(counted),
            "region": region,
        }
        if self.label_scale is not None:
            item["labels"] = torch.from_numpy(self.container.pattern_labels(members)) * self.label_scale
        return item


def compact_blocks(positions_xy: NDArray[np.float64], size: int, rng: np.random.Generator) -> list[Index]:
    """Cut the plane into compact blocks of `size` points, every point in one; only one may be smaller.

    Boustrophedon strips under a random rotation. Shapes: positions_xy (G, 2); time O(G log G), memory O(G).
    """
    count = len(positions_xy)
    angle = rng.uniform(0, 2 * np.pi)
    u = positions_xy @ np.array([np.cos(angle), np.sin(angle)])
    v = positions_xy @ np.array([-np.sin(angle), np.cos(angle)])
    strips = max(1, round(math.sqrt(count / size)))
    rank = np.empty(count, np.int64)
    rank[np.argsort(u, kind="stable")] = np.arange(count)
    strip = rank * strips // count
    order = np.lexsort((np.where(strip % 2 == 0, v, -v), strip))
    return [order[start : start + size] for start in range(0, count, size)]


def is_region_step(step: int, ratio: float) -> bool:
    """Whether the global step is a region step: Bresenham's line of slope `ratio`, so a resume goes on."""
    return math.floor((step + 1) * ratio) > math.floor(step * ratio)


class GroupBatches(Sampler[Batch]):
    """The order of one epoch: compact blocks for region steps, random batches for the others.

    Every group appears exactly once an epoch. With several processes each takes every world-size-th batch;
    the last few that would not fill all processes are given again from the start.
    """

    def __init__(
        self,
        groups: Index,
        centres_xy: NDArray[np.float64],
        batch_size: int,
        *,
        region_ratio: float,
        seed: int,
    ) -> None:
        self.groups, self.centres_xy = groups, centres_xy
        self.batch_size, self.region_ratio, self.seed = batch_size, region_ratio, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(math.ceil(len(self.groups) / self.batch_size) / _world()[1])

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng([self.seed, self.epoch])
        blocks = compact_blocks(self.centres_xy[self.groups], self.batch_size, rng)
        blocks = [blocks[i] for i in rng.permutation(len(blocks))]
        first = self.epoch * len(blocks)
        region = [is_region_step(first + i, self.region_ratio) for i in range(len(blocks))]
        loose = [block for block, together in zip(blocks, region, strict=True) if not together]
        pool = rng.permutation(np.concatenate(loose)) if loose else np.empty(0, np.int64)
        batches: list[Batch] = []
        for block, together in zip(blocks, region, strict=True):
            if not together:
                block, pool = pool[: len(block)], pool[len(block) :]
            batches.append((self.groups[block], together))
        yield from _share(batches)


def _world() -> tuple[int, int]:
    """(rank, number of processes) of the running job."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _share(batches: list[Batch]) -> list[Batch]:
    """This process's batches: every world-size-th, some given twice so that all take as many steps."""
    rank, world = _world()
    missing = -len(batches) % world
    return (batches + [batches[i % len(batches)] for i in range(missing)])[rank::world]


class FixedBatches(Sampler[Batch]):
    """The same batches every epoch: validation and inference."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / _world()[1])

    def __iter__(self) -> Iterator[Batch]:
        yield from _share(self.batches)


@dataclass(frozen=True)
class Split:
    """Which groups train, and which batches validate on which held-out groups."""

    train: Index
    validation: list[Batch]
    held_out: NDArray[np.bool_]


def split_groups(
    centres_xy: NDArray[np.float64], *, val_fraction: float, batch_size: int, region_ratio: float, seed: int
) -> Split:
    """Hold out about `val_fraction` of the groups; at least one is held out when there are two.

    With regions, every second group of some compact blocks is held out and the block is predicted whole, so
    that a held-out pattern is judged by the image that its neighbours, which do train, make together with it.
    """
    count = len(centres_xy)
    rng = np.random.default_rng([seed, 1])
    held_out = np.zeros(count, bool)
    if count < 2:
        every: Index = np.arange(count)
        return Split(every, [(every, region_ratio > 0)], np.ones(count, bool))
    wanted = max(1, round(val_fraction * count))
    if region_ratio > 0:
        blocks = compact_blocks(centres_xy, batch_size, rng)
        chosen: list[Batch] = []
        for i in rng.permutation(len(blocks)):
            members = blocks[i]
            some = members[1::2] if len(members) > 1 else members
            held_out[some[: wanted - int(held_out.sum())]] = True
            chosen.append((members, True))
            if held_out.sum() >= wanted:
                break
        return Split(np.flatnonzero(~held_out), chosen, held_out)
    held_out[rng.permutation(count)[:wanted]] = True
    left = np.flatnonzero(held_out)
    batches: list[Batch] = [(left[i : i + batch_size], False) for i in range(0, len(left), batch_size)]
    return Split(np.flatnonzero(~held_out), batches, held_out)


def label_scale(container: PtychoDataContainer, probe_scale: float) -> float:
    """The number that takes labels to the network's gauge: rms amplitude in the beam 2 / probe_scale."""
    light = np.sum(np.abs(container.probe) ** 2, 0)
    light = light / light.sum()
    some = np.arange(0, len(container.patterns), max(1, len(container.patterns) // 256))
    power = np.mean([np.sum(light * np.abs(label) ** 2) for label in container.pattern_labels(some)])
    if not power > 0:
        raise DataError("the labels (objectGuess) are zero wherever the probe shines: nothing to learn from")
    return float(2 / probe_scale / np.sqrt(power))


def group_centres(container: PtychoDataContainer) -> NDArray[np.float64]:
    """(B, 2) mean position of every group, [x, y] px."""
    return np.asarray(container.positions_px[container.nn_indices].mean(1))


def make_loader(dataset: GroupDataset, sampler: Sampler[Batch], **options: Any) -> DataLoader[dict[str, Any]]:
    """A DataLoader whose sampler yields whole batches; no global random state is touched."""
    return DataLoader(
        dataset, sampler=sampler, batch_size=None, generator=torch.Generator().manual_seed(0), **options
    )
