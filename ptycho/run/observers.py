"""What happens between the epochs of a run, the same for both backends.

An observer is told when a run begins, the metrics of every epoch, and how the run ends. It touches no
tensor: each backend has one adapter that tells a list of them, in order, from its trainer's own hooks. An
observer may add numbers to the row of the epoch, for those after it. To add one: write it here, and name it
in `observers_of`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ptycho.io.resources import MEMORY, RATE, peak_memory_gib
from ptycho.objectives.diagnostics import CollapseAlarm
from ptycho.objectives.manifest import resolve
from ptycho.run.coverage import position_counts, write_coverage
from ptycho.run.history import append_row
from ptycho.run.image_quality import shown
from ptycho.run.job import History as Lists
from ptycho.run.job import Job, Progress
from ptycho.run.preparation import Grouped, TrainingPlan
from ptycho.run.training_log import TrainingLog
from ptycho.scan.scan_set import ScanSet
from ptycho.tracking import Recorder

log = logging.getLogger(__name__)
Row = dict[str, float]


@dataclass
class Epoch:
    """An epoch that is over: its number from zero, its metrics by name, and the optimiser steps so far.

    An observer that wants the run to end here sets `stop`.
    """

    number: int
    row: Row
    steps: int
    stop: bool = False


class Observer:
    """Does nothing; observers override what they need.

    `everywhere`: told in every process of a run on several devices, not in that of rank zero alone.
    """

    everywhere = False

    def begin(self, epoch: int, steps: int) -> None:
        """The run begins at this epoch, after so many steps; zero unless it goes on."""

    def epoch(self, now: Epoch) -> None:
        """An epoch is over."""

    def end(self, outcome: str, epochs: int) -> None:
        """The run is 'done', 'failed' or 'interrupted', after so many epochs in all."""


class Observers:
    """Several observers as one, in order; the run's adapter tells this one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._all = tuple(observers)
        self._begun = self._ended = False

    def begin(self, epoch: int, steps: int, *, leads: bool = True) -> None:
        """Once; `leads`: this is the process of rank zero."""
        if not self._begun:
            self._begun = True
            for one in self._told(leads):
                one.begin(epoch, steps)

    def epoch(self, now: Epoch, *, leads: bool = True) -> None:
        """After every epoch."""
        for one in self._told(leads):
            one.epoch(now)

    def end(self, outcome: str, epochs: int, *, leads: bool = True) -> None:
        """Once; also for a run that had nothing left to do and never began."""
        if not self._ended:
            self._ended = True
            for one in self._told(leads):
                one.end(outcome, epochs)

    @contextmanager
    def ended_by_exception(self, epochs: Callable[[], int]) -> Iterator[None]:
        """Tells the end of a run that an exception breaks off, and lets the exception pass."""
        try:
            yield
        except BaseException as error:
            self.end(outcome_of(error), epochs())
            raise

    def _told(self, leads: bool) -> Iterator[Observer]:
        return (one for one in self._all if leads or one.everywhere)


def outcome_of(error: BaseException) -> str:
    """How a run ended that an exception broke off."""
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


class History(Observer):
    """Every epoch's metrics as lists by name; a checkpoint keeps them. `row` is that of the last epoch."""

    everywhere = True

    def __init__(self) -> None:
        self.epochs: Lists = {}
        self.row: Row = {}

    @property
    def length(self) -> int:
        """Whole epochs of the run so far."""
        return len(self.epochs.get("epoch", ()))

    def epoch(self, now: Epoch) -> None:
        """Take down the row."""
        self.row = now.row
        append_row(self.epochs, now.row)

    def knowledge(self) -> dict[str, Lists]:
        """What a checkpoint keeps."""
        return {"epochs": self.epochs}

    def restore(self, known: Mapping[str, Lists]) -> None:
        """Take back what a checkpoint kept."""
        self.epochs = {name: list(values) for name, values in known["epochs"].items()}


class Alarm(Observer):
    """Warns of a network that is dead, see `ptycho.objectives.diagnostics.CollapseAlarm`."""

    def __init__(self, job: Job) -> None:
        dimmest = min(one.nphotons for one in ScanSet.of(job.train).containers)
        self._alarm = CollapseAlarm(resolve(job.config).diagnostics, dimmest / job.config.model.N**2)

    def epoch(self, now: Epoch) -> None:
        """Listen to the diagnostics of training."""
        prefix = "diagnostics/"
        self._alarm.listen({n.removeprefix(prefix): v for n, v in now.row.items() if n.startswith(prefix)})


class Throughput(Observer):
    """Adds patterns per second of training (validation not counted) and peak memory (GiB) to the row.

    The adapter starts the clock and counts the patterns. `total`: of all processes, from those of one.
    """

    everywhere = True

    def __init__(self, total: Callable[[Row], Row] = lambda values: values) -> None:
        self._total = total
        self._patterns, self._begun, self._counted = 0, 0.0, 0.0

    def start(self) -> None:
        """Training of an epoch begins."""
        self._patterns, self._begun = 0, time.perf_counter()

    def count(self, patterns: int) -> None:
        """So many more patterns were trained on until now."""
        self._patterns, self._counted = self._patterns + patterns, time.perf_counter()

    def epoch(self, now: Epoch) -> None:
        """Add rate and memory."""
        seconds = max(self._counted - self._begun, 1e-9)
        now.row.update(self._total({RATE: self._patterns / seconds, MEMORY: peak_memory_gib()}))


class Coverage(Observer):
    """Writes how often each position was trained on, and its picture, when the run is done."""

    def __init__(self, directory: Path, plan: TrainingPlan, scans: Grouped) -> None:
        self._directory, self._plan, self._scans = directory, plan, scans

    def end(self, outcome: str, epochs: int) -> None:
        """Write, where the run is done."""
        if outcome != "done":
            return
        counts = position_counts(self._plan, self._scans, epochs)
        least, most = write_coverage(self._directory, self._scans, counts, epochs=epochs)
        log.info("every position that trains was used %d to %d times in %d epochs", least, most, epochs)


class TextLog(Observer):
    """Tells `training.log`."""

    def __init__(self, text: TrainingLog) -> None:
        self._text = text

    def begin(self, epoch: int, steps: int) -> None:
        """Open the log."""
        self._text.begin(epoch)

    def epoch(self, now: Epoch) -> None:
        """One line."""
        self._text.epoch(now.row, now.number)

    def end(self, outcome: str, epochs: int) -> None:
        """The last line."""
        self._text.end(outcome, epochs)


class Tracking(Observer):
    """Tells the metric logs."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def begin(self, epoch: int, steps: int) -> None:
        """Open every log."""
        self._recorder.begin(epoch, steps)

    def epoch(self, now: Epoch) -> None:
        """One row, at the step that ended the epoch."""
        self._recorder.epoch(now.row, now.steps - 1, now.number)

    def end(self, outcome: str, epochs: int) -> None:
        """Close every log."""
        self._recorder.end(outcome)


class TimeLimit(Observer):
    """Ends the run after so many seconds, at the end of an epoch."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def epoch(self, now: Epoch) -> None:
        """Stop where the time is over."""
        if time.monotonic() > self._end:
            now.stop = True
            log.info("time limit reached after %d epochs", now.number + 1)


class Report(Observer):
    """Tells the caller how far the run is, with chosen numbers. It stands last: if the caller raises,
    everything is written already."""

    def __init__(self, progress: Progress, epochs: int, chosen: Callable[[Row], Row] = shown) -> None:
        self._progress, self._epochs, self._chosen = progress, epochs, chosen

    def epoch(self, now: Epoch) -> None:
        """Call the caller."""
        self._progress(now.number + 1, self._epochs, self._chosen(now.row))


def observers_of(
    job: Job,
    history: History,
    recorder: Recorder | None,
    panels: Observer | None,
    throughput: Throughput | None,
) -> list[Observer]:
    """The observers of a run in their order; `Report` is told later, after the checkpoint of the epoch.

    Panels and throughput stand between history and logs. Their numbers are in the logs but not in the
    history, which must repeat to the bit. Coverage stands before the logs, which close when they are told
    of the end.
    """
    made: list[Observer] = [Alarm(job), history]
    made += [one for one in (panels, throughput) if one is not None]
    if job.directory is not None:
        made.append(Coverage(job.directory, job.plan, job.train))
        made.append(TextLog(TrainingLog.of(job.config, job.execution)))
    if recorder is not None:
        made.append(Tracking(recorder))
    if job.config.max_time_s:
        made.append(TimeLimit(job.config.max_time_s))
    return made
