"""How many patterns a pass over the scan holds at a time; memory does not grow with their side."""

from __future__ import annotations

from torch import Tensor

from ptycho.io.resources import available_memory_bytes

#: pixels of all patterns and modes that are worked on at a time: 32 patterns of 64 x 64
_PIXELS = 2**17
#: share of the available memory that may be taken to save time
_SHARE = 0.5


def portions(index: Tensor, most: int, probe: Tensor) -> tuple[Tensor, ...]:
    """`index` (B,) in parts of at most `most` patterns, and of 2**17 pixels of the exit waves of `probe`
    (P, N, N).

    >>> import torch
    >>> [len(part) for part in portions(torch.arange(70), 64, torch.zeros(1, 128, 128))]
    [8, 8, 8, 8, 8, 8, 8, 8, 6]
    """
    return index.split(max(1, min(most, _PIXELS // probe.numel())))


def fits(n_bytes: int, device: str = "cpu") -> bool:
    """Whether arrays that only save time may take so much: at most half of the available memory."""
    available = available_memory_bytes() if device == "cpu" else None
    return available is None or n_bytes <= _SHARE * available
