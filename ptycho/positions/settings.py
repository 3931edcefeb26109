"""Settings of the training of the positions network: `ptycho sweep model=positions`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ptycho.config.fields import option, shown
from ptycho.config.learned import LearnedSettings
from ptycho.errors import ConfigError


@dataclass(frozen=True)
class PositionsData:
    """The simulated scans, whose positions are wrong, and how they are searched while maps are collected."""

    scans: int = option(56, ge=1, help="scans whose maps are trained on")
    judged_scans: int = option(6, ge=1, help="further scans, of other objects, for the evaluation")
    sides: tuple[int, ...] = option(
        (64, 64, 64, 32), help="sides of patterns, px; one is drawn for each scan"
    )
    photons: tuple[float, ...] = option((1e3, 1e6), help="least and most photons of a pattern, log-uniform")
    errors_px: tuple[float, ...] = option(
        (1.0, 10.0), help="least and most error at 64 px, px rms; in proportion to the side at others"
    )
    drifts: float = option(0.25, ge=0, le=1, help="share of scans whose errors are a drift")
    helped: float = option(
        0.5, ge=0, le=1, help="share of scans whose search is helped by the truth, as by a better network"
    )
    n_positions: tuple[int, ...] = option((36, 81), help="fewest and most patterns of a scan")

    def check(self) -> None:
        """Raise ConfigError for the first value that cannot be used."""
        if not self.sides or any(side % 2 or not 32 <= side <= 256 for side in self.sides):
            raise ConfigError(f"data.sides = {shown(self.sides)}: even numbers from 32 to 256")
        for name, least, most in (("photons", 1.0, 1e9), ("errors_px", 0.5, 20.0), ("n_positions", 16, 1000)):
            pair = getattr(self, name)
            if len(pair) != 2 or not least <= pair[0] <= pair[1] <= most:
                raise ConfigError(
                    f"data.{name} = {shown(pair)}: two numbers from {least:g} to {most:g}, the least first"
                )


@dataclass(frozen=True)
class PositionsSettings(LearnedSettings):
    """One training of the positions network."""

    exports: ClassVar[tuple[str, ...]] = ("positions.safetensors",)

    output_dir: Path = option(Path("positions_out"), help="folder for everything the training writes")
    epochs: int = option(12, ge=1, help="epochs; an evaluation and a checkpoint follow each")
    steps_per_epoch: int = option(100, ge=1, help="optimiser steps in an epoch")
    batch_size: int = option(64, ge=1, help="maps in a step")
    learning_rate: float = option(4e-3, gt=0, help="largest learning rate; it falls as a cosine over the run")
    channels: int = option(16, ge=4, le=128, help="width of the network")
    data: PositionsData = option(PositionsData, help="what is simulated")

    def check(self) -> None:
        """Raise ConfigError for scans that cannot be simulated."""
        self.data.check()
