"""Observers of a run, told by hand: who is told what, in which order, and what each adds or writes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.io.resources import MEMORY, RATE
from ptycho.run import observers
from ptycho.run.job import Job
from ptycho.run.observers import Epoch, History, Observer, Observers
from ptycho.run.preparation import train_and_test


class Notes(Observer):
    """Remembers what it was told, in a list that several share."""

    def __init__(self, name: str, told: list, everywhere: bool = False) -> None:
        self.name, self.told, self.everywhere = name, told, everywhere

    def begin(self, epoch, steps):
        self.told.append((self.name, "begin", epoch, steps))

    def epoch(self, now):
        self.told.append((self.name, "epoch", now.number, dict(now.row)))
        now.row[self.name] = 1.0

    def end(self, outcome, epochs):
        self.told.append((self.name, "end", outcome, epochs))


def job_of(raw, folder=None, **changes) -> Job:
    given = {"nepochs": 2, "batch_size": 8, "output_dir": folder or Path(), **changes}
    config = TrainingConfig(model=ModelConfig(N=raw.N), **given)
    return Job.of(*train_and_test(raw, None, config), config, PyTorchExecutionConfig())


def test_observers_are_told_in_order_once_and_hear_what_others_add():
    told: list = []
    both = Observers([Notes("a", told), Notes("b", told)])
    for _ in range(2):
        both.begin(3, 12)
    both.epoch(Epoch(3, {"train_loss": 2.0}, 16))
    for outcome in ("failed", "done"):
        both.end(outcome, 4)
    assert told == [
        ("a", "begin", 3, 12), ("b", "begin", 3, 12),
        ("a", "epoch", 3, {"train_loss": 2.0}), ("b", "epoch", 3, {"train_loss": 2.0, "a": 1.0}),
        ("a", "end", "failed", 4), ("b", "end", "failed", 4),
    ]  # fmt: skip


def test_only_rank_zero_is_told_but_of_what_every_process_keeps():
    told: list = []
    both = Observers([Notes("one", told), Notes("every", told, everywhere=True)])
    both.begin(0, 0, leads=False)
    both.epoch(Epoch(0, {}, 1), leads=False)
    both.end("done", 1, leads=False)
    assert [name for name, *_ in told] == ["every"] * 3
    assert History.everywhere and observers.Throughput.everywhere
    assert not any(c.everywhere for c in (observers.TextLog, observers.Tracking, observers.Coverage))


@pytest.mark.parametrize(
    "error, outcome", [(KeyboardInterrupt(), "interrupted"), (OSError("disk"), "failed")]
)
def test_an_exception_is_told_as_the_end_and_passes(error, outcome):
    told: list = []
    one = Observers([Notes("a", told)])
    with pytest.raises(type(error)), one.ended_by_exception(lambda: 7):
        raise error
    assert told == [("a", "end", outcome, 7)]


def test_the_history_keeps_entries_at_their_epochs_and_survives_a_checkpoint():
    history = History()
    for number, row in enumerate(({"epoch": 0.0, "a": 1.0}, {"epoch": 1.0}, {"epoch": 2.0, "a": 3.0})):
        history.epoch(Epoch(number, row, number))
    again = History()
    again.restore(history.knowledge())
    history.epoch(Epoch(3, {"epoch": 3.0}, 3))
    assert again.epochs["epoch"] == [0.0, 1.0, 2.0] and again.length == 3 and history.length == 4
    assert again.epochs["a"][::2] == [1.0, 3.0] and math.isnan(again.epochs["a"][1])


def test_the_rate_is_patterns_over_the_time_until_the_last_was_counted(monkeypatch):
    now = iter([10.0, 12.0, 15.0])
    monkeypatch.setattr(observers.time, "perf_counter", lambda: next(now))
    clock = observers.Throughput(lambda values: {**values, RATE: 3 * values[RATE]})
    clock.start()
    clock.count(40)
    clock.count(60)
    epoch = Epoch(0, {}, 2)
    clock.epoch(epoch)
    assert epoch.row[RATE] == 3 * 100 / 5 and epoch.row[MEMORY] > 0


def test_coverage_is_written_when_the_run_is_done_and_not_before(make_scan, tmp_path):
    job = job_of(make_scan(), tmp_path)
    for outcome in ("failed", "interrupted", "done"):
        assert not list(tmp_path.iterdir())
        observers.Coverage(tmp_path, job.plan, job.train).end(outcome, 2)
    with np.load(tmp_path / "coverage.npz") as stored:
        counts = stored["counts"]
    assert sorted(set(counts)) == [0, 2] and (counts == 2).sum() == job.plan.n_groups


def test_a_time_limit_stops_after_it_has_passed(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(observers.time, "monotonic", lambda: now[0])
    limit = observers.TimeLimit(5.0)
    stopped = []
    for moment in (104.0, 105.0, 105.1):
        now[0] = moment
        epoch = Epoch(0, {}, 1)
        limit.epoch(epoch)
        stopped.append(epoch.stop)
    assert stopped == [False, False, True]


def test_the_alarm_hears_the_diagnostics_of_training_alone(make_scan, caplog):
    job = job_of(make_scan())
    flat = {"object_spread_mean": 0.0}
    with caplog.at_level("WARNING", logger="ptycho"):
        for prefix in ("val/diagnostics/", "diagnostics/"):
            assert "the network is dead" not in caplog.text
            alarm = observers.Alarm(job)
            for number in range(20):
                alarm.epoch(Epoch(number, {f"{prefix}{name}": value for name, value in flat.items()}, 1))
    assert caplog.text.count("the network is dead") == 1


def test_a_report_shows_what_stands_beside_the_bar():
    told = []
    row = {"train_loss": 1.0, "val_loss": 2.0, "learning_rate": 0.1}
    observers.Report(lambda *said: told.append(said), 9).epoch(Epoch(4, row, 1))
    assert told == [(5, 9, {"train_loss": 1.0, "val_loss": 2.0})]


def test_the_order_history_then_what_does_not_repeat_then_the_logs(make_scan, tmp_path):
    job = job_of(make_scan(), tmp_path, max_time_s=1.0)
    told: list = []
    throughput = observers.Throughput()
    made = observers.observers_of(job, History(), None, Notes("panels", told), throughput)
    names = [type(one).__name__ for one in made]
    assert names == ["Alarm", "History", "Notes", "Throughput", "Coverage", "TextLog", "TimeLimit"]
    nowhere = observers.observers_of(job_of(make_scan()), History(), None, None, None)
    assert [type(one).__name__ for one in nowhere] == ["Alarm", "History"]
