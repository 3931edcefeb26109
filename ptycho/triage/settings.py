"""The settings of a training of triage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ptycho.config.fields import option, shown
from ptycho.config.learned import LearnedSettings
from ptycho.errors import ConfigError
from ptycho.triage.scans import SIDES, Ranges


@dataclass(frozen=True)
class TriageData:
    """Which scans are simulated, and how many of their frames are bad."""

    photons: tuple[float, ...] = option((1e2, 1e7), help="least and most photons of a frame, log-uniform")
    sides: tuple[int, ...] = option(SIDES, help="sides of frames, px, that are drawn from")
    side_weights: tuple[float, ...] = option(
        Ranges().side_weights, help="how often each side is drawn; empty: equally"
    )
    n_frames: tuple[int, ...] = option((36, 121), help="fewest and most frames of a scan")
    read_noise: float = option(
        0.2, ge=0, le=1, help="share of scans whose detector integrates, with read noise"
    )
    bad_shares: tuple[float, ...] = option(
        (0.0, 0.05, 0.15, 0.3), help="shares of bad frames; one is drawn for each scan"
    )
    repeats: int = option(
        3, ge=1, help="doses, detectors and draws of faults for each object, probe and path"
    )
    evaluated_scans: int = option(16, ge=1, help="scans that each evaluation is on, for each of its doses")

    threshold_scans: int = option(240, ge=1, help="scans whose good frames set the thresholds")

    def check(self) -> None:
        """Raise ConfigError for the first value that cannot be used."""
        _numbers("data.photons", self.photons, 2, 1.0, 1e9)
        _numbers("data.n_frames", self.n_frames, 2, 6, 10_000, whole=True)
        _numbers("data.bad_shares", self.bad_shares, None, 0.0, 0.5)
        _numbers("data.sides", self.sides, None, 32, 1024, whole=True)
        if any(side % 2 for side in self.sides):
            raise ConfigError(f"data.sides = {shown(self.sides)}: each must be even")
        if self.side_weights and len(self.side_weights) != len(self.sides):
            raise ConfigError("data.side_weights: one for each of data.sides, or none: data.side_weights=[]")
        if self.side_weights:
            _numbers("data.side_weights", self.side_weights, None, 0.0, math.inf)
            if not sum(self.side_weights) > 0:
                raise ConfigError("data.side_weights: all are 0; give one more than 0")
        for name in ("photons", "n_frames"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"data.{name} = {shown((low, high))}: the least stands first")

    def ranges(self, photons: float | None = None) -> Ranges:
        """The ranges of the simulated scans; photons: the same dose for all."""
        low, high = self.photons if photons is None else (photons, photons)
        weights = self.side_weights or (1.0,) * len(self.sides)
        first, last = self.n_frames
        return Ranges(
            (float(low), float(high)), tuple(self.sides), tuple(weights), (first, last), self.read_noise
        )


@dataclass(frozen=True)
class TriageSettings(LearnedSettings):
    """One training of triage."""

    exports: ClassVar[tuple[str, ...]] = ("triage.safetensors", "triage.onnx", "triage.json")

    output_dir: Path = option(Path("triage_out"), help="folder for everything the training writes")
    epochs: int = option(10, ge=1, help="epochs; an evaluation and a checkpoint follow each")
    steps_per_epoch: int = option(100, ge=1, help="optimiser steps in an epoch")
    batch_size: int = option(384, ge=8, help="frames in a step, of some scans")
    learning_rate: float = option(3e-3, gt=0, help="largest learning rate; it falls as a cosine over the run")
    weight_decay: float = option(1e-3, ge=0, help="weight decay of AdamW")
    class_weights: bool = option(True, help="a frame with a rare fault counts more, up to four times")
    data: TriageData = option(TriageData, help="the scans that are simulated")

    def check(self) -> None:
        """Raise ConfigError for the first value that cannot be used."""
        super().check()
        self.data.check()


def _numbers(name: str, values: Any, count: int | None, low: float, high: float, whole: bool = False) -> None:
    """Raise ConfigError for a list that is empty, has another length, or holds values outside the bounds."""
    kinds = (int,) if whole else (int, float)
    right = all(
        isinstance(v, kinds) and not isinstance(v, bool) and math.isfinite(v) and low <= v <= high
        for v in values
    )
    if not values or not right or (count is not None and len(values) != count):
        many = f"{count} " if count else ""
        what = "whole numbers" if whole else "numbers"
        raise ConfigError(
            f"{name} = {shown(values)}: must be a list of {many}{what} from {low:g} to {high:g}"
        )
