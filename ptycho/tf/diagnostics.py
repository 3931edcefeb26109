"""What is watched, in TensorFlow: the sums of `ptycho.objectives.diagnostics`, one function a diagnostic.

Twin of `ptycho_torch.diagnostics`. A graph in which something fails is lost as a whole, so the traced step
only puts aside what is to be looked at; after it a graph of its own adds to the sums, and its failure is
caught. No number is read between steps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
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
#: what a diagnostic sees of `ptycho.tf.objectives.Seen`: x and counted of the batch, and what it needs
Shown = Any


def _r_factor(seen: Shown) -> tuple[Tensor, ...]:
    counted = tf.cast(seen.counted, seen.amplitude.dtype)
    measured = seen.batch["x"]
    misfit = tf.square(seen.amplitude - measured) * counted
    return tf.reduce_sum(misfit), tf.reduce_sum(tf.square(measured) * counted)


def _photons(seen: Shown) -> tuple[Tensor, ...]:
    counted = tf.cast(seen.counted, seen.amplitude.dtype)
    patterns = tf.math.count_nonzero(seen.batch["counted"])
    return tf.reduce_sum(seen.expected * counted), tf.reduce_sum(seen.counts * counted), patterns


def _lit(seen: Shown) -> Tensor:
    """Patches (B, C_out, pixels) where the probe shines."""
    bright = seen.illumination > 0.1 * tf.reduce_max(seen.illumination)
    return tf.boolean_mask(seen.patches, bright, axis=2)


def _phase_range(seen: Shown) -> tuple[Tensor, ...]:
    angles = tf.math.angle(_lit(seen))
    spread = tf.reduce_max(angles, -1) - tf.reduce_min(angles, -1)
    return tf.reduce_sum(spread), tf.size(spread)


def _collapse(seen: Shown) -> tuple[Tensor, ...]:
    field = _lit(seen)
    modulus = tf.sqrt(squared(field))
    level = tf.maximum(tf.reduce_mean(modulus, -1), 1e-12)
    spread = tf.math.reduce_std(modulus, -1) / level
    about = squared(field - tf.reduce_mean(field, -1, keepdims=True))
    complex_spread = tf.sqrt(tf.reduce_mean(about, -1)) / level
    return tf.reduce_sum(spread), tf.reduce_sum(complex_spread), tf.size(spread)


_BATCH_SUMS: dict[str, Callable[[Shown], tuple[Tensor, ...]]] = {
    "r_factor": _r_factor,
    "photons": _photons,
    "phase_range": _phase_range,
    "collapse": _collapse,
}
#: what each needs beside `_BATCH`; the graph computes it whether or not a term does
_NEEDS: dict[str, tuple[str, ...]] = {
    "r_factor": ("amplitude", "counted"),
    "photons": ("expected", "counts", "counted"),
    "phase_range": ("patches", "illumination"),
    "collapse": ("patches", "illumination"),
}
_BATCH = {"batch.x", "batch.counted"}


class Watch:
    """The running sums of one pass over the data: `see` in the step of every batch, `look` after it, `finish`
    at the end.

    Memory: what the diagnostics need of one batch, see `_NEEDS`.
    """

    def __init__(self, modules: tuple[Module, ...]) -> None:
        self._modules = modules
        self._off: set[str] = set()
        self._slots = slots(modules)
        self._sums = tf.Variable(tf.zeros(len(self._slots), tf.float64), trainable=False)
        #: what the last batch put aside, by name
        self._aside: dict[str, Any] = {}
        self._looks: dict[tuple[str, ...], Any] = {}

    @property
    def names(self) -> set[str]:
        """The diagnostics that are on."""
        return {module.name for module in self._modules}

    def open(self, dtype: str) -> None:
        """Make room to put batches of a model of this precision aside: before a step is traced, once."""
        if self._aside or not self._watched():
            return
        for name in {n for watched in self._watched() for n in _NEEDS[watched]} | _BATCH:
            kind = tf.bool if name in ("counted", "batch.counted") else dtype
            kind = {"float32": "complex64", "float64": "complex128"}[dtype] if name == "patches" else kind
            rank = 2 if name in ("illumination", "batch.counted") else 4
            nothing = tf.zeros([0] * rank, kind)
            self._aside[name] = tf.Variable(nothing, shape=[None] * rank, trainable=False)

    def reset(self) -> None:
        """Begin a pass."""
        self._sums.assign(tf.zeros_like(self._sums))

    def see(self, seen: Seen) -> None:
        """Put a batch aside, where there is room; runs in the graph, outside the tape."""
        if not self._aside:
            return
        shown: dict[str, Tensor] = {}
        for name in self._watched():
            self._try(name, lambda name=name: shown.update({n: getattr(seen, n) for n in _NEEDS[name]}))  # type: ignore[misc]
        shown |= {name: seen.batch[name.removeprefix("batch.")] for name in _BATCH}
        for name, value in shown.items():
            self._aside[name].assign(value)

    def look(self) -> None:
        """Add the batch that was put aside last; runs in Python, after the step."""
        some = tuple(self._watched()) if self._aside else ()
        if not some:
            return
        try:
            row = self._look(some)
        except Exception:  # one of them fails; which one shows when each is alone
            rows = [self._try(name, lambda name=name: self._look((name,))) for name in some]  # type: ignore[misc]
            failed = {name for name, found in zip(some, rows, strict=True) if found is None}
            lost = [math.nan if name in failed else 0.0 for name, _ in self._slots]
            row = tf.add_n([tf.constant(lost, tf.float64), *(found for found in rows if found is not None)])
        self._sums.assign_add(row)

    def _watched(self) -> list[str]:
        return [m.name for m in self._modules if m.name in _BATCH_SUMS and m.name not in self._off]

    def _look(self, some: tuple[str, ...]) -> Tensor:
        """The sums of some diagnostics in the order of the slots; each choice is traced once."""
        if some not in self._looks:
            self._looks[some] = tf.function(lambda: self._sums_of(some), autograph=False)
        return self._looks[some]()

    def _sums_of(self, some: tuple[str, ...]) -> Tensor:
        values = {name: tf.convert_to_tensor(kept) for name, kept in self._aside.items()}
        batch = {name.removeprefix("batch."): values.pop(name) for name in _BATCH}
        shown = SimpleNamespace(batch=batch, **values)
        return self._row({name: _BATCH_SUMS[name](shown) for name in some})

    def see_gradient(self, gradients: Sequence[Tensor]) -> None:
        """Add the gradient's norm before clipping; in the graph, where a sum cannot fail, once a step."""
        if "gradient_norm" in self.names:
            self._sums.assign_add(self._row({"gradient_norm": (tf.linalg.global_norm(gradients), 1)}))

    def see_probe(self, now: NDArray[Any], start: NDArray[Any]) -> None:
        """Take the probe's change since the start; at the end of a pass."""
        if "probe_drift" in self.names:
            change = np.sum(np.abs(now - start) ** 2), np.sum(np.abs(start) ** 2)
            self._sums.assign_add(self._row({"probe_drift": change}))

    def _row(self, found: Mapping[str, Sequence[Any]]) -> Tensor:
        """These sums in the order of the slots, and zero for all others."""
        by_slot = {
            (name, key): tf.cast(value, tf.float64)
            for name, values in found.items()
            for key, value in zip(SUMS[name], values, strict=True)
        }
        nothing = tf.zeros((), tf.float64)
        return tf.stack([by_slot.get(slot, nothing) for slot in self._slots])

    def _try(self, name: str, run: Callable[[], Any]) -> Any:
        """What a part of a diagnostic gives; None where it fails, which switches it off."""
        try:
            return run()
        except Exception as error:  # a diagnostic must not stop a run, whatever goes wrong in it
            self._off.add(name)
            log.warning("diagnostic %s failed and is switched off: %s", name, _line(error))
            return None

    def finish(self) -> dict[str, float]:
        """The named values of the pass; NaN where nothing was seen or the diagnostic is off."""
        sums = (float(value) for value in self._sums.numpy())
        return finish(self._modules, dict(zip(self._slots, sums, strict=True)))


def _line(error: Exception) -> str:
    """What went wrong, in one line: TensorFlow's own word for it has many."""
    return " ".join(str(getattr(error, "message", error)).split())[:240]
