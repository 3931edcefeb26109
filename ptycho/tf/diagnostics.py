"""The running sums of the diagnostics in TensorFlow, in a graph of their own.

A graph in which something fails is lost as a whole, so the traced step only puts aside what is to be looked
at; after it a graph of its own adds to the sums, and its failure is caught. No number is read between steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.forward.diagnostics import BATCH_SUMS, NEEDS, Switches
from ptycho.forward.seen import Seen
from ptycho.objectives.diagnostics import SUMS, finish
from ptycho.objectives.manifest import Module

Tensor = Any

_BATCH = {"batch.x", "batch.counted"}


class Watch(Switches):
    """The running sums of one pass over the data: `see` in the step of every batch, `look` after it, `finish`
    at the end.

    Memory: what the diagnostics need of one batch, see `NEEDS`.
    """

    def __init__(self, modules: tuple[Module, ...]) -> None:
        super().__init__(modules)
        self._sums = tf.Variable(tf.zeros(len(self._slots), tf.float64), trainable=False)
        #: what the last batch put aside, by name
        self._aside: dict[str, Any] = {}
        self._looks: dict[tuple[str, ...], Any] = {}

    def open(self, dtype: str) -> None:
        """Make room to put batches of a model of this precision aside: before a step is traced, once."""
        if self._aside or not self.of_batch():
            return
        for name in {n for watched in self.of_batch() for n in NEEDS[watched]} | _BATCH:
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
        for name in self.of_batch():
            self.attempt(name, lambda name=name: shown.update({n: getattr(seen, n) for n in NEEDS[name]}))  # type: ignore[misc]
        shown |= {name: seen.batch[name.removeprefix("batch.")] for name in _BATCH}
        for name, value in shown.items():
            self._aside[name].assign(value)

    def look(self) -> None:
        """Add the batch that was put aside last; runs in Python, after the step."""
        some = tuple(self.of_batch()) if self._aside else ()
        if not some:
            return
        try:
            row = self._look(some)
        except Exception:  # one of them fails; which one shows when each is alone
            rows = [self.attempt(name, lambda name=name: self._look((name,))) for name in some]  # type: ignore[misc]
            failed = {name for name, found in zip(some, rows, strict=True) if found is None}
            lost = [math.nan if name in failed else 0.0 for name, _ in self._slots]
            row = tf.add_n([tf.constant(lost, tf.float64), *(found for found in rows if found is not None)])
        self._sums.assign_add(row)

    def _look(self, some: tuple[str, ...]) -> Tensor:
        """The sums of some diagnostics in the order of the slots; each choice is traced once."""
        if some not in self._looks:
            self._looks[some] = tf.function(lambda: self._sums_of(some), autograph=False)
        return self._looks[some]()

    def _sums_of(self, some: tuple[str, ...]) -> Tensor:
        values = {name: tf.convert_to_tensor(kept) for name, kept in self._aside.items()}
        batch = {name.removeprefix("batch."): values.pop(name) for name in _BATCH}
        shown = SimpleNamespace(batch=batch, **values)
        return self._row({name: BATCH_SUMS[name](shown) for name in some})

    def see_gradient(self, gradients: Sequence[Tensor]) -> None:
        """Add the gradient's norm before clipping; in the graph, where a sum cannot fail, once a step."""
        if "gradient_norm" in self.names:
            self._sums.assign_add(self._row({"gradient_norm": (tf.linalg.global_norm(gradients), 1)}))

    def see_probe(self, now: NDArray[Any], start: NDArray[Any]) -> None:
        """Take the probe's change since the start; at the end of a pass."""
        if "probe_drift" in self.names:
            change = np.sum(np.abs(now - start) ** 2), np.sum(np.abs(start) ** 2)
            self._sums.assign_add(self._row({"probe_drift": change}))

    def _row(self, sums: Mapping[str, Sequence[Any]]) -> Tensor:
        """These sums in the order of the slots, and zero for all others."""
        by_slot = {
            (name, key): tf.cast(value, tf.float64)
            for name, values in sums.items()
            for key, value in zip(SUMS[name], values, strict=True)
        }
        nothing = tf.zeros((), tf.float64)
        return tf.stack([by_slot.get(slot, nothing) for slot in self._slots])

    def finish(self) -> dict[str, float]:
        """The named values of the pass; NaN where nothing was seen or the diagnostic is off."""
        sums = (float(value) for value in self._sums.numpy())
        return finish(self._modules, dict(zip(self._slots, sums, strict=True)))
