"""What is watched, in TensorFlow: the sums of `ptycho.objectives.diagnostics`, one function a diagnostic.

Twin of `ptycho_torch.diagnostics`. The sums live in one variable that the traced step adds to, so that no
number is read between steps. What fails shows when a step is traced, and is switched off there.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.objectives.diagnostics import SUMS, finish, slots
from ptycho.objectives.manifest import Module
from ptycho.tf.objectives import Seen
from ptycho.tf.penalties import squared

log = logging.getLogger(__name__)

Tensor = Any


def _r_factor(seen: Seen) -> tuple[Tensor, ...]:
    counted = tf.cast(seen.counted, seen.amplitude.dtype)
    measured = seen.batch["x"]
    misfit = tf.square(seen.amplitude - measured) * counted
    return tf.reduce_sum(misfit), tf.reduce_sum(tf.square(measured) * counted)


def _photons(seen: Seen) -> tuple[Tensor, ...]:
    counted = tf.cast(seen.counted, seen.amplitude.dtype)
    patterns = tf.math.count_nonzero(seen.batch["counted"])
    return tf.reduce_sum(seen.expected * counted), tf.reduce_sum(seen.counts * counted), patterns


def _lit(seen: Seen) -> Tensor:
    """Patches (B, C_out, pixels) where the probe shines."""
    bright = seen.illumination > 0.1 * tf.reduce_max(seen.illumination)
    return tf.boolean_mask(seen.patches, bright, axis=2)


def _phase_range(seen: Seen) -> tuple[Tensor, ...]:
    angles = tf.math.angle(_lit(seen))
    spread = tf.reduce_max(angles, -1) - tf.reduce_min(angles, -1)
    return tf.reduce_sum(spread), tf.size(spread)


def _collapse(seen: Seen) -> tuple[Tensor, ...]:
    field = _lit(seen)
    modulus = tf.sqrt(squared(field))
    level = tf.maximum(tf.reduce_mean(modulus, -1), 1e-12)
    spread = tf.math.reduce_std(modulus, -1) / level
    about = squared(field - tf.reduce_mean(field, -1, keepdims=True))
    complex_spread = tf.sqrt(tf.reduce_mean(about, -1)) / level
    return tf.reduce_sum(spread), tf.reduce_sum(complex_spread), tf.size(spread)


_BATCH_SUMS: dict[str, Callable[[Seen], tuple[Tensor, ...]]] = {
    "r_factor": _r_factor,
    "photons": _photons,
    "phase_range": _phase_range,
    "collapse": _collapse,
}


class Watch:
    """The running sums of one pass over the data; `see` every batch, `finish` at its end."""

    def __init__(self, modules: tuple[Module, ...]) -> None:
        self._modules = modules
        self._off: set[str] = set()
        self._slots = slots(modules)
        self._sums = tf.Variable(tf.zeros(len(self._slots), tf.float64), trainable=False)

    @property
    def names(self) -> set[str]:
        """The diagnostics that are on."""
        return {module.name for module in self._modules}

    def reset(self) -> None:
        """Begin a pass."""
        self._sums.assign(tf.zeros_like(self._sums))

    def see(self, seen: Seen) -> None:
        """Add one batch; runs in the graph, outside the tape."""
        some = [module.name for module in self._modules if module.name in _BATCH_SUMS]
        self._add({name: lambda name=name: _BATCH_SUMS[name](seen) for name in some})  # type: ignore[misc]

    def see_gradient(self, gradients: Sequence[Tensor]) -> None:
        """Add the gradient's norm before clipping; runs in the graph, once an optimiser step."""
        if "gradient_norm" in self.names:
            self._add({"gradient_norm": lambda: (tf.linalg.global_norm(gradients), 1)})

    def see_probe(self, now: NDArray[Any], start: NDArray[Any]) -> None:
        """Take the probe's change since the start; at the end of a pass."""
        if "probe_drift" in self.names:
            change = np.sum(np.abs(now - start) ** 2)
            self._add({"probe_drift": lambda: (change, np.sum(np.abs(start) ** 2))})

    def _add(self, several: dict[str, Callable[[], tuple[Tensor, ...]]]) -> None:
        added: dict[tuple[str, str], Tensor] = {}
        for name, sums in several.items():
            added.update(zip(((name, key) for key in SUMS[name]), self._values(name, sums), strict=True))
        if added:
            nothing = tf.zeros((), tf.float64)
            self._sums.assign_add(tf.stack([added.get(slot, nothing) for slot in self._slots]))

    def _values(self, name: str, sums: Callable[[], tuple[Tensor, ...]]) -> list[Tensor]:
        if name not in self._off:
            try:
                return [tf.cast(value, tf.float64) for value in sums()]
            except Exception as error:  # a diagnostic must not stop a run, whatever goes wrong in it
                self._off.add(name)
                log.warning("diagnostic %s failed and is switched off: %s", name, error)
        return [tf.constant(math.nan, tf.float64)] * len(SUMS[name])

    def finish(self) -> dict[str, float]:
        """The named values of the pass; NaN where nothing was seen or the diagnostic is off."""
        sums = (float(value) for value in self._sums.numpy())
        return finish(self._modules, dict(zip(self._slots, sums, strict=True)))
