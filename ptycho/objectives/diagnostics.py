"""Diagnostics from sums over an epoch: backends add up; this module divides, names, and gives the alarm.

Only sums can be added over several processes, so ratios are formed here, after the addition. A diagnostic
that fails gives NaN and is switched off with one warning; it never stops a run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

from ptycho.objectives.manifest import Module
from ptycho.objectives.terms import DIAGNOSTICS

log = logging.getLogger(__name__)

#: above this R nothing is explained; the R of a prediction of zeros is 1
_NOTHING_EXPLAINED = 0.95
#: from these counts per pixel on, a right prediction has R below 0.7 for every distribution of light
_COUNTS_PER_PX = 1.0

#: the sums that a backend collects for each diagnostic, in this order
SUMS: dict[str, tuple[str, ...]] = {
    "r_factor": ("num", "den"),
    "photons": ("predicted", "measured", "count"),
    "phase_range": ("sum", "count"),
    "collapse": ("amplitude", "complex", "count"),
    "probe_drift": ("change", "start"),
    "gradient_norm": ("sum", "count"),
}


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


_FINISHES: dict[str, Callable[..., dict[str, float]]] = {
    "r_factor": lambda num, den: {"r_frac": math.sqrt(_ratio(num, den)) if num >= 0 else math.nan},
    "photons": lambda predicted, measured, count: {
        "photons_predicted_mean": _ratio(predicted, count),
        "photons_measured_mean": _ratio(measured, count),
        "photons_rate": _ratio(predicted, measured),
    },
    "phase_range": lambda total, count: {"phase_range_rad_mean": _ratio(total, count)},
    "collapse": lambda amplitude, field, count: {
        "amplitude_spread_mean": _ratio(amplitude, count),
        "object_spread_mean": _ratio(field, count),
    },
    "probe_drift": lambda change, start: {"probe_drift_frac": math.sqrt(_ratio(change, start))},
    "gradient_norm": lambda total, count: {"gradient_norm_mean": _ratio(total, count)},
}


def slots(modules: tuple[Module, ...]) -> tuple[tuple[str, str], ...]:
    """(diagnostic, sum) for every number that a pass adds up, in a fixed order on every process."""
    return tuple((module.name, name) for module in modules for name in SUMS[module.name])


def finish(modules: tuple[Module, ...], sums: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """The named values of a pass. Means end in `_mean`, ratios in `_rate` or `_frac`; NaN: nothing seen."""
    made: dict[str, float] = {}
    for module in modules:
        values = [sums[module.name, name] for name in SUMS[module.name]]
        made.update(_FINISHES[module.name](*values))
    return made


class CollapseAlarm:
    """Warns once when, for several epochs in a row, patches have no structure or explain no diffraction.

    The complex patch is judged, so an object of pure phase is not taken for a collapse. A network of which
    only a few pixels are left has structure, but R near 1, as without any prediction. R is used only if
    `counts_per_px`, the mean over the detector of the dimmest scan (None: unknown), is high enough for a
    right prediction to have a much smaller R.
    """

    def __init__(self, modules: tuple[Module, ...], counts_per_px: float | None = None) -> None:
        found = next((module for module in modules if module.name == "collapse"), None)
        self._settings = found.settings(DIAGNOSTICS) if found is not None else None
        self._r_tells = counts_per_px is not None and counts_per_px >= _COUNTS_PER_PX
        self._dead_epochs = 0
        self.sounded = False

    def listen(self, values: Mapping[str, float]) -> bool:
        """Take the values of one epoch; True when the alarm is given now."""
        spread = values.get("object_spread_mean", math.nan)
        r = values.get("r_frac", math.nan) if self._r_tells else math.nan
        if self._settings is None or self.sounded or math.isnan(spread):
            return False
        flat = spread < self._settings.threshold
        self._dead_epochs = self._dead_epochs + 1 if flat or r > _NOTHING_EXPLAINED else 0
        self.sounded = self._dead_epochs >= self._settings.patience
        if self.sounded:
            what = (
                f"its patches have had no structure (relative standard deviation {spread:.1e})"
                if flat
                else f"it has explained none of the diffraction (R {r:.2f})"
            )
            log.warning(
                "the network is dead: for %d epochs %s - lower learning_rate, set gradient_clip_val 1, or "
                "check the probe",
                self._dead_epochs,
                what,
            )
        return self.sounded
