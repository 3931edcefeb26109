"""Settings of a fit of two images. Frozen; checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from ptycho.errors import ConfigError

#: in order of complexity: each kind contains the one before
KINDS = ("none", "affine", "lens", "flow")
#: terms of the loss and their weights; the data terms are in units of the images' own noise
TERMS = {
    "charbonnier": 1.0,
    "ssim": 0.0,
    "edges": 0.0,
    "orientation": 0.0,
    "variation": 0.0,
    "magnitude": 1e-4,
    "curvature": 1.0,
    "fold": 100.0,
}


@dataclass(frozen=True)
class PairSettings:
    """kind: the richest warp that may be used. max_flow_px: bound of the flow. steps: steps of each part of a
    stage. flow_points: control points a side of the finest flow. smooth_px: Gaussian that both images get at
    full size. gauge_px: window of the fitted factor between the images (the ptychographic gauge).
    significance: standard errors by which held-out pixels must fit better before a richer warp is accepted.
    weights: of terms of the loss, by name; other terms keep their defaults.
    """

    kind: str = "flow"
    max_flow_px: float = 12.0
    steps: int = 40
    flow_points: int = 19
    smooth_px: float = 1.0
    gauge_px: float = 48.0
    significance: float = 4.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def check(self) -> PairSettings:
        """Itself, or ConfigError naming what cannot be used."""
        if self.kind not in KINDS:
            raise ConfigError(f"warp {self.kind!r} is unknown; use {', '.join(KINDS)}")
        for name, low, high in (
            ("max_flow_px", 0.1, 100.0), ("steps", 1, 10_000), ("flow_points", 4, 99),
            ("smooth_px", 0.0, 20.0), ("gauge_px", 8.0, 1e4), ("significance", 0.0, 100.0),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; it must lie between {low:g} and {high:g}")
        for name, value in self.weights.items():
            if name not in TERMS:
                near = get_close_matches(name, TERMS, n=1, cutoff=0.4)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ConfigError(f"no term {name!r} in the loss of a warp: {hint}Known: {', '.join(TERMS)}")
            if not 0 <= value < float("inf"):
                raise ConfigError(f"weight {name} is {value!r}; it must be a finite number >= 0")
        return self

    def all_weights(self) -> dict[str, float]:
        """Every term and its weight."""
        return {**TERMS, **self.weights}

    def of_kind(self, kind: str) -> PairSettings:
        """The same for another kind of warp."""
        return replace(self, kind=kind).check()
