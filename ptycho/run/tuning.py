"""Stages that follow the main epochs of a run and end early without progress.

They are not the declared stages of `ptycho.objectives.stages`, whose length in steps is known before.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TuningStage:
    """One stage: at most `epochs` long, the learning rate of each part that trains as a share of the run's,
    and the epochs without progress that end it early (None: never)."""

    name: str
    epochs: int
    factors: dict[str, float]
    patience: int | None = None
