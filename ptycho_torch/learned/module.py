"""A task for Lightning: batches by epoch and step, weighted terms, one evaluation per epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho.config.learned import loss_weights
from ptycho.errors import PtychoError
from ptycho_torch.learned.task import Batch, Task

log = logging.getLogger(__name__)


class Learner(L.LightningModule):
    """The network of a task, its optimiser and its terms."""

    def __init__(self, task: Task[Any]) -> None:
        super().__init__()
        self.task, self.network = task, task.network
        self.weights = loss_weights(task.settings, task.terms)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        found = self.task.losses(self.network, batch)
        # a term of weight 0 is logged and does not train
        total = torch.stack([self.weights[name] * found[name] for name in found if self.weights[name]]).sum()
        values = {"train_loss": total.detach()} | {f"loss/{n}": v.detach() for n, v in found.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)
        return total

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        values = {f"val/{name}": value for name, value in self._evaluated().items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)

    def _evaluated(self) -> dict[str, float]:
        """The numbers of the task; a failed evaluation is reported and does not end the training."""
        try:
            return {name: float(value) for name, value in self.task.evaluate(self.network).items()}
        except (KeyboardInterrupt, PtychoError):
            raise
        except Exception as error:
            worst = 0.0 if self.task.mode == "max" else math.inf
            log.warning(
                "%s: the evaluation failed (%s: %s); %s counts as %g, the training goes on",
                self.task.name, type(error).__name__, error, self.task.monitor, worst,
            )  # fmt: skip
            return {self.task.monitor.removeprefix("val/"): worst}

    def configure_optimizers(self) -> Any:
        settings = self.task.settings
        moving = [value for value in self.network.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(moving, settings.learning_rate, weight_decay=settings.weight_decay)
        steps = settings.epochs * settings.steps_per_epoch

        def course(step: int) -> float:
            """A linear rise, then half a cosine down to a hundredth."""
            rise = min(1.0, (step + 1) / max(1, settings.warmup_steps))
            return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, course)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Steps(Sampler[tuple[int, int]]):
    """The (epoch, step) pairs of an epoch, in order; Lightning sets the epoch."""

    def __init__(self, count: int) -> None:
        self._count, self._epoch = count, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self._epoch, step) for step in range(self._count))

    def __len__(self) -> int:
        return self._count


class Batches(Dataset[Batch]):
    """The batches of a task by (epoch, step)."""

    def __init__(self, task: Task[Any]) -> None:
        self._task = task

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return self._task.batch(*key)


def loaders(task: Task[Any]) -> tuple[DataLoader[Batch], DataLoader[Tensor]]:
    """Batches of training, and the single step of the evaluation."""
    steps = Steps(task.settings.steps_per_epoch)
    once: Sequence[Tensor] = [torch.zeros(1)]
    return (
        DataLoader(Batches(task), sampler=steps, batch_size=None),
        DataLoader(once, batch_size=None),  # type: ignore[arg-type]
    )
