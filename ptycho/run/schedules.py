"""The learning rate during a run, as numbers: both backends multiply by the same factor at the same step."""

from __future__ import annotations

import math

from ptycho.config.settings import TrainingConfig
from ptycho.objectives.stages import Span


def learning_rate_factor(config: TrainingConfig, name: str, step: int, per_epoch: int, total: int) -> float:
    """Factor on the learning rate after `step` optimiser steps, for schedulers that need no metric.

    >>> config = TrainingConfig(lr_gamma=0.5)
    >>> [learning_rate_factor(config, "Exponential", step, per_epoch=2, total=6) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    if name == "Exponential":
        return float(config.lr_gamma ** (step // max(1, per_epoch)))
    if name == "WarmupCosine":
        warmup = min(config.lr_warmup_epochs * per_epoch, total // 4)
        if step < warmup:
            return (step + 1) / warmup
        course = min(1.0, (step - warmup) / max(1, total - warmup))
        return config.lr_min_ratio + (1 - config.lr_min_ratio) * 0.5 * (1 + math.cos(math.pi * course))
    if name == "OneCycle":  # Smith and Topin, arXiv 1708.07120: up for 30 % of the steps, then down to 1e-4
        course = min(1.0, step / max(1, total))
        if course < 0.3:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * course / 0.3))
        return 1e-4 + (1 - 1e-4) * 0.5 * (1 + math.cos(math.pi * (course - 0.3) / 0.7))
    return 1.0


def part_rate(span: Span, part: str, step: int, base: float, config: TrainingConfig, per_epoch: int) -> float:
    """The learning rate of a part at an optimiser step; zero where the part does not train.

    The scheduler starts again in every stage and runs over the length of the stage.
    """
    if not span.stage.trains(part):
        return 0.0
    factor = learning_rate_factor(config, config.scheduler, step - span.first, per_epoch, span.length)
    return span.stage.rate(part, base) * factor
