"""Settings of the training of the learned codec: `ptycho sweep model=codec`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ptycho.config.fields import option
from ptycho.config.learned import LearnedSettings
from ptycho.errors import ConfigError
from ptycho.simulation.objects import OBJECTS
from ptycho.simulation.probes import PROBES


@dataclass(frozen=True)
class CodecData:
    """The simulated data: every scan of a batch has its own object, probe and dose."""

    N: int = option(64, ge=32, le=512, help="side of the frames, px, a multiple of 8")
    frames_per_scan: int = option(32, ge=4, help="frames of one scan in a batch")
    photons_low: float = option(3e2, gt=0, help="fewest photons a frame")
    photons_high: float = option(1e7, gt=0, help="most photons a frame")
    step_low_px: float = option(3.0, gt=0, help="smallest step of a scan, px")
    step_high_px: float = option(8.0, gt=0, help="largest step of a scan, px")
    objects: str = option(
        "gaussian_random_field,lines,cat_and_coins", choices=tuple(OBJECTS), several=True,
        help="what is imaged, drawn for each scan",
    )  # fmt: skip
    probes: str = option(
        "zone_plate,gaussian,disk", choices=tuple(PROBES), several=True,
        help="what illuminates it, drawn for each scan",
    )  # fmt: skip


@dataclass(frozen=True)
class CodecSettings(LearnedSettings):
    """One training of the learned codec."""

    exports: ClassVar[tuple[str, ...]] = ("learned.safetensors",)

    epochs: int = option(48, ge=1, help="epochs; an evaluation and a checkpoint follow each")
    steps_per_epoch: int = option(25, ge=1, help="optimiser steps in an epoch")
    batch_size: int = option(64, ge=1, help="frames in a step")
    learning_rate: float = option(2e-3, gt=0, help="largest learning rate; it falls as a cosine over the run")
    latent_channels: int = option(
        8, ge=1, le=64, help="channels of the latents, one value for 8 x 8 pixels each"
    )
    width: int = option(48, ge=4, le=256, help="channels of the widest layer")
    data: CodecData = option(CodecData, help="what is simulated")

    def check(self) -> None:
        """Raise ConfigError for values that do not fit each other."""
        data = self.data
        if data.N % 8:
            raise ConfigError(f"data.N = {data.N}: must be a multiple of 8")
        if self.width % 4:
            raise ConfigError(f"width = {self.width}: must be a multiple of 4")
        if self.batch_size % data.frames_per_scan:
            raise ConfigError(
                f"batch_size = {self.batch_size}: must be a multiple of data.frames_per_scan = "
                f"{data.frames_per_scan}"
            )
        for low, high in (("photons_low", "photons_high"), ("step_low_px", "step_high_px")):
            if getattr(data, low) > getattr(data, high):
                raise ConfigError(f"data.{low} = {getattr(data, low)}: is larger than data.{high}")
