"""The interface of an update rule; each rule is one file in this folder."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ptycho_torch.refine.forward import Exit
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.state import RefineState


class Rule:
    """One update rule. `strength` in (0, 1] scales every step; the loop lowers it towards the end."""

    name: ClassVar[str] = ""
    batch_size: ClassVar[int] = 16

    def start(self, scan: RefineScan, state: RefineState) -> None:
        """Allocate the arrays that the rule keeps between steps."""

    def step(
        self, scan: RefineScan, state: RefineState, index: Tensor, strength: float, with_probe: bool
    ) -> Exit:
        """Visit the patterns in `index` (B,) and change `state` in place; returns the batch before it."""
        raise NotImplementedError

    def end_epoch(self, scan: RefineScan, state: RefineState, strength: float, with_probe: bool) -> None:
        """Called when every pattern has been visited."""

    def tensors(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint must hold besides the state, in process 0; every process calls it."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore the result of `tensors` of process 0, after `start`."""
