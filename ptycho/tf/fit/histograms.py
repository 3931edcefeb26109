"""Histograms of weights and gradients, for logs that can show them.

Twin of `ptycho_torch.fit.histograms`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ptycho.tracking import Recorder
from ptycho.tracking.histograms import EVERY, histogram_of


class Histograms(keras.callbacks.Callback):  # type: ignore[misc]
    """Every tenth epoch: `weights/NAME`, and `gradients/NAME` of the epoch's last batch, by neutral names.

    The gradient is computed anew at the end of the epoch, because the traced step keeps none.
    `last_batch(epoch)` gives that batch. Time: one step; memory as a step.
    """

    def __init__(self, recorder: Recorder, last_batch: Callable[[int], Any]) -> None:
        super().__init__()
        self._recorder, self._last_batch = recorder, last_batch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % EVERY:
            return
        model = self.model
        named = {name: _plain(variable) for name, variable in model.network.neutral.items()}
        named |= {"probe": _plain(model.probe), "log_scale": _plain(model.log_scale)}
        trained = {id(variable) for variable in model.steps.variables}
        moving = {name: variable for name, variable in named.items() if id(variable) in trained}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(moving.values()))
            loss = model.terms(self._last_batch(epoch))["loss"]
        gradients = tape.gradient(loss, list(moving.values()), unconnected_gradients="zero")
        found = {f"weights/{name}": histogram_of(variable.numpy()) for name, variable in named.items()}
        found |= {f"gradients/{n}": histogram_of(g.numpy()) for n, g in zip(moving, gradients, strict=True)}
        self._recorder.histograms(found, int(model.steps.iterations.numpy()) - 1)


def _plain(variable: Any) -> Any:
    """TensorFlow's variable, where Keras' is given."""
    return variable.value if isinstance(variable, keras.Variable) else variable
