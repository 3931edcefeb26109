"""Batches of groups for Keras: the patterns once as a tensor, every batch gathered from them in the graph.

A batch is a dict: `x` (B, C, N, N), `positions_xy` (B, C, 2) float64 px, `counted` (B, C) bool, `region`
bool, `scan` int32, the number by which the model knows the scan that all of it is of, `labels` (B, C, N, N)
complex where the objective needs them, and `reference` (B, C, N, N) complex where the network starts from an
image. Which groups stand together is decided by `ptycho.run.batches`: Python is asked for the order once an
epoch and not again until the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.run.batches import Batch
from ptycho.run.preparation import Grouped, TrainingPlan
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.scan_set import ScanSet
from ptycho.tf.rows_on_disk import RowsOnDisk, gathered, labels_by_rows, pattern_rows, references_by_rows

Tensor = Any
Dataset = Any

#: batches made ahead when nothing else is asked
PREFETCH = 2
#: fills up the last row of an order, whose batch may be smaller
_NOBODY = -1


@dataclass(frozen=True)
class ScanTensors:
    """One scan as tensors: patterns and labels (M, N, N), positions (M, 2), groups (G, C), who counts (G,).

    Memory: the patterns (and labels) once, whatever the number of groups; patterns on disk stay there.
    """

    patterns: Tensor | RowsOnDisk
    positions_xy: Tensor
    members: Tensor
    counts: Tensor
    labels: Tensor | RowsOnDisk | None
    references: RowsOnDisk | None = None

    @classmethod
    def of(
        cls,
        container: PtychoDataContainer,
        *,
        held_out: NDArray[np.bool_] | None = None,
        label_scale: float | None = None,
        dtype: str = "float32",
    ) -> ScanTensors:
        """Take a container; `held_out`: whose patterns count (None: all); `label_scale` None: no labels."""
        real = tf.as_dtype(dtype)
        patterns = pattern_rows(container, real)
        labels = None
        if label_scale is not None and isinstance(patterns, RowsOnDisk):
            labels = labels_by_rows(container, label_scale, real)
        elif label_scale is not None:
            every = container.pattern_labels(np.arange(len(container.patterns)), label_scale)
            labels = tf.cast(every, tf.complex128 if real == tf.float64 else tf.complex64)
        return cls(
            patterns=patterns,
            positions_xy=tf.convert_to_tensor(container.positions_px, tf.float64),
            members=tf.convert_to_tensor(container.nn_indices, tf.int64),
            counts=tf.convert_to_tensor(np.ones(len(container), bool) if held_out is None else held_out),
            labels=labels,
            references=None if container.reference is None else references_by_rows(container, real),
        )

    def counting(self, held_out: NDArray[np.bool_] | None) -> ScanTensors:
        """The same tensors, of which only these groups' patterns count; None: all."""
        counts = np.ones(len(self.counts), bool) if held_out is None else held_out
        return replace(self, counts=tf.convert_to_tensor(counts))

    def batch(self, groups: Tensor, region: Tensor) -> dict[str, Tensor]:
        """The batch of these groups (B,) int64; runs in the graph."""
        members = tf.gather(self.members, groups)
        counted = tf.repeat(tf.gather(self.counts, groups)[:, None], self.members.shape[1], 1)
        item = {
            "x": gathered(self.patterns, members),
            "positions_xy": tf.gather(self.positions_xy, members),
            "counted": counted,
            "region": region,
        }
        if self.labels is not None:
            item["labels"] = gathered(self.labels, members)
        if self.references is not None:
            item["reference"] = gathered(self.references, members)
        return item


@dataclass(frozen=True)
class ScanSetTensors:
    """One scan or several as tensors, the groups numbered through all of them; see `ptycho.scan.scan_set`."""

    scans: tuple[ScanTensors, ...]
    first: NDArray[np.int64]
    numbers: tuple[int, ...]

    @classmethod
    def of(
        cls,
        scans: Grouped,
        *,
        held_out: NDArray[np.bool_] | None = None,
        label_scales: Sequence[float] | None = None,
        dtype: str = "float32",
    ) -> ScanSetTensors:
        """Take the containers; `held_out` (groups,): whose patterns count (None: all); `label_scales` by the
        model's number of a scan, None: no labels."""
        given = ScanSet.of(scans)
        made = tuple(
            ScanTensors.of(
                container, label_scale=None if label_scales is None else label_scales[number], dtype=dtype
            )
            for container, number in zip(given.containers, given.numbers, strict=True)
        )
        return cls(made, given.first, given.numbers).counting(held_out)

    def counting(self, held_out: NDArray[np.bool_] | None) -> ScanSetTensors:
        """The same tensors, of which only these groups' patterns count; None: all."""
        if held_out is None:
            return replace(self, scans=tuple(scan.counting(None) for scan in self.scans))
        parts = np.split(held_out, self.first[1:-1])
        made = tuple(scan.counting(part) for scan, part in zip(self.scans, parts, strict=True))
        return replace(self, scans=made)

    def batch(self, groups: Tensor, region: Tensor) -> dict[str, Tensor]:
        """The batch of these groups (B,) int64, all of one scan; runs in the graph."""
        numbers = tf.constant(self.numbers, tf.int32)
        if len(self.scans) == 1:
            return {**self.scans[0].batch(groups, region), "scan": numbers[0]}
        first = tf.constant(self.first, tf.int64)
        place = tf.searchsorted(first, groups[:1], side="right")[0] - 1
        local = groups - tf.gather(first, place)
        branches = [lambda scan=scan: scan.batch(local, region) for scan in self.scans]
        return {**tf.switch_case(place, branches), "scan": tf.gather(numbers, place)}


def as_table(batches: list[Batch], width: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Batches as arrays: groups (S, width) padded with -1, and which are regions (S,)."""
    table = np.full((len(batches), width), _NOBODY, np.int64)
    for row, (groups, _) in zip(table, batches, strict=True):
        row[: len(groups)] = groups
    return table, np.array([region for _, region in batches], bool)


def training_dataset(
    scans: ScanSetTensors,
    plan: TrainingPlan,
    first: int,
    last: int,
    *,
    workers: int = 0,
    ahead: int | None = None,
) -> Dataset:
    """All batches of the epochs `first` to `last` - 1, in the plan's order; the same whatever `workers`.

    `workers` threads gather batches (0: one), `ahead` batches are kept ready. Memory: `ahead` batches.
    """

    def order(epoch: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        return as_table(plan.epoch(int(epoch)), plan.batch_size)

    def one_epoch(epoch: Tensor) -> Dataset:
        table, region = tf.numpy_function(order, [epoch], (tf.int64, tf.bool))
        return tf.data.Dataset.from_tensor_slices(
            (tf.ensure_shape(table, [None, plan.batch_size]), tf.ensure_shape(region, [None]))
        )

    return _gathered(tf.data.Dataset.range(first, last).flat_map(one_epoch), scans, workers, ahead)


def validation_dataset(
    scans: ScanSetTensors, plan: TrainingPlan, *, workers: int = 0, ahead: int | None = None
) -> Dataset:
    """The validation batches, the same every epoch."""
    table = as_table(plan.validation, max(len(groups) for groups, _ in plan.validation))
    return _gathered(tf.data.Dataset.from_tensor_slices(table), scans, workers, ahead)


def _gathered(orders: Dataset, scans: ScanSetTensors, workers: int, ahead: int | None) -> Dataset:
    def gather(row: Tensor, region: Tensor) -> dict[str, Tensor]:
        return scans.batch(tf.boolean_mask(row, row != _NOBODY), region)

    made = orders.map(gather, num_parallel_calls=max(1, workers), deterministic=True)
    return made.prefetch(ahead or PREFETCH)
