"""The state of a reconstruction: all unknowns, their canvas and their start."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ptycho_torch.refine.operators import Canvas


@dataclass
class RefineState:
    """The unknowns.

    object (H, W) complex on `canvas`; probe (P, N, N) complex, so that |FFT_ortho(probe * window)|^2 are
    counts; positions_xy (M, 2) float64; intensity (M,) amplitude factor per pattern or None; background
    (N, N) counts, zero frequency first, or None; lost (M,) bool: patterns that a position search leaves out
    of the object update, or None; epoch: finished sweeps. course (E,) float64: R of every finished sweep,
    used by the schedule; variation (2,) float64: weight of the prior and the step factor of its choice, or
    None before it is tried; first (H, W), pull (2,): the object that the prior pulls to, and the pull's
    weight and step factor.
    earlier_object, earlier_probe: both one sweep ago, used by the momentum. learned (1,) float64: the share
    of the learned prior's output chosen by held-out patterns, None before the choice.
    """

    canvas: Canvas
    object: Tensor
    probe: Tensor
    positions_xy: Tensor
    intensity: Tensor | None = None
    background: Tensor | None = None
    epoch: int = 0
    lost: Tensor | None = None
    course: Tensor | None = None
    variation: Tensor | None = None
    first: Tensor | None = None
    pull: Tensor | None = None
    earlier_object: Tensor | None = None
    earlier_probe: Tensor | None = None
    learned: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Named tensors, the absent ones left out."""
        named = dict(
            object=self.object,
            probe=self.probe,
            positions_xy=self.positions_xy,
            intensity=self.intensity,
            background=self.background,
            lost=self.lost,
            course=self.course,
            variation=self.variation,
            first=self.first,
            pull=self.pull,
            earlier_object=self.earlier_object,
            earlier_probe=self.earlier_probe,
            learned=self.learned,
        )
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def clone(self) -> RefineState:
        """An independent copy."""
        copies: dict[str, Any] = {name: tensor.clone() for name, tensor in self.tensors().items()}
        return replace(self, **copies)
