"""Batches of groups, made from a container without copying its patterns.

A batch is a dict: `x` (B, C, N, N) float32, `positions_xy` (B, C, 2) float64 px, `counted` (B, C) bool,
`region` bool, and `labels` (B, C, N, N) complex64 where the scan has them. Which groups stand together is
decided by `ptycho.batches`; what one process of several takes of them, here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho.batches import Batch, Index
from ptycho.loader import PtychoDataContainer
from ptycho.preparation import TrainingPlan


class Repeated(tuple[Index, bool]):
    """A validation batch that another process judges as well: nothing of it counts a second time."""


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
        counted = np.full(members.shape, not isinstance(batch, Repeated))
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


class GroupBatches(Sampler[Batch]):
    """The order of one epoch, `TrainingPlan.epoch`, as a sampler.

    With several processes each takes every world-size-th batch;
    the last few that would not fill all processes are given again from the start.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(math.ceil(len(self.plan.groups) / self.plan.batch_size) / _world()[1])

    def __iter__(self) -> Iterator[Batch]:
        yield from _share(self.plan.epoch(self.epoch))


def _world() -> tuple[int, int]:
    """(rank, number of processes) of the running job."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _share(batches: list[Batch], repeat: Callable[[Batch], Batch] = lambda batch: batch) -> list[Batch]:
    """This process's batches: every world-size-th, some given twice so that all take as many steps."""
    rank, world = _world()
    missing = -len(batches) % world
    return (batches + [repeat(batches[i % len(batches)]) for i in range(missing)])[rank::world]


class FixedBatches(Sampler[Batch]):
    """The same batches every epoch: validation and inference; with several processes each is judged once."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / _world()[1])

    def __iter__(self) -> Iterator[Batch]:
        yield from _share(self.batches, Repeated)


def make_loader(dataset: GroupDataset, sampler: Sampler[Batch], **options: Any) -> DataLoader[dict[str, Any]]:
    """A DataLoader whose sampler yields whole batches; no global random state is touched."""
    return DataLoader(
        dataset, sampler=sampler, batch_size=None, generator=torch.Generator().manual_seed(0), **options
    )
