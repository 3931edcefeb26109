"""The interface of a learned tool, so that one trainer serves all tools."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import Tensor, nn

from ptycho.config.learned import LearnedSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Settings = TypeVar("Settings", bound=LearnedSettings)
Batch = dict[str, Tensor]


class Task(ABC, Generic[Settings]):
    """A network with one purpose. The settings, including the seed, determine everything."""

    #: as in `ptycho sweep model=NAME`
    name: str = ""
    #: terms of the loss and their weights, where the settings do not say otherwise
    terms: Mapping[str, float] = {"loss": 1.0}
    #: the number of `evaluate`, with `val/` before its name, whose best epoch is kept; and which is better
    monitor: str = "val/loss"
    mode: str = "min"
    #: numbers beside the progress bar: of training by their names, of the evaluation with `val/`
    bar: tuple[str, ...] = ("train_loss", "val/loss")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.network = self.build()

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, its weights drawn from the seed by a generator of its own."""

    @abstractmethod
    def batch(self, epoch: int, step: int) -> Batch:
        """The examples of one step, determined by (seed, epoch, step) only."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Every term of the loss as a scalar, without its weight."""

    @abstractmethod
    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Numbers on fixed examples that are never trained on; `loss` is one of them."""

    def shown(self, network: nn.Module) -> dict[str, Figure]:
        """Pictures after an epoch, by name."""
        return {}

    @abstractmethod
    def export(self, network: nn.Module, folder: Path) -> list[Path]:
        """Write the trained network in its export formats; returns their paths."""
