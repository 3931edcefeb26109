"""Torch's optimisers, formula for formula, so that both backends take the same steps.

Keras' own differ: their epsilon stands inside the bias correction, their SGD multiplies the momentum by the
rate. Everything here runs inside the traced step; only the learning rate's course is set from outside, once
an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.config.settings import TrainingConfig
from ptycho.errors import ConfigError

Tensor = Any
#: one variable's slots by name
Slots = dict[str, Any]

BETAS = (0.9, 0.99)
EPSILON = 1e-8
_SLOTS = {"adam": ("mean", "square"), "adamw": ("mean", "square"), "sgd": ("velocity",)}


def clip_by_norm(gradients: Sequence[Tensor], largest: float) -> list[Tensor]:
    """All gradients times min(1, largest / (norm of all + 1e-6)): torch's `clip_grad_norm_`."""
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))
    factor = tf.minimum(largest / (norm + 1e-6), tf.ones_like(norm))
    return [g * factor for g in gradients]


def clip_by_value(gradients: Sequence[Tensor], largest: float) -> list[Tensor]:
    """Every entry between -largest and largest."""
    return [tf.clip_by_value(g, -largest, largest) for g in gradients]


class Optimizer:
    """Adam, AdamW or SGD over a fixed list of variables, with clipping and accumulation.

    `take` adds one batch's gradients and steps when `accumulate` batches, or the epoch's last, are in
    (Lightning's rule: each batch's gradient counts 1 / accumulate). Sources: Kingma and Ba, arXiv 1412.6980;
    Loshchilov and Hutter, arXiv 1711.05101; momentum as in torch. Memory: two slots a weight for Adam, one
    for SGD, one more when accumulating.
    """

    def __init__(
        self,
        variables: Sequence[Any],
        config: TrainingConfig,
        learning_rate: float,
        *,
        accumulate: int = 1,
        batches_per_epoch: int = 1,
    ) -> None:
        if config.optimizer not in _SLOTS:
            raise ConfigError(f"optimizer = {config.optimizer!r}: one of {', '.join(_SLOTS)}")
        #: TensorFlow's variables, where Keras' are given
        self.variables = [v.value if isinstance(v, keras.Variable) else v for v in variables]
        self.config = config
        self.base_rate = learning_rate
        self.accumulate, self.batches_per_epoch = accumulate, batches_per_epoch
        self.learning_rate = _number(learning_rate, tf.float64)
        self.iterations = _number(0, tf.int64)
        self._slots = {name: [_zeros_like(v) for v in self.variables] for name in _SLOTS[config.optimizer]}
        self._sums = [_zeros_like(v) for v in self.variables] if accumulate > 1 else []
        self._batches = _number(0, tf.int64)
        self._first = _number(0, tf.int64)
        self._rates = tf.Variable(np.zeros(0), shape=[None], dtype=tf.float64, trainable=False)
        #: called in the graph with the gradients of every optimiser step, before they are clipped
        self.before_step: Callable[[Sequence[Tensor]], None] = lambda gradients: None

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch."""
        return math.ceil(self.batches_per_epoch / self.accumulate)

    def add_slot(self, name: str) -> list[Any]:
        """One more variable for each weight, a copy of it; it goes into the state and back."""
        self._slots[name] = [tf.Variable(v, trainable=False) for v in self.variables]
        return self._slots[name]

    # ------------------------------------------------------------------------- between epochs, in Python

    def begin_epoch(self, factor: Callable[[int], float] | None) -> None:
        """Start counting batches anew; `factor(step)` is the course of the learning rate, None: as it is."""
        self._batches.assign(0)
        if factor is None:
            self._rates.assign(np.zeros(0))
            return
        first = int(self.iterations.numpy())
        steps = range(first, first + self.steps_per_epoch + 1)
        rates = np.array([self.base_rate * factor(step) for step in steps])
        self._first.assign(first)
        self._rates.assign(rates)
        self.learning_rate.assign(rates[0])

    def named_rates(self) -> dict[str, float]:
        """The learning rate of the next step by part, where parts have rates of their own."""
        return {}

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything a resume needs, by name."""
        slots = self._slots.items()
        made = {f"{slot}.{i}": v.numpy() for slot, values in slots for i, v in enumerate(values)}
        return {**made, "iterations": self.iterations.numpy(), "learning_rate": self.learning_rate.numpy()}

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Put a state back; names and shapes must be this optimiser's."""
        own = self.state()
        if {name: value.shape for name, value in own.items()} != {
            name: value.shape for name, value in state.items()
        }:
            raise ConfigError(f"the optimiser's state is not one of {self.config.optimizer!r} for this model")
        for slot, values in self._slots.items():
            for i, variable in enumerate(values):
                variable.assign(state[f"{slot}.{i}"])
        self.iterations.assign(state["iterations"])
        self.learning_rate.assign(state["learning_rate"])

    # ---------------------------------------------------------------------------- inside the traced step

    def take(self, gradients: Sequence[Tensor]) -> None:
        """Add one batch's gradients, in the order of the variables, and step when it is time."""
        if self.accumulate == 1:
            self._step(gradients)
            return
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient / self.accumulate)
        batches = self._batches.assign_add(1)
        due = tf.logical_or(batches % self.accumulate == 0, batches == self.batches_per_epoch)
        tf.cond(due, self._step_with_sums, lambda: tf.constant(False))

    def _step_with_sums(self) -> Tensor:
        self._step([tf.convert_to_tensor(total) for total in self._sums])
        for total in self._sums:
            total.assign(tf.zeros_like(total))
        return tf.constant(True)

    def _step(self, gradients: Sequence[Tensor]) -> None:
        self.before_step(gradients)
        clip = clip_by_norm if self.config.gradient_clip_algorithm == "norm" else clip_by_value
        if self.config.gradient_clip_val:
            gradients = clip(gradients, self.config.gradient_clip_val)
        step = tf.cast(self.iterations.assign_add(1), tf.float64)
        rate = tf.convert_to_tensor(self.learning_rate)
        update = self._sgd if self.config.optimizer == "sgd" else self._adam
        for i, (variable, gradient) in enumerate(zip(self.variables, gradients, strict=True)):
            update(variable, gradient, {name: values[i] for name, values in self._slots.items()}, step, rate)
        count = tf.size(self._rates, tf.int64)
        # both sides of the choice are computed, so the index must be a valid one even where it is not used
        place = tf.clip_by_value(self.iterations - self._first, 0, tf.maximum(count - 1, 0))
        padded = tf.concat([self._rates, rate[None]], 0)
        self.learning_rate.assign(tf.where(count > 0, padded[place], rate))

    def _adam(self, variable: Any, gradient: Tensor, slots: Slots, step: Tensor, rate: Tensor) -> None:
        decay, dtype = self.config.weight_decay, gradient.dtype
        if decay and self.config.optimizer == "adamw":
            variable.assign_sub(tf.cast(rate * decay, dtype) * variable)
        elif decay:
            gradient = gradient + decay * variable
        root = tf.sqrt(1 - BETAS[1] ** step)
        # TensorFlow's own step has its epsilon inside the bias correction; times the correction it is outside
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=slots["mean"].handle,
            v=slots["square"].handle,
            beta1_power=tf.zeros([], dtype),
            beta2_power=tf.zeros([], dtype),
            lr=tf.cast(rate * root / (1 - BETAS[0] ** step), dtype),
            beta1=tf.constant(BETAS[0], dtype),
            beta2=tf.constant(BETAS[1], dtype),
            epsilon=tf.cast(EPSILON * root, dtype),
            grad=gradient,
        )

    def _sgd(self, variable: Any, gradient: Tensor, slots: Slots, step: Tensor, rate: Tensor) -> None:
        dtype = gradient.dtype
        if self.config.weight_decay:
            gradient = gradient + self.config.weight_decay * variable
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=slots["velocity"].handle,
            lr=tf.cast(rate, dtype),
            grad=gradient,
            momentum=tf.constant(self.config.momentum, dtype),
        )


def _number(value: float, dtype: Any) -> Any:
    return tf.Variable(value, dtype=dtype, trainable=False)


def _zeros_like(variable: Any) -> Any:
    return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False)
