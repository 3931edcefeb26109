"""Which groups form a batch, and which are used for validation: decided once, for both backends.

Everything is a pure function of (seed, epoch). An interrupted run therefore repeats exactly, and both
backends see the same batches in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.grouping import Index as Index

#: group numbers, and whether they are judged together on one canvas (a region)
Batch = tuple[Index, bool]


def compact_blocks(positions_xy: NDArray[np.float64], size: int, rng: np.random.Generator) -> list[Index]:
    """Cut the plane into compact blocks of `size` points. Each point is in one block; only one block may be
    smaller.

    Strips under a random rotation, followed back and forth. Shapes: positions_xy (G, 2); time O(G log G),
    memory O(G).

    >>> points = np.random.default_rng(0).random((10, 2))
    >>> blocks = compact_blocks(points, 4, np.random.default_rng(1))
    >>> [len(block) for block in blocks], sorted(np.concatenate(blocks).tolist()) == list(range(10))
    ([4, 4, 2], True)
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
    """Whether a global step is a region step: a share `ratio` of all steps, evenly spread, also after a
    resume.

    >>> [is_region_step(step, 0.5) for step in range(4)]
    [False, True, False, True]
    """
    return math.floor((step + 1) * ratio) > math.floor(step * ratio)


def epoch_batches(
    scans: Sequence[Index],
    centres_xy: NDArray[np.float64],
    batch_size: int,
    *,
    region_ratio: float,
    seed: int,
    epoch: int,
) -> list[Batch]:
    """The batches of one epoch: compact blocks for region steps, random batches for the others.

    `scans` holds the groups (G_k,) of every scan. Each group appears exactly once, in a batch with groups of
    its own scan. The scans take turns at random. Which steps are region steps depends on the global step
    only. Shapes: centres_xy (all groups, 2). Time O(G log G), memory O(G).
    """
    rng = np.random.default_rng([seed, epoch])
    blocks = [
        (number, groups[block])
        for number, groups in enumerate(scans)
        for block in compact_blocks(centres_xy[groups], batch_size, rng)
    ]
    blocks = [blocks[i] for i in rng.permutation(len(blocks))]
    first = epoch * len(blocks)
    region = [is_region_step(first + i, region_ratio) for i in range(len(blocks))]
    pools = [_pool(number, blocks, region, rng) for number in range(len(scans))]
    batches: list[Batch] = []
    for (number, block), together in zip(blocks, region, strict=True):
        if not together:
            block, pools[number] = np.split(pools[number], [len(block)])
        batches.append((block, together))
    return batches


def _pool(scan: int, blocks: list[tuple[int, Index]], region: list[bool], rng: np.random.Generator) -> Index:
    """The groups of one scan that are in no region of this epoch, in random order."""
    own = zip(blocks, region, strict=True)
    loose = [block for (number, block), together in own if number == scan and not together]
    return rng.permutation(np.concatenate(loose)) if loose else np.empty(0, np.int64)


@dataclass(frozen=True)
class Split:
    """Which groups train, and the validation batches with their held-out groups."""

    train: Index
    validation: list[Batch]
    held_out: NDArray[np.bool_]

    def moved(self, by: int) -> Split:
        """The same with `by` added to every group number."""
        validation = [(groups + by, region) for groups, region in self.validation]
        return Split(self.train + by, validation, self.held_out)


def split_scans(
    centres_xy: Sequence[NDArray[np.float64]],
    *,
    val_fraction: float,
    batch_size: int,
    region_ratio: float,
    seed: int,
) -> list[Split]:
    """Hold out a share of the groups (G_k, 2) of every scan; group numbers run through all scans.

    With regions, every second group of some compact blocks is held out and each block is predicted whole. A
    held-out pattern is then judged by the image that its training neighbours make together with it.
    """
    rng = np.random.default_rng([seed, 1])
    begin, splits = 0, []
    for centres in centres_xy:
        split = _split(centres, val_fraction, batch_size, region_ratio, rng)
        splits.append(split.moved(begin))
        begin += len(centres)
    return splits


def _split(
    centres_xy: NDArray[np.float64],
    val_fraction: float,
    batch_size: int,
    region_ratio: float,
    rng: np.random.Generator,
) -> Split:
    count = len(centres_xy)
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
    """The factor from labels to the network's gauge, where the rms amplitude in the beam is 2 /
    probe_scale.
    """
    light = np.sum(np.abs(container.probe) ** 2, 0)
    light = light / light.sum()
    some = np.arange(0, len(container.patterns), max(1, len(container.patterns) // 256))
    power = np.mean([np.sum(light * np.abs(label) ** 2) for label in container.pattern_labels(some)])
    if not power > 0:
        raise DataError("the labels (objectGuess) are zero wherever the probe shines: nothing to learn from")
    return float(2 / probe_scale / np.sqrt(power))
