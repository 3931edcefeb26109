"""Batches of groups, made from a container without copying its patterns.

A batch is a dict: `x` (B, C, N, N) float32, `positions_xy` (B, C, 2) float64 px, `counted` (B, C) bool,
`region` bool, `scan` int, the number by which the model knows the scan that all of it is of, `idle` bool,
whether another process has it as well, `labels` (B, C, N, N) complex64 where the objective needs them, and
`reference` (B, C, N, N) complex64 where the network starts from an image.
Which groups stand together is decided by `ptycho.run.batches`. What one process of several takes of them is
decided here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho.run.batches import Batch, Index
from ptycho.run.preparation import Grouped, TrainingPlan
from ptycho.scan.scan_set import ScanSet


class Repeated(tuple[Index, bool]):
    """A batch that another process has as well: nothing of it counts a second time."""


class GroupDataset(Dataset[dict[str, Any]]):
    """Groups of one scan or several; item = (group numbers, region?) -> batch. Memory: views of them.

    `held_out` (groups,) says whose patterns count, None: all; labels are multiplied by the entry of
    `label_scales` that the model's number of their scan points to, None: no labels.
    """

    def __init__(
        self,
        scans: Grouped,
        *,
        held_out: NDArray[np.bool_] | None = None,
        label_scales: Sequence[float] | None = None,
    ) -> None:
        self.scans = ScanSet.of(scans)
        self.held_out = held_out
        self.label_scales = label_scales

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        groups, region = batch
        place, local = self.scans.where(groups)
        container, number = self.scans.containers[place], self.scans.numbers[place]
        members = container.nn_indices[local]
        counted = np.full(members.shape, not isinstance(batch, Repeated))
        if self.held_out is not None:
            counted &= self.held_out[groups][:, None]
        item: dict[str, Any] = {
            "x": torch.from_numpy(container.patterns[members]),
            "positions_xy": torch.from_numpy(container.positions_px[members]),
            "counted": torch.from_numpy(counted),
            "region": region,
            "scan": number,
            "idle": isinstance(batch, Repeated),
        }
        if container.reference is not None:
            item["reference"] = torch.from_numpy(container.pattern_references(members))
        if self.label_scales is not None:
            item["labels"] = torch.from_numpy(container.pattern_labels(members, self.label_scales[number]))
        return item


class GroupBatches(Sampler[Batch]):
    """The order of one epoch, `TrainingPlan.epoch`, as a sampler.

    With several processes each takes every world-size-th batch. If the last batches are fewer than the
    processes, some processes repeat a batch, which does not count.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        self.epoch = 0
        self._done = (0, 0)

    def go_on_at(self, epoch: int, batches: int) -> None:
        """Begin with this epoch, of which this process has done so many batches; its length stays."""
        self.epoch, self._done = epoch, (epoch, batches)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.plan.n_batches / _world()[1])

    def __iter__(self) -> Iterator[Batch]:
        begun, batches = self._done
        yield from _share(self.plan.epoch(self.epoch))[batches if self.epoch == begun else 0 :]


def _world() -> tuple[int, int]:
    """(rank, number of processes) of the running job."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _share(batches: list[Batch]) -> list[Batch]:
    """This process's batches: every world-size-th, some given twice so that all take as many steps."""
    rank, world = _world()
    missing = -len(batches) % world
    return (batches + [Repeated(batches[i % len(batches)]) for i in range(missing)])[rank::world]


class FixedBatches(Sampler[Batch]):
    """The same batches every epoch: validation and inference; with several processes each is judged once."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / _world()[1])

    def __iter__(self) -> Iterator[Batch]:
        yield from _share(self.batches)


def make_loader(dataset: GroupDataset, sampler: Sampler[Batch], **options: Any) -> DataLoader[dict[str, Any]]:
    """A DataLoader whose sampler yields whole batches; no global random state is touched."""
    return DataLoader(
        dataset, sampler=sampler, batch_size=None, generator=torch.Generator().manual_seed(0), **options
    )
