"""Divides a scan into batches: a seeded order for every sweep, random or with neighbours together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_REGIONAL = 1024


def make_batches(positions_xy: Tensor, size: int, kind: str, seed: int, epoch: int) -> list[Tensor]:
    """All M positions once, in batches of about `size`; depends on (seed, epoch) and nothing else.

    "random": a permutation cut into equal parts; a scan of more than 1,024 positions is first halved into
    regions of at most 512, so that a batch touches a region and not the whole canvas. "compact": the scan,
    turned by a random angle, is halved along its longer side until the parts are small enough; the parts
    come in random order.
    """
    rng = np.random.default_rng([seed, epoch])
    count = len(positions_xy)
    if kind == "random" and count <= _REGIONAL:
        parts = np.array_split(rng.permutation(count), max(1, round(count / size)))
    else:
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned = positions_xy.cpu().numpy() @ turn
        parts = _halve(np.arange(count), turned, size if kind == "compact" else _REGIONAL // 2)
        if kind == "random":
            parts = [
                batch
                for part in parts
                for batch in np.array_split(rng.permutation(part), max(1, round(len(part) / size)))
            ]
        parts = [parts[i] for i in rng.permutation(len(parts))]
    return [torch.from_numpy(np.ascontiguousarray(part)).to(positions_xy.device) for part in parts]


def _halve(index: np.ndarray, points: np.ndarray, size: int) -> list[np.ndarray]:
    if len(index) <= size:
        return [index]
    axis = int(np.argmax(np.ptp(points[index], axis=0)))
    order = index[np.argsort(points[index, axis], kind="stable")]
    middle = len(order) // 2
    return _halve(order[:middle], points, size) + _halve(order[middle:], points, size)
