"""A reconstruction in several processes: the patterns of each process, and sums over all processes.

All processes hold the same state. Each visits its part of every batch. The sums of a batch or a pass are then
added over the processes; values of single patterns (position, intensity, misfit) are sent to all. So K
processes compute the same as one, except for the order of the additions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ptycho_torch.refine.scan import RefineScan

_ROWS = 256


def own(scan: RefineScan, index: Tensor) -> Tensor:
    """The part of `index` (B,) of this process: 1/K of it, in order; may be empty."""
    if scan.team is None:
        return index
    return index.tensor_split(scan.team.size)[scan.team.rank]


def first_row(scan: RefineScan) -> int:
    """The first of this process's `own` rows of the scan."""
    if scan.team is None:
        return 0
    parts = torch.arange(scan.size).tensor_split(scan.team.size)
    return sum(len(part) for part in parts[: scan.team.rank])


def within(index: Tensor, begin: int, count: int) -> Tensor:
    """Those of `index` (B,) that are among the `count` rows from `begin` on, in order; may be empty.

    >>> within(torch.tensor([5, 0, 3, 2]), 2, 2).tolist()
    [3, 2]
    """
    return index[(index >= begin) & (index < begin + count)]


def at_first(scan: RefineScan, rows: Tensor) -> Tensor:
    """All rows (M, ...) in process 0; none, (0, ...), in the others. Each has those of its `own` rows.

    In messages of 256 rows, so that only process 0 holds all of them.
    """
    if scan.team is None:
        return rows
    every = torch.arange(scan.size)
    begin = first_row(scan)
    whole = rows.new_empty((0 if scan.team.rank else scan.size, *rows.shape[1:]))
    for part in every.split(_ROWS):
        message = rows.new_zeros((len(part), *rows.shape[1:]))
        mine = within(part, begin, len(rows))
        message[mine - part[0]] = rows[mine - begin]
        scan.team.add_tensors(message)
        if not scan.team.rank:
            whole[part] = message
    return whole


def add_up(scan: RefineScan, *tensors: Tensor) -> None:
    """Replace each tensor, in place, by its sum over all processes."""
    if scan.team is not None:
        scan.team.add_tensors(*tensors)


def total(scan: RefineScan, *numbers: float) -> list[float]:
    """Each number summed over all processes."""
    if scan.team is None:
        return list(numbers)
    together = torch.tensor(numbers, dtype=torch.float64)
    scan.team.add_tensors(together)
    return [float(number) for number in together]


def any_of(scan: RefineScan, here: bool) -> bool:
    """Whether the condition holds in any process: all stop together."""
    return total(scan, float(here))[0] > 0


def of_all(scan: RefineScan, index: Tensor, values: Tensor) -> Tensor:
    """Values (B, ...) of all of `index` (B,); each process has computed those of its `own` part."""
    if scan.team is None:
        return values
    parts = [len(part) for part in index.tensor_split(scan.team.size)]
    begin = sum(parts[: scan.team.rank])
    whole = values.new_zeros((len(index), *values.shape[1:]))
    whole[begin : begin + len(values)] = values
    scan.team.add_tensors(whole)
    return whole


def hand_round(scan: RefineScan, rows: Tensor, visited: Tensor) -> Tensor:
    """Rows (M, ...) from the process that visited them; `visited` (M,) bool: the rows of this process.

    A row that no process visited is unchanged.
    """
    if scan.team is None:
        return rows
    mask = visited.to(rows.device).reshape(-1, *[1] * (rows.ndim - 1))
    changed = torch.where(mask, rows, torch.zeros_like(rows))
    count = visited.to(torch.float64)
    scan.team.add_tensors(changed, count)
    return torch.where((count > 0).reshape(mask.shape), changed, rows)
