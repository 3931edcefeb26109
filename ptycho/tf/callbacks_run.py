"""What a run tells of itself beside its metrics: text log, sampler coverage, speed and memory.

Twins of `ptycho_torch.callbacks.training_log`, `.coverage` and `.throughput`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from ptycho.io.resources import MEMORY, RATE, peak_memory_gib
from ptycho.run.coverage import position_counts, write_coverage
from ptycho.run.preparation import Grouped, TrainingPlan
from ptycho.run.training_log import TrainingLog
from ptycho.tf.callbacks import History

log = logging.getLogger(__name__)


class TextLog(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells `training.log` what the history took down; stands after it."""

    def __init__(self, text: TrainingLog, history: History) -> None:
        super().__init__()
        self.text, self._history = text, history
        self._begun = False

    @property
    def epochs(self) -> int:
        """Whole epochs of the run so far."""
        return len(self._history.epochs.get("epoch", ()))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not self._begun:
            self.text.begin(epoch)
            self._begun = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.text.epoch(self._history.row, epoch)

    def on_train_end(self, logs: Any = None) -> None:
        self.text.end("done", self.epochs)


@contextmanager
def text_closed_by_exception(callbacks: Sequence[Any]) -> Iterator[None]:
    """Ends the text log of a run that does not come to its end, and lets the exception pass."""
    try:
        yield
    except BaseException as error:
        for made in callbacks:
            if isinstance(made, TextLog):
                made.text.end(
                    "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", made.epochs
                )
        raise


class SamplerCoverage(keras.callbacks.Callback):  # type: ignore[misc]
    """`coverage.npz` and its figure, when the run ends; stands before the logs, which then close."""

    def __init__(self, directory: Path, plan: TrainingPlan, scans: Grouped, history: History) -> None:
        super().__init__()
        self._directory, self._plan, self._scans, self._history = directory, plan, scans, history

    def on_train_end(self, logs: Any = None) -> None:
        epochs = len(self._history.epochs.get("epoch", ()))
        counts = position_counts(self._plan, self._scans, epochs)
        least, most = write_coverage(self._directory, self._scans, counts, epochs=epochs)
        log.info("every position that trains was used %d to %d times in %d epochs", least, most, epochs)


class Throughput(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds patterns per second of training (validation not counted) and peak memory (GiB) to the row of the
    epoch; stands between history and logs. The first epoch holds the time of tracing."""

    def __init__(self, patterns: int, history: History) -> None:
        super().__init__()
        self._patterns, self._history = patterns, history
        self._begun = self._ended = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begun, self._ended = time.perf_counter(), 0.0

    def on_test_begin(self, logs: Any = None) -> None:
        self._ended = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = max((self._ended or time.perf_counter()) - self._begun, 1e-9)
        self._history.row[RATE] = self._patterns / seconds
        self._history.row[MEMORY] = peak_memory_gib()
