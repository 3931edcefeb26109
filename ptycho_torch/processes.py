"""The processes of one job under `torchrun`, by torch.distributed: gloo on CPUs, NCCL on GPUs.

A sum over all processes is one message, also of several tensors. Every process gets the same bytes, so that
all processes decide the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ptycho.errors import RunError

#: how long a process waits for the others before it gives up
_PATIENCE = timedelta(minutes=10)


class Processes:
    """A `ptycho.ops.team.Team` of torch.distributed; `add_tensors` is `add_up` for tensors.

    messages, message_bytes: how many sums were made so far, and of how many bytes; waited_s: seconds from
    their begin to their end.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.messages = self.message_bytes = 0
        self.waited_s = 0.0

    def add_up(self, *arrays: NDArray[Any]) -> None:
        """Replace each array, in place, by its sum over all processes."""
        self.add_tensors(*[torch.from_numpy(array) for array in arrays])

    def add_tensors(self, *tensors: Tensor) -> None:
        """Replace each tensor, in place, by its sum over all processes.

        Complex tensors travel as pairs; the widest real dtype among them carries all. RunError where another
        process has ended.
        """
        real = [torch.view_as_real(t) if t.is_complex() else t for t in tensors]
        wide = (
            torch.float64
            if any(t.dtype not in (torch.float32, torch.float16) for t in real)
            else torch.float32
        )
        message = torch.cat([t.reshape(-1).to(wide) for t in real])
        self.messages += 1
        self.message_bytes += message.numel() * message.element_size()
        begun = time.perf_counter()
        try:
            dist.all_reduce(message)
        except RuntimeError as error:
            raise another_ended(self.rank, self.size, error) from error
        self.waited_s += time.perf_counter() - begun
        parts = message.split([t.numel() for t in real])
        for tensor, part in zip(real, parts, strict=True):
            tensor.copy_(part.reshape(tensor.shape))


@contextmanager
def team_of_environment(environment: Mapping[str, str] = os.environ) -> Iterator[Processes | None]:
    """The processes that `torchrun` started, for the time of a `with`; None where it did not.

    Reads RANK and WORLD_SIZE; the rest is torch's own. RunError where they do not find each other.
    """
    size = int(environment.get("WORLD_SIZE", "1"))
    if size < 2 or "RANK" not in environment:
        yield None
        return
    try:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"the {size} processes of this run did not find each other: {_first(error)}"
        ) from error
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def another_ended(rank: int, size: int, error: BaseException) -> RunError:
    """What a process says whose message did not reach another one."""
    return RunError(f"process {rank} of {size}: another process of this run has ended ({_first(error)})")


def is_lost_message(error: BaseException) -> bool:
    """Whether an error is torch.distributed's of a message that did not reach another process."""
    return isinstance(error, RuntimeError) and any(
        word in str(error) for word in ("gloo", "NCCL", "Connection closed", "Connection reset")
    )


def _first(error: BaseException) -> str:
    """The first sentence of torch's message."""
    return " ".join(str(error).split("\n")[0].split())[:160]
