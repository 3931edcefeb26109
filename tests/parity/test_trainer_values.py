"""The rules of a training run, one table for both trainers: what steps, what is kept, when it ends.

The runs are real, their losses are written here: see `scripted_runs`.
"""

from __future__ import annotations

import csv

import numpy as np
import pytest
from both_backends import settings
from scripted_runs import run_scripted

from ptycho.errors import RunError
from ptycho.run.preparation import ensure_container, plan_training
from ptycho.run.tuning import TuningStage


@pytest.fixture
def train(side, make_scan, monkeypatch):
    """Train a small scan with given losses by the count of steps; keywords as `run_scripted`."""

    def build(losses, n_positions=8, **changes):
        return run_scripted(side.name, monkeypatch, make_scan(n_positions=n_positions), losses, **changes)

    return build


@pytest.fixture
def plan_of(make_scan):
    """The plan of a scan of so many positions."""

    def build(n_positions, **rules):
        raw = make_scan(n_positions=n_positions)
        config = settings(raw, **rules)
        return plan_training(ensure_container(raw, config), None, config)

    return build


def test_a_plateau_lowers_the_rate_down_to_its_floor(train):
    left = train(
        [7.0] * 9, nepochs=9, scheduler="ReduceLROnPlateau", plateau_factor=0.5, plateau_patience=1,
        plateau_min_lr=0.2,
    )  # fmt: skip
    rates = [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2]
    np.testing.assert_allclose(left.history["learning_rate"], rates)
    assert left.scale == pytest.approx(sum(rates), rel=1e-6)


def test_patience_counts_the_epochs_that_are_no_better_and_the_best_weights_stay(train, tmp_path):
    left = train([9, 5, 4, 4, 4, 1, 1], nepochs=6, folder=tmp_path, execution={"early_stop_patience": 2})
    assert left.history["val_loss"] == [5, 4, 4, 4] and left.history["train_loss"] == [9, 5, 4, 4]
    assert left.scale == 2 and left.files == {"best-epoch=1": 2, "last": 4}


@pytest.mark.parametrize(
    "asked, best, files",
    [
        ({"checkpoint_save_top_k": 2}, 2, {"best-epoch=1": 2, "best-epoch=2": 3, "last": 4}),
        ({"checkpoint_mode": "max"}, 4, {"best-epoch=3": 4, "last": 4}),
        ({"checkpoint_monitor_metric": "train_loss"}, 3, {"best-epoch=2": 3, "last": 4}),
    ],
)
def test_the_best_epochs_are_kept_by_the_metric_and_the_direction_asked_for(
    train, tmp_path, asked, best, files
):
    left = train([4, 3, 1, 2, 5], nepochs=4, folder=tmp_path, execution=asked)
    assert left.scale == best and left.files == files


@pytest.mark.parametrize(
    "rule",
    [
        {"scheduler": "ReduceLROnPlateau", "plateau_patience": 1, "plateau_factor": 0.5, "momentum": 0.5},
        {"scheduler": "Exponential", "lr_gamma": 0.5, "ema_decay": 0.4, "momentum": 0.5},
    ],
    ids=["plateau", "average"],
)
def test_a_run_that_goes_on_is_the_run_that_never_stopped(train, tmp_path, rule):
    losses = [9.0, 5.0, 4.0, 6.0, 7.0, 8.0, 8.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]
    asked = {"early_stop_patience": 3}  # one of them is spent when the run is cut
    whole = train(losses, nepochs=7, folder=tmp_path / "whole", execution=asked, **rule)
    train(losses, nepochs=3, folder=tmp_path / "cut", execution=asked, **rule)
    again = train(losses, nepochs=7, folder=tmp_path / "cut", resume="last", execution=asked, **rule)
    assert again.history == whole.history and again.files == whole.files and again.scale == whole.scale
    assert len(whole.history["val_loss"]) == 5 and whole.scale != whole.files["last"]


class Killed(Exception):
    """Stands for a run that was killed."""


def kill(done, total, losses):
    if done == 2:
        raise Killed


def metrics(folder):
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_killed_inside_a_stage_goes_on_with_its_average_and_its_log(train, tmp_path):
    stages = [
        {"name": "scale", "steps": 4, "trainable": "scale"},
        {"name": "probe", "epochs": 1, "trainable": "probe", "learning_rate": 0.5},
        {"name": "both", "steps": 4},
    ]
    rule = {
        "stages": stages, "momentum": 0.5, "probe_trainable": True, "ema_decay": 0.4, "batch_size": 8,
        "scheduler": "WarmupCosine", "execution": {"logger_backend": "csv"},
    }  # fmt: skip
    losses = [10.0 - k for k in range(20)]
    whole = train(losses, 22, folder=tmp_path / "whole", **rule)
    cut = tmp_path / "cut"
    with pytest.raises(Killed):
        train(losses, 22, folder=cut, progress=kill, **rule)
    log = cut / "logs" / "metrics.csv"
    # as if killed between the next row and its checkpoint
    log.write_text(log.read_text() + log.read_text().splitlines()[-1].replace("1,", "2,", 1) + "\n")
    again = train(losses, 22, folder=cut, resume="last", **rule)
    assert whole.files.keys() == {"last"} and len(whole.history["val_loss"]) == 4
    assert str(again.history) == str(whole.history)  # no number is not equal to itself
    assert again.files == whole.files and again.scale == whole.scale
    np.testing.assert_array_equal(again.probe_moved, whole.probe_moved)
    assert metrics(cut) == metrics(tmp_path / "whole")
    assert [row["epoch"] for row in metrics(cut)] == ["0", "1", "2", "3"]


def test_the_loss_of_an_epoch_is_the_mean_over_patterns_also_of_a_smaller_batch(train, plan_of):
    rules = {"batch_size": 8, "region_ratio": 0.0}
    sizes = [len(groups) for groups, _ in plan_of(22, **rules).epoch(0)]
    assert sorted(sizes) == [4, 8, 8]
    left = train([10.0, 20.0, 40.0, 50.0], 22, counted=True, **rules)
    wanted = np.average(np.add([10, 20, 40], sizes), weights=sizes)
    assert left.history["train_loss"] == [pytest.approx(wanted)]
    assert left.history["val_loss"] == [52] and left.scale == 3


def test_the_validation_loss_weighs_a_batch_by_its_held_out_patterns(train, plan_of):
    rules = {"region_ratio": 1.0, "batch_size": 10, "val_fraction": 0.2}
    plan = plan_of(60, **rules)
    held = [int(plan.held_out[groups].sum()) for groups, _ in plan.validation]
    assert len(set(held)) > 1 and sum(held) == 12
    left = train([0.0] * 20, 60, counted=True, **rules)
    assert left.history["val_loss"] == [pytest.approx(np.average(held, weights=held))]


@pytest.mark.parametrize(
    "how, step", [("norm", 0.5 / (1 + 2 * 32**2) ** 0.5), ("value", 0.5)], ids=["norm", "value"]
)
@pytest.mark.parametrize("where", ["config", "execution"])
def test_gradients_are_clipped(train, how, step, where):
    if where == "config":
        asked = {"gradient_clip_val": 0.5}
    else:
        asked = {"gradient_clip_val": 9.0, "execution": {"gradient_clip_val": 0.5}}
    left = train([1.0, 1.0, 1.0], probe_trainable=True, gradient_clip_algorithm=how, **asked)
    assert left.scale == pytest.approx(step, rel=1e-5)
    np.testing.assert_allclose(left.probe_moved, step * (1 + 1j), rtol=1e-3)


def test_accumulated_batches_make_one_step_and_what_is_left_makes_the_last(train):
    left = train([1.0] * 9, 22, batch_size=4, nepochs=2, execution={"accum_steps": 2})
    assert left.scale == 2 * (1 + 1 + 0.5)


def test_the_moving_average_of_the_weights_is_judged_and_kept(train, tmp_path):
    left = train(
        [9, 8, 7, 6, 5, 4], nepochs=4, ema_decay=0.2, folder=tmp_path, execution={"checkpoint_save_top_k": -1}
    )
    averages = [1.0]  # the first update copies; the n-th forgets by (1 + n) / (10 + n), at most 0.2
    for n, now in enumerate((2, 3, 4), 1):
        averages.append(averages[-1] + (1 - min(0.2, (1 + n) / (10 + n))) * (now - averages[-1]))
    assert averages[1] == pytest.approx(2 - 2 / 11)
    found = [left.files[f"best-epoch={epoch}"] for epoch in range(4)]
    np.testing.assert_allclose(found, averages, rtol=1e-6)
    assert left.scale == pytest.approx(averages[-1], rel=1e-6)


@pytest.mark.parametrize(
    "scheduler, total",
    [
        ("Exponential", 1 + 1 + 0.5 + 0.5 + 0.25 + 0.25),
        # one step of six warms up, the other five follow a cosine from 1 down to 0.1
        ("WarmupCosine", 1 + sum(0.55 + 0.45 * np.cos(np.pi * k / 5) for k in range(5))),
        (
            "OneCycle",
            0.04 + (0.52 - 0.48 * np.cos(np.pi / 1.8))
            + sum(1e-4 + 0.49995 * (1 + np.cos(np.pi * (k / 6 - 0.3) / 0.7)) for k in (2, 3, 4, 5)),
        ),
    ],
)  # fmt: skip
def test_the_rate_follows_its_course_over_the_steps_of_all_epochs(train, scheduler, total):
    left = train(
        [1.0] * 9, 12, nepochs=3, batch_size=6, scheduler=scheduler, lr_gamma=0.5, lr_min_ratio=0.1,
        lr_warmup_epochs=1,
    )  # fmt: skip
    assert left.scale == pytest.approx(total, rel=1e-5)


def test_stages_move_their_parts_at_their_rates_and_end_after_their_last_step(train, tmp_path):
    stages = [
        {"name": "scale", "steps": 2, "trainable": "scale"},
        {"name": "probe", "epochs": 1, "trainable": "probe", "learning_rate": 0.5},
        {"name": "both", "steps": 2, "learning_rate": {"probe": 0.25}},
    ]
    left = train(
        [1.0] * 12, 22, batch_size=8, stages=stages, momentum=0.5, probe_trainable=True, folder=tmp_path
    )
    # the momentum of a part stands still with it: 1, 1.5, then 1.75 and 1.875
    scale = 1 + 1.5 + 1.75 + 1.875
    assert left.scale == pytest.approx(scale, rel=1e-6)
    moved = 0.5 * (1 + 1.5 + 1.75) + 0.25 * (1.875 + 1.9375)
    np.testing.assert_allclose(left.probe_moved, moved * (1 + 1j), rtol=1e-3)
    assert len(left.history["val_loss"]) == 3 and left.files == {"last": pytest.approx(scale, rel=1e-6)}
    assert left.history["learning_rate/probe"][-1] == 0.25 and left.history["learning_rate/scale"][-1] == 1


def test_a_part_that_rested_has_made_no_steps(train):
    """Adam's first step is the rate itself, whatever moved before."""
    stages = [
        {"name": "scale", "steps": 2, "trainable": "scale"},
        {"name": "probe", "steps": 1, "trainable": "probe", "learning_rate": 0.5},
    ]
    left = train([1.0] * 9, 22, batch_size=8, stages=stages, optimizer="adam", probe_trainable=True)
    assert left.scale == pytest.approx(2, rel=1e-5)
    np.testing.assert_allclose(left.probe_moved, 0.5 * (1 + 1j), rtol=1e-3)


def test_an_epoch_of_a_stage_is_as_many_steps_as_accumulation_leaves(train):
    stages = [
        {"name": "a", "epochs": 2, "learning_rate": 0.5},
        {"name": "b", "steps": 1},
    ]
    left = train([1.0] * 12, 22, batch_size=8, stages=stages, execution={"accum_steps": 2})
    # three batches make two steps an epoch, the second of one batch, which counts one half
    assert left.scale == 2 * (0.5 + 0.25) + 1 and len(left.history["val_loss"]) == 3


def test_a_loss_that_is_no_number_ends_the_run(train):
    lost = float("nan")
    with pytest.raises(RunError, match="training diverged: the loss is nan at epoch 0, step 2 - lower"):
        train([1.0, lost, 1.0, 1.0], 22, batch_size=8)
    assert len(train([2.0, 1.0, lost, 1.0, 1.0], nepochs=4).history["val_loss"]) == 2


def test_the_caller_is_told_of_every_epoch(train, tmp_path):
    told = []
    train(
        [3.0, 2.0, 1.0], nepochs=2, folder=tmp_path,
        progress=lambda done, total, shown: told.append((done, total, shown["val_loss"])),
    )  # fmt: skip
    assert told == [(1, 2, 2.0), (2, 2, 1.0)]


@pytest.mark.parametrize("patience, scale", [(None, 1 + 2 * 0.5 + 3 * 0.25), (1, 1 + 2 * 0.5 + 2 * 0.25)])
def test_a_clients_stages_follow_the_main_epochs_of_pytorch(make_scan, monkeypatch, patience, scale):
    from ptycho_torch.module import PtychoPINN

    tuning = (TuningStage("a", 2, {"scale": 0.5}), TuningStage("b", 3, {"scale": 0.25}, patience))
    left = run_scripted(
        "pytorch", monkeypatch, make_scan(n_positions=8), [9.0, 8.0, 7.0, 7.0, 7.0],
        build=lambda config, execution: PtychoPINN(config, execution.learning_rate, tuning=tuning),
    )  # fmt: skip
    assert left.scale == scale and all(p.requires_grad for p in left.model.network.parameters())
