"""Settings of the network that predicts a warp at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ptycho.config.fields import option
from ptycho.config.learned import LearnedSettings
from ptycho.errors import ConfigError
from ptycho.simulation.objects import OBJECTS, get_object


@dataclass(frozen=True)
class WarpData:
    """The simulated pairs of images."""

    objects: str = option(
        "all", help="a kind of object, by its name in the simulation; all: every one but the flat"
    )
    largest_px: float = option(8.0, gt=0, le=16, help="longest displacement, px of a field of 128 px")
    least_noise: float = option(0.003, gt=0, le=1, help="smallest noise, as a share of the amplitude")
    most_noise: float = option(0.1, gt=0, le=1, help="largest noise")
    pool: int = option(96, ge=1, help="objects that crops are taken of, in one epoch")


@dataclass(frozen=True)
class WarpSettings(LearnedSettings):
    """One training of the network; `ptycho sweep model=warp`."""

    exports: ClassVar[tuple[str, ...]] = ("warp.safetensors", "warp.onnx", "warp.json")

    epochs: int = option(20, ge=1, help="epochs; an evaluation and a checkpoint follow each")
    steps_per_epoch: int = option(120, ge=1, help="optimiser steps in an epoch")
    batch_size: int = option(16, ge=1, help="pairs in a step")
    learning_rate: float = option(2e-3, gt=0, help="largest learning rate; it falls as a cosine over the run")
    channels: int = option(48, ge=8, le=256, help="width of the network")
    judged: int = option(64, ge=4, help="pairs of the evaluation, of objects that training does not see")
    data: WarpData = option(WarpData, help="what is simulated")

    def check(self) -> None:
        """Raise ConfigError for objects or noise that cannot be simulated."""
        self.kinds()
        if self.data.least_noise > self.data.most_noise:
            raise ConfigError(
                f"data.least_noise {self.data.least_noise} is above data.most_noise {self.data.most_noise}"
            )

    def kinds(self) -> list[str]:
        """Kinds of simulated objects."""
        if self.data.objects == "all":
            return sorted(set(OBJECTS) - {"flat"})
        get_object(self.data.objects)
        return [self.data.objects]
