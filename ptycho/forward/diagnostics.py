"""What is watched: the sums that every diagnostic takes of a batch, and which diagnostics are still on.

`ptycho.objectives.diagnostics` names the sums and divides them at the end of a pass. How a backend adds them
up without waiting for its device is in its own `diagnostics`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from ptycho.forward.fields import squared
from ptycho.objectives.diagnostics import slots
from ptycho.objectives.manifest import Module
from ptycho.ops import Array, ops_of

log = logging.getLogger(__name__)

#: what a diagnostic reads of `ptycho.forward.seen.Seen`: `batch` with x and counted, and what `NEEDS` names
Shown = Any
T = TypeVar("T")


def _count(values: Array) -> Array:
    """How many there are, as a number of their own kind."""
    return ops_of(values).sum(values * 0 + 1)


def _r_factor(seen: Shown) -> tuple[Array, ...]:
    measured = seen.batch["x"]
    ops = ops_of(measured)
    counted = ops.cast_like(seen.counted, measured)
    misfit = ops.square(seen.amplitude - measured) * counted
    return ops.sum(misfit), ops.sum(ops.square(measured) * counted)


def _photons(seen: Shown) -> tuple[Array, ...]:
    ops = ops_of(seen.expected)
    counted = ops.cast_like(seen.counted, seen.expected)
    patterns = ops.sum(ops.cast_like(seen.batch["counted"], seen.expected))
    return ops.sum(seen.expected * counted), ops.sum(seen.counts * counted), patterns


def _lit(seen: Shown) -> Array:
    """Patches (B, C_out, pixels) where the illumination is above a tenth of its maximum."""
    ops = ops_of(seen.patches)
    return ops.masked(seen.patches, seen.illumination > 0.1 * ops.max(seen.illumination))


def _phase_range(seen: Shown) -> tuple[Array, ...]:
    ops = ops_of(seen.patches)
    angles = ops.angle(_lit(seen))
    spread = ops.max(angles, -1) - ops.min(angles, -1)
    return ops.sum(spread), _count(spread)


def _collapse(seen: Shown) -> tuple[Array, ...]:
    ops = ops_of(seen.patches)
    field = _lit(seen)
    modulus = ops.sqrt(squared(field))
    mean = ops.mean(modulus, -1, keepdims=True)
    level = ops.maximum(mean[..., 0], 1e-12)
    spread = ops.sqrt(ops.mean(ops.square(modulus - mean), -1)) / level
    about = squared(field - ops.mean(field, -1, keepdims=True))
    complex_spread = ops.sqrt(ops.mean(about, -1)) / level
    return ops.sum(spread), ops.sum(complex_spread), _count(spread)


#: the sums of one batch, in the order of `ptycho.objectives.diagnostics.SUMS`
BATCH_SUMS: dict[str, Callable[[Shown], tuple[Array, ...]]] = {
    "r_factor": _r_factor,
    "photons": _photons,
    "phase_range": _phase_range,
    "collapse": _collapse,
}
#: what each reads beside the batch's own x and counted
NEEDS: dict[str, tuple[str, ...]] = {
    "r_factor": ("amplitude", "counted"),
    "photons": ("expected", "counts", "counted"),
    "phase_range": ("patches", "illumination"),
    "collapse": ("patches", "illumination"),
}


class Switches:
    """The diagnostics of a pass, and which of them have failed and are off."""

    def __init__(self, modules: tuple[Module, ...]) -> None:
        self._modules = modules
        self._slots = slots(modules)
        self._off: set[str] = set()

    @property
    def names(self) -> Collection[str]:
        """The diagnostics that the run asked for."""
        return {module.name for module in self._modules}

    def of_batch(self) -> list[str]:
        """Those that are on and take sums of a batch, in their order."""
        return [m.name for m in self._modules if m.name in BATCH_SUMS and m.name not in self._off]

    def attempt(self, name: str, run: Callable[[], T]) -> T | None:
        """What a part of a diagnostic gives; None where it fails, which warns and switches it off."""
        try:
            return run()
        except Exception as error:  # a diagnostic must not stop a run, whatever goes wrong in it
            self._off.add(name)
            log.warning("diagnostic %s failed and is switched off: %s", name, _line(error))
            return None


def _line(error: Exception) -> str:
    """What went wrong, in one line: an error of TensorFlow has many."""
    return " ".join(str(getattr(error, "message", error)).split())[:240]
