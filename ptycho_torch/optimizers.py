"""The optimiser of a run, its parameter groups, and the course of its learning rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from ptycho.config.settings import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.networks.parts import PARTS, part_of
from ptycho.objectives.stages import Span, span_at
from ptycho.run.schedules import learning_rate_factor, part_rate
from ptycho.run.tuning import TuningStage
from ptycho_torch.layers import GraphNetwork, neutral_name


class Trained(Protocol):
    """What this file needs of a module; `ptycho_torch.module.PtychoPINN` offers it."""

    config: TrainingConfig
    learning_rate: float
    tuning: tuple[TuningStage, ...]
    rates: StagedRates | None
    network: Any
    trainer: Any

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter by its name."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter."""


class StagedRates:
    """The courses of the learning rates of a run in stages, of which every part has its own."""

    def __init__(self, spans: tuple[Span, ...], steps_per_epoch: int) -> None:
        self._spans, self._per_epoch = spans, steps_per_epoch

    def factors(self, config: TrainingConfig, base: float, part: str) -> Callable[[int], float]:
        """The course of a part's learning rate, as factors on the run's, by optimiser step."""

        def factor(step: int) -> float:
            rate = part_rate(span_at(self._spans, step), part, step, base, config, self._per_epoch)
            return rate / base

        return factor


def parts(module: Trained) -> Iterator[tuple[str, nn.Parameter]]:
    """(part, parameter) of everything in the module, whether it trains or not. Raises ConfigError for a
    network whose parts are not known."""
    if not isinstance(module.network, GraphNetwork):
        raise ConfigError(
            "training in stages needs a network whose parts are known: one of the graphs of "
            "ptycho.networks.graphs"
        )
    for name, parameter in module.named_parameters():
        if name == "probe":
            yield "probe", parameter
        elif name == "log_scale":
            yield "scale", parameter
        else:
            yield part_of(neutral_name(name.removeprefix("network.")), module.network.graph), parameter


def parameter_groups(module: Trained) -> list[dict[str, Any]]:
    """What trains as one optimiser group a part, `name` beside `params`, so that each has its own rate."""
    groups: dict[str, list[nn.Parameter]] = {}
    for part, parameter in parts(module):
        if parameter.requires_grad:
            groups.setdefault(part, []).append(parameter)
    return [{"params": groups[part], "name": part} for part in PARTS if part in groups]


def configure_optimizers(module: Trained) -> OptimizerLRScheduler:
    """Optimiser over everything that trains, and its scheduler, as Lightning takes them."""
    config = module.config
    stages = module.rates
    staged = bool(module.tuning)
    trained: list[nn.Parameter] | list[dict[str, Any]]
    if staged or stages is not None:
        trained = parameter_groups(module)
    else:
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    rate = module.learning_rate
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adam":
        optimizer = torch.optim.Adam(trained, lr=rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)
    elif config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            trained, lr=rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    if stages is not None:
        courses = [stages.factors(config, rate, group["name"]) for group in optimizer.param_groups]
        by_part = torch.optim.lr_scheduler.LambdaLR(optimizer, courses)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": by_part, "interval": "step"}}
    if config.scheduler in ("Default", "ReduceLROnPlateau"):  # the plateau is a callback
        return optimizer
    total = int(module.trainer.estimated_stepping_batches)
    if staged:  # the schedule is that of the main epochs; the stages after them have rates of their own
        total = total * config.nepochs // max(1, int(module.trainer.max_epochs or config.nepochs))
    per_epoch = max(1, total // max(1, config.nepochs))
    stepped = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(config, config.scheduler, step, per_epoch, total)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": stepped, "interval": "step"}}
