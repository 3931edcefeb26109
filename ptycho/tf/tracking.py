"""Feeds the logs of a run from Keras: one row an epoch, from the history that both backends keep alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from ptycho.tf.callbacks import History
from ptycho.tracking import Recorder


class Tracking(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the recorder what the history took down; stands after it in the list of callbacks.

    Keras tells no callback of an exception: `closed_by_exception` around the fit does.
    """

    def __init__(self, recorder: Recorder, history: History) -> None:
        super().__init__()
        self.recorder, self._history = recorder, history
        self._begun = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not self._begun:
            self.recorder.begin(epoch, self._steps())
            self._begun = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.recorder.epoch(self._history.row, self._steps() - 1, epoch)

    def on_train_end(self, logs: Any = None) -> None:
        self.recorder.end("done")

    def _steps(self) -> int:
        return int(self.model.steps.iterations.numpy())


def recorder_of(callbacks: Sequence[Any]) -> Recorder | None:
    """The recorder of a run, None where it logs nothing."""
    return next((made.recorder for made in callbacks if isinstance(made, Tracking)), None)


@contextmanager
def closed_by_exception(callbacks: Sequence[Any]) -> Iterator[None]:
    """Ends the logs of a run that does not come to its end, and lets the exception pass."""
    try:
        yield
    except BaseException as error:
        recorder = recorder_of(callbacks)
        if recorder is not None:
            recorder.end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
