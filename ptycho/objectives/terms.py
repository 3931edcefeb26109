"""The known terms and diagnostics: their names, what they need, and a schema for the settings of each.

Formulas stand in `specs/objectives.md`; each backend computes them in its own `losses` and `diagnostics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ptycho.config.fields import option


@dataclass
class NoSettings:
    """A term without settings of its own."""


@dataclass
class GaussianPoisson:
    """Counting noise plus the detector's read noise."""

    read_noise_counts: float = option(1.0, gt=0, help="standard deviation of the read noise, counts")


@dataclass
class Charbonnier:
    """A smooth absolute value."""

    epsilon: float = option(1e-2, gt=0, help="where it turns from square to linear, in the gauge of x")


@dataclass
class ProbeSupport:
    """A disk that the probe should not leave."""

    diameter_px: float | None = option(None, gt=0, help="diameter of the disk, px; None: N/2")
    sigma_px: float = option(1.0, ge=0, help="softness of the disk's edge, px")


@dataclass
class Similarity:
    """The window and the range of a structural similarity."""

    sigma_px: float = option(1.5, gt=0, help="standard deviation of the Gaussian window, px")
    data_range: float = option(1.0, gt=0, help="range of the amplitude, in the network's gauge")


@dataclass
class DecodedPositions:
    """A grid of shifts for every pattern, and how one is made of it."""

    kind: str = option("exp", choices=("exp", "st"), help="mean of the distribution, or its likeliest shift")
    radius_px: float = option(2.0, ge=2, le=16, help="shifts to this, along x and y, px")
    step_px: float = option(1.0, choices=(0.25, 0.5, 1.0, 2.0), help="distance of neighbouring shifts, px")
    deviation_px: float = option(1.0, gt=0, help="of the errors expected, on each axis, px")
    numbers: float = option(30.0, gt=0, help="independent errors of a wrong model in a pattern")


@dataclass
class Collapse:
    """When a network counts as dead."""

    threshold: float = option(
        1e-3, gt=0, help="alarm where the amplitude's standard deviation is below, relative to its mean"
    )
    patience: int = option(3, ge=1, help="epochs in a row before the alarm")


@dataclass(frozen=True)
class TermInfo:
    """What is known of a term before any backend is loaded."""

    name: str
    help: str
    settings: type[Any] = NoSettings
    needs_labels: bool = False
    #: computed from the stitched views and the measured counts, so it needs the forward model
    needs_prediction: bool = False
    #: the one backend that computes it, "" for both
    only: str = ""


def _table(*infos: TermInfo) -> dict[str, TermInfo]:
    return {info.name: info for info in infos}


OBJECTIVES: dict[str, TermInfo] = _table(
    TermInfo("poisson_nll", "Poisson likelihood of the counts", needs_prediction=True),
    TermInfo(
        "gaussian_poisson", "likelihood with read noise", GaussianPoisson, needs_prediction=True
    ),
    TermInfo("amplitude_mae", "mean absolute error of diffraction amplitude", needs_prediction=True),
    TermInfo(
        "amplitude_charbonnier", "smooth absolute error of diffraction amplitude", Charbonnier,
        needs_prediction=True,
    ),
    TermInfo("decoded_positions", "Poisson likelihood at decoded positions", DecodedPositions,
             needs_prediction=True, only="pytorch"),
    TermInfo("total_variation", "total variation of the complex object"),
    TermInfo("smoothness", "mean square curvature of the complex object"),
    TermInfo("overlap_consistency", "patches differ from the canvas they were merged to",
             needs_prediction=True),
    TermInfo("probe_power", "the probe's power leaves its starting value"),
    TermInfo("probe_support", "share of the probe's power outside a disk", ProbeSupport),
    TermInfo("supervised", "amplitude error plus wrapped phase error from labels", needs_labels=True),
    TermInfo("realspace_mae", "mean absolute complex difference from labels", needs_labels=True),
    TermInfo("label_phase", "wrapped phase error from labels", needs_labels=True),
    TermInfo("label_ssim", "one minus the structural similarity with labels", Similarity, needs_labels=True),
    TermInfo("label_edges", "difference of Sobel magnitudes from labels", needs_labels=True),
    TermInfo("label_orientation", "one minus the cosine between gradients and labels'", needs_labels=True),
)  # fmt: skip
"""Terms that can be minimised, by name."""

DIAGNOSTICS: dict[str, TermInfo] = _table(
    TermInfo("r_factor", "misfit of amplitudes, sqrt(sum (A - sqrt I)^2 / sum I)", needs_prediction=True),
    TermInfo("photons", "photons predicted and measured", needs_prediction=True),
    TermInfo("phase_range", "largest minus smallest phase of a patch, rad"),
    TermInfo("collapse", "dead outputs: amplitude without structure", Collapse),
    TermInfo("probe_drift", "relative change of the probe since the start"),
    TermInfo("gradient_norm", "norm of the gradient before clipping"),
)
"""What can be watched, by name; never part of what is minimised."""

DEFAULT_DIAGNOSTICS = ("r_factor", "collapse")
