"""Several processes that share one job: which part is whose, and sums over all parts.

Each process does its part of every batch and adds it to the same sums, so that K processes compute what one
computes, but for the order of the additions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Which process of the run this is, as torchrun or Lightning says; 0 where it is the only one.

    >>> rank({"RANK": "3", "LOCAL_RANK": "1"}), rank({"LOCAL_RANK": "1"}), rank({})
    (3, 1, 0)
    """
    found = environment.get("RANK") or environment.get("LOCAL_RANK") or "0"
    return int(found) if found.isdigit() else 0


def processes(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes torchrun started for this run; 1 where it did not.

    >>> processes({"RANK": "3", "WORLD_SIZE": "4"}), processes({"WORLD_SIZE": "4"})
    (4, 1)
    """
    found = environment.get("WORLD_SIZE", "1") if "RANK" in environment else "1"
    return int(found) if found.isdigit() else 1


class Team(Protocol):
    """The processes of one job."""

    rank: int
    size: int

    def add_up(self, *arrays: NDArray[Any]) -> None:
        """Replace each array, in place, by its sum over all processes; of the same shapes."""


class Alone:
    """A job of one process: every sum is complete as it is."""

    rank = 0
    size = 1

    def add_up(self, *arrays: NDArray[Any]) -> None:
        """Nothing to add."""


#: for whoever has no other processes
ALONE = Alone()
