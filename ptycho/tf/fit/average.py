"""The moving average of the weights. The average is validated and saved; the optimiser moves the weights.

Twin of `ptycho_torch.fit.average`.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from ptycho.tf.fit.stateful import Stateful
from ptycho.tf.optimizers import Optimizer

SLOT = "average"


class ExponentialAverage(Stateful):
    """After n updates the average forgets by min(decay, (1 + n) / (10 + n)); the first update copies.

    The average is a slot of the optimiser, and so is in the checkpoints. While it is validated or written,
    average and weights change places: the model in a checkpoint has the average, and the slot has the
    optimiser's weights, which a resume needs. Stands before the checkpoints, and `restored` after them.
    Memory: one number a weight.
    """

    name = "average"

    def __init__(self, decay: float, steps: Optimizer) -> None:
        super().__init__()
        self._decay, self._steps = decay, steps
        self._averages = steps.add_slot(SLOT)
        self._seen = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._swapped = False
        self._move = tf.function(self._update, autograph=False)
        self.restored = _Restored(self)

    def on_train_begin(self, logs: Any = None) -> None:
        if self._swapped:  # the checkpoint of a resume has the average in the model
            self.swap()
        self._seen.assign(self._steps.iterations)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._move()

    def _update(self) -> None:
        steps = tf.convert_to_tensor(self._steps.iterations)
        n = tf.cast(steps - 1, tf.float64)
        decay = tf.where(steps > 1, tf.minimum(tf.cast(self._decay, tf.float64), (1 + n) / (10 + n)), 0.0)
        # batches that only accumulate move nothing
        forget = tf.where(steps > self._seen, 1 - decay, 0.0)
        for kept, now in zip(self._averages, self._steps.variables, strict=True):
            kept.assign_add(tf.cast(forget, kept.dtype) * (now - kept))
        self._seen.assign(steps)

    def swap(self) -> None:
        """Exchange the average and the optimiser's weights."""
        for kept, variable in zip(self._averages, self._steps.variables, strict=True):
            now = tf.identity(variable)
            variable.assign(kept)
            kept.assign(now)
        self._swapped = not self._swapped

    def on_test_begin(self, logs: Any = None) -> None:
        self.swap()

    def on_test_end(self, logs: Any = None) -> None:
        self.swap()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.swap()

    def on_train_end(self, logs: Any = None) -> None:
        if not self._swapped:
            self.swap()

    def knowledge(self) -> dict[str, Any]:
        return {"swapped": self._swapped}

    def restore(self, known: dict[str, Any]) -> None:
        self._swapped = known["swapped"]


class _Restored(keras.callbacks.Callback):  # type: ignore[misc]
    """Gives the optimiser its weights back after the checkpoints of an epoch."""

    def __init__(self, average: ExponentialAverage) -> None:
        super().__init__()
        self._average = average

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._average.swap()
