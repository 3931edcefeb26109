"""All options of a reconstruction except those of the update rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptycho.errors import ConfigError

#: what `prior` may be
PRIORS = ("auto", "learned", "tv", "none")
_RESTING = 0.2
_FULL_ONE_LEVEL, _FULL_TWO_LEVELS = 8, 2
_MOMENTUM = 0.7
#: counts in the mean pattern from which the positions network finds more than the formula
_COUNTS_OF_NETWORK = 3e4


@dataclass(frozen=True)
class RefineOptions:
    """Defaults serve every scan; lengths in px, epochs in sweeps over the scan.

    rule, rule_options: update rule and its arguments.  batch_size: patterns a step (None: the rule's own,
    fewer for a small scan). batches: "random" or "compact" (neighbours together).  modes: incoherent probe
    modes (None: as given).  start: "flat", "coarse" (low frequencies from counts and centres of mass) or
    "auto" (the one that explains the patterns better); a given object has precedence. levels: 2 (coarse steps
    among the first sweeps, each kept only if it helps) or 1.  prior: "learned" (a small network, twice), "tv"
    (total variation), each with a strength chosen by held-out patterns, "none", or "auto" (learned if an
    object pixel gets 3 to 1,000 photons, tv below).  momentum: share of a sweep's move that the next one
    begins with, [0, 1) (None: 0 with one level, 0.7 with two; positions that move have none).
    full_epochs: sweeps at full step before the
    step falls linearly to `final_strength` (None: 8 with one level, 2 with two). probe_from: first sweep
    (0-based) that changes the probe; None keeps it. positions: "fixed", "free" (each pattern for itself) or
    "affine" (scale, rotation and shear of the scan too); positions_from: first sweep that may solve for them;
    position_step_px: largest move a sweep; position_search_px: errors of this size
    are looked for during the first half of the sweeps (0 = errors of a pixel or less); position_decode: how,
    "exp" or "st" (decoded from misfit maps, decode.py), "none" (tried at random) or "auto" (exp);
    position_belief: how maps become distributions, "network" or "formula" (beliefs.py) or "auto" (the
    network from 30,000 counts a pattern).
    intensity: one amplitude factor a pattern. background: one incoherent background image.  probe_support:
    (N, N) bool, True = probe may be non-zero. amplitude_limits: (low, high) of |object|.  smoothness: weight
    of the object's squared gradient against the illumination (0 = off).  patience, tolerance: stop when R
    fell by less than `tolerance` (relative) over `patience` sweeps (0 = never).
    """

    rule: Any = "rpie"
    rule_options: dict[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    batches: str = "random"
    modes: int | None = None
    start: str = "auto"
    levels: int = 2
    prior: str = "auto"
    momentum: float | None = None
    full_epochs: int | None = None
    final_strength: float = 0.02
    probe_from: int | None = 0
    positions: str = "fixed"
    positions_from: int = 3
    position_step_px: float = 0.5
    position_search_px: float = 0.0
    position_decode: str = "auto"
    position_belief: str = "auto"
    intensity: bool = False
    background: bool = False
    probe_support: np.ndarray | None = None
    amplitude_limits: tuple[float, float] | None = None
    smoothness: float = 0.0
    patience: int = 0
    tolerance: float = 1e-4

    def check(self) -> RefineOptions:
        """Itself, or ConfigError naming the field that cannot be used."""
        if self.batches not in ("random", "compact"):
            raise ConfigError(f"batches='{self.batches}' is unknown; use 'random' or 'compact'")
        if self.positions not in ("fixed", "free", "affine"):
            raise ConfigError(f"positions='{self.positions}' is unknown; use 'fixed', 'free' or 'affine'")
        if self.start not in ("auto", "coarse", "flat"):
            raise ConfigError(f"start='{self.start}' is unknown; use 'auto', 'coarse' or 'flat'")
        if self.levels not in (1, 2):
            raise ConfigError(f"levels={self.levels} must be 1 or 2")
        if self.prior not in PRIORS:
            raise ConfigError(f"prior='{self.prior}' is unknown; use one of {', '.join(PRIORS)}")
        if self.position_decode not in ("auto", "exp", "st", "none"):
            raise ConfigError(
                f"position_decode='{self.position_decode}' is unknown; use 'auto', 'exp', 'st' or 'none'"
            )
        if self.position_decode in ("exp", "st") and not self.position_search_px:
            raise ConfigError(
                f"position_decode='{self.position_decode}' needs position_search_px, the size of the errors"
            )
        if self.position_belief not in ("auto", "network", "formula"):
            raise ConfigError(
                f"position_belief='{self.position_belief}' is unknown; use 'auto', 'network' or 'formula'"
            )
        if self.position_belief == "network" and self.decoder == "none":
            raise ConfigError(
                "position_belief='network' needs position_search_px, and a position_decode other than 'none'"
            )
        return self._checked_numbers()

    def _checked_numbers(self) -> RefineOptions:
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum={self.momentum} must lie in [0, 1)")
        if self.full_epochs is not None and self.full_epochs < 0:
            raise ConfigError(f"full_epochs={self.full_epochs} must not be negative")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} must be at least 1")
        if self.modes is not None and not 1 <= self.modes <= 16:
            raise ConfigError(f"modes={self.modes} must lie between 1 and 16")
        if not 0 < self.final_strength <= 1 or self.smoothness < 0 or self.position_step_px <= 0:
            raise ConfigError("final_strength must lie in (0, 1], smoothness >= 0 and position_step_px > 0")
        if not 0 <= self.position_search_px <= 100:
            raise ConfigError(f"position_search_px={self.position_search_px} must lie between 0 and 100")
        if self.position_search_px and self.positions == "fixed":
            raise ConfigError("position_search_px needs positions='free' or 'affine'")
        return self

    @property
    def decoder(self) -> str:
        """The decoding method of a search: "exp", "st", or "none"."""
        if not self.position_search_px:
            return "none"
        return "exp" if self.position_decode == "auto" else self.position_decode

    def believer(self, mean_counts: float) -> str:
        """How misfit maps become distributions, "network" or "formula", for patterns of so many counts."""
        if self.decoder == "none":
            return "formula"
        if self.position_belief == "auto":
            return "network" if mean_counts >= _COUNTS_OF_NETWORK else "formula"
        return self.position_belief

    @property
    def rule_name(self) -> str:
        """The update rule's name, whether it is given by name or as an object."""
        return self.rule if isinstance(self.rule, str) else str(getattr(self.rule, "name", ""))

    @property
    def carried(self) -> float:
        """Share of a sweep's move that the next one begins with."""
        if self.positions != "fixed" or self.rule_name not in ("rpie", "epie", "lsqml"):
            return 0.0
        if self.momentum is not None:
            return self.momentum
        return 0.0 if self.levels == 1 else _MOMENTUM

    @property
    def full_steps(self) -> int:
        """Sweeps at full step of a schedule of given length."""
        if self.full_epochs is not None:
            return self.full_epochs
        return _FULL_ONE_LEVEL if self.levels == 1 else _FULL_TWO_LEVELS

    def search_epochs(self, epochs: int) -> int:
        """Sweeps that look for positions at random before any is refined."""
        return epochs // 2 if self.position_search_px else 0

    def joint_epochs(self, epochs: int) -> tuple[int, ...]:
        """Sweeps that solve for positions together with object and probe (joint.py).

        Two blocks, with sweeps of the rule between them that average the noise in the object.
        """
        if self.positions == "fixed":
            return ()
        start = self.search_epochs(epochs) or max(self.positions_from, min(10, epochs // 4))
        total = min(12, 3 * epochs // 10)
        later = 5 * total // 12
        rest = min(10, max(0, (epochs - start - total) // 2))
        first = range(start, start + total - later)
        again = range(first.stop + rest, first.stop + rest + later)
        return tuple(epoch for epoch in (*first, *again) if epoch < epochs)

    def strength(self, epoch: int, epochs: int) -> float:
        """Step factor of sweep `epoch` (0-based) of `epochs`: 1, then a straight line to `final_strength`.

        Joint steps leave mainly noise to average: the factor is 0.2 between them, and half of the line after
        them.
        """
        full, joint = (
            max(min(self.full_steps, epochs // 4), self.search_epochs(epochs)),
            self.joint_epochs(epochs),
        )
        if joint and joint[0] < epoch < joint[-1]:
            return max(self.final_strength, _RESTING)
        top = 0.5 if joint and epoch >= joint[-1] else 1.0
        full = max([full, *joint])
        if epoch < full:
            return 1.0
        return max(self.final_strength, top * min(1.0, (epochs - 1 - epoch) / max(epochs - 1 - full, 1)))
