"""A run in stages: an optimiser that knows which parts move at a step, and how fast. It leaves other parts
alone.

Which stage a step belongs to follows from the number of optimiser steps alone, inside the graph, so that a
stage may end within an epoch and a resume inside any stage is exact. `ptycho_torch.fit.stages` is the twin.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.config.settings import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.networks.parts import PARTS, part_of
from ptycho.objectives.stages import Span, Stage, span_at
from ptycho.run.schedules import part_rate
from ptycho.tf.layers import GraphNetwork
from ptycho.tf.optimizers import Optimizer, clip_by_norm, clip_by_value

log = logging.getLogger(__name__)

Tensor = Any


def parts_of(model: Any) -> list[str]:
    """The part of every variable that the run trains, in the order of `model.trained()`.

    Raises ConfigError for a network whose parts are not known.
    """
    if not isinstance(model.network, GraphNetwork):
        raise ConfigError(
            "stages need a network whose parts are known: one of the graphs of ptycho.networks.graphs"
        )
    graph = model.network.graph
    names = {id(variable): part_of(name, graph) for name, variable in model.network.neutral.items()}
    names |= {id(model.probe): "probe", id(model.log_scale): "scale"}
    return [names[id(variable)] for variable in model.trained()]


class StagedOptimizer(Optimizer):
    """The optimiser of a run with stages: every part has its rate, its count of steps, and stands still with
    its moments where a stage leaves it out."""

    def __init__(
        self,
        variables: Sequence[Any],
        parts: Sequence[str],
        spans: tuple[Span, ...],
        config: TrainingConfig,
        learning_rate: float,
        *,
        accumulate: int = 1,
        batches_per_epoch: int = 1,
    ) -> None:
        super().__init__(
            variables, config, learning_rate, accumulate=accumulate, batches_per_epoch=batches_per_epoch
        )
        self.spans = spans
        self._names = tuple(dict.fromkeys(parts))
        self._group = [self._names.index(part) for part in parts]
        self._counts = tf.Variable(np.zeros(len(self._names), np.int64), trainable=False)
        empty = np.zeros((0, len(self._names)))
        self._table = tf.Variable(empty, shape=[None, len(self._names)], dtype=tf.float64, trainable=False)
        self._moving = list(range(len(self.variables)))

    def chosen(self, stage: Stage) -> list[int]:
        """Which variables a stage moves."""
        return [i for i, group in enumerate(self._group) if stage.trains(self._names[group])]

    def rates(self, step: int) -> list[float]:
        """The learning rate of every part at an optimiser step, zero where it stands still."""
        span = span_at(self.spans, step)
        return [
            part_rate(span, part, step, self.base_rate, self.config, self.steps_per_epoch)
            for part in self._names
        ]

    def begin_epoch(self, factor: Callable[[int], float] | None) -> None:
        """Start counting batches anew; the stages have courses of their own, whatever `factor`."""
        super().begin_epoch(None)
        first = int(self.iterations.numpy())
        table = np.array([self.rates(first + i) for i in range(self.steps_per_epoch + 1)])
        self._first.assign(first)
        self._table.assign(table)
        self.learning_rate.assign(table[0].max())
        log.info("stage %r at step %d", span_at(self.spans, first).stage.name, first)

    def named_rates(self) -> dict[str, float]:
        """As torch's groups: in the order of `PARTS`, and none where one part alone trains."""
        rates = dict(zip(self._names, self.rates(int(self.iterations.numpy())), strict=True))
        return {part: rates[part] for part in PARTS if part in rates} if len(rates) > 1 else {}

    def state(self) -> dict[str, NDArray[Any]]:
        return {**super().state(), "counts": self._counts.numpy()}

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        super().load_state(state)
        self._counts.assign(state["counts"])

    # ---------------------------------------------------------------------------- inside the traced step

    def in_stage(self, step: Callable[[Stage], Any]) -> None:
        """Run `step` for the stage that the next optimiser step belongs to."""
        _switch(self.spans, self.iterations, step)

    def after_stage(self, step: Callable[[Stage], Any]) -> None:
        """Run `step` for the stage that the last optimiser step belonged to."""
        _switch(self.spans, self.iterations - 1, step)

    def take_some(self, gradients: Sequence[Tensor], chosen: list[int]) -> None:
        """As `take`, of the chosen variables only."""
        self._moving = chosen
        if self.accumulate == 1:
            self._step(gradients)
            return
        for i, gradient in zip(chosen, gradients, strict=True):
            self._sums[i].assign_add(gradient / self.accumulate)
        batches = self._batches.assign_add(1)
        due = tf.logical_or(batches % self.accumulate == 0, batches == self.batches_per_epoch)
        tf.cond(due, self._step_with_sums, lambda: tf.constant(False))

    def _step_with_sums(self) -> Tensor:
        sums = [self._sums[i] for i in self._moving]
        self._step([tf.convert_to_tensor(total) for total in sums])
        for total in sums:
            total.assign(tf.zeros_like(total))
        return tf.constant(True)

    def _step(self, gradients: Sequence[Tensor]) -> None:
        self.before_step(gradients)
        clip = clip_by_norm if self.config.gradient_clip_algorithm == "norm" else clip_by_value
        if self.config.gradient_clip_val:
            gradients = clip(gradients, self.config.gradient_clip_val)
        row = self._table[self.iterations - self._first]
        groups = {self._group[i] for i in self._moving}
        counts = self._counts.assign_add([int(g in groups) for g in range(len(self._names))])
        update = self._sgd if self.config.optimizer == "sgd" else self._adam
        for i, gradient in zip(self._moving, gradients, strict=True):
            slots = {name: values[i] for name, values in self._slots.items()}
            group = self._group[i]
            update(self.variables[i], gradient, slots, tf.cast(counts[group], tf.float64), row[group])
        following = self.iterations.assign_add(1) - self._first
        self.learning_rate.assign(tf.reduce_max(self._table[following]))


def _switch(spans: tuple[Span, ...], step: Tensor, run: Callable[[Stage], Any]) -> None:
    """Call `run` for the stage of a step; every stage's graph is made once."""

    def branch(stage: Stage) -> Tensor:
        run(stage)
        return tf.constant(True)

    if len(spans) == 1:
        run(spans[0].stage)
        return
    ends = tf.constant([span.first + span.length for span in spans[:-1]], tf.int64)
    index = tf.reduce_sum(tf.cast(tf.convert_to_tensor(step) >= ends, tf.int32))
    tf.switch_case(index, [partial(branch, span.stage) for span in spans])
