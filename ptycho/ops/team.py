"""Several processes that share one job: which part is whose, and sums over all parts.

Each process does its part of every batch and adds it to the same sums, so that K processes compute what one
computes, but for the order of the additions.
"""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray


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
