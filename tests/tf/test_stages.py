"""Stages of a run in TensorFlow: what moves, how fast, and that it is what torch does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ptycho.networks.parts import PARTS
from ptycho.objectives.stages import resolve_stages, span_at, spans
from ptycho.run.preparation import ensure_container, plan_training

tf = pytest.importorskip("tensorflow")

RATE = 2e-3
HEADS = {"decoder", "amplitude_head", "phase_head"}
STAGES = [
    {
        "name": "one",
        "steps": 4,
        "trainable": ["decoder"],
        "learning_rate": 1e-3,
        "objectives": "amplitude_mae",
    },
    {"name": "two", "steps": 2, "trainable": "probe"},
    {"name": "three", "steps": 6, "learning_rate": {"encoder": 1e-4}},
]
SETTINGS = {
    "stages": STAGES,
    "objectives": [{"name": "amplitude_mae"}, {"name": "poisson_nll", "weight": 0.5}],
    "probe_trainable": True,
    "scheduler": "WarmupCosine",
}


def twins(raw, config, accumulate):
    """Torch module, Keras model with its staged optimiser, and both their batches; double precision."""
    from ptycho.tf.data import ScanSetTensors, training_dataset
    from ptycho.tf.model import PtychoPINN_Keras
    from ptycho.tf.stages import StagedOptimizer, parts_of
    from ptycho_torch.config_bridge import from_training_config
    from ptycho_torch.data import GroupBatches, GroupDataset, make_loader
    from ptycho_torch.model import PtychoPINN_Lightning

    container = ensure_container(raw, config)
    plan = plan_training(container, None, config)
    torch_config = dataclasses.replace(config, backend="pytorch")
    data, network, training, inference = from_training_config(torch_config, None)
    theirs = PtychoPINN_Lightning(network, data, training, inference)
    ours = PtychoPINN_Keras(config, dtype="float64")
    for one in (theirs, ours):
        one.attach_scan(
            raw.probe_modes, x_scale=container.x_scale, nphotons=container.nphotons, probe_factor=1.0
        )
    batches = plan.n_batches
    made = spans(resolve_stages(config), -(-batches // accumulate))
    ours.steps = StagedOptimizer(
        ours.trained(), parts_of(ours), made, config, RATE, accumulate=accumulate, batches_per_epoch=batches
    )
    dataset = training_dataset(ScanSetTensors.of(container, dtype="float64"), plan, 0, 100)
    return theirs.double(), ours, make_loader(GroupDataset(container), GroupBatches(plan)), dataset, batches


def torch_steps(module, loader, config, count, batches, accumulate):
    """The staged steps by hand: freeze, rate, gather, Adam."""
    from ptycho_torch.fit.stages import Freezer
    from ptycho_torch.optimizers import StagedRates, parameter_groups

    course, freezer = spans(resolve_stages(config), -(-batches // accumulate)), Freezer()
    stages = StagedRates(course, -(-batches // accumulate))
    optimizer = torch.optim.Adam(parameter_groups(module), lr=RATE, betas=(0.9, 0.99))
    courses = [stages.factors(config, RATE, group["name"]) for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, courses)
    step = 0
    for epoch in range(count // batches):
        loader.sampler.set_epoch(epoch)
        for i, batch in enumerate(loader, 1):
            module.stage = span_at(course, step).stage
            freezer.only(module, [part for part in PARTS if module.stage.trains(part)])
            batch["x"] = batch["x"].double()
            (module.terms(batch)["loss"] / accumulate).backward()
            if i % accumulate == 0 or i == batches:
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                step += 1
    freezer.restore()


def test_steps_move_what_their_stage_says_and_end_where_torch_ends(make_scan, small_config):
    from ptycho.tf.stages import parts_of

    raw = make_scan(n_positions=24)
    config = small_config(raw, **SETTINGS)
    theirs, ours, loader, dataset, batches = twins(raw, config, 1)
    step = tf.function(ours.train_step, autograph=False, reduce_retracing=True)
    names, steps = parts_of(ours), ours.steps
    moved, shaken, rates = [], [], []
    for i, batch in enumerate(dataset.take(12)):
        if i % batches == 0:
            steps.begin_epoch(None)
        rates.append(dict(zip(dict.fromkeys(names), steps.rates(i), strict=True)))
        before = [v.numpy() for v in steps.variables]
        moments = [v.numpy() for v in steps._slots["mean"]]
        step(batch)
        pairs = zip(names, before, steps.variables, strict=True)
        moved.append({part for part, old, new in pairs if not np.array_equal(old, new.numpy())})
        pairs = zip(names, moments, steps._slots["mean"], strict=True)
        shaken.append({part for part, old, new in pairs if not np.array_equal(old, new.numpy())})
    # the heads begin at zero, so that nothing before them has a gradient in the first step
    assert moved[0] < HEADS and moved[1:4] == [HEADS] * 3 and moved[4:6] == [{"probe"}] * 2
    everything = HEADS | {"encoder_top", "encoder_bottom", "probe", "scale"}
    assert all(now == everything for now in moved[6:])
    assert shaken == moved
    assert rates[1]["decoder"] == pytest.approx(1e-3) and rates[1]["probe"] == 0
    assert rates[6]["encoder_top"] == pytest.approx(1e-4) and rates[6]["scale"] == pytest.approx(RATE)

    torch_steps(theirs, loader, config, 12, batches, 1)
    assert_alike(theirs, ours)


def assert_alike(theirs, ours):
    from ptycho.tf.fit.checkpoints import model_arrays
    from ptycho_torch.layers import neutral_weights

    wanted = {f"network.{n}": v.numpy() for n, v in neutral_weights(theirs.network).items()}
    wanted |= {"probe": theirs.probe.detach().numpy(), "log_scale": theirs.log_scale.detach().numpy()}
    found = model_arrays(ours)
    for name, value in wanted.items():
        assert np.abs(found[name] - value).max() < 1e-6 * max(np.abs(value).max(), 1e-3), name


def test_gathered_steps_end_where_torch_ends(make_scan, small_config):
    """Two batches a step, the third of an epoch alone; the first stage ends within an epoch."""
    raw = make_scan(n_positions=24)
    stages = [STAGES[0] | {"steps": 3}, {"name": "two", "steps": 5}]
    config = small_config(raw, **{**SETTINGS, "stages": stages})
    theirs, ours, loader, dataset, batches = twins(raw, config, 2)
    step = tf.function(ours.train_step, autograph=False, reduce_retracing=True)
    for i, batch in enumerate(dataset.take(12)):
        if i % batches == 0:
            ours.steps.begin_epoch(None)
        step(batch)
    assert int(ours.steps.iterations) == 8
    torch_steps(theirs, loader, config, 12, batches, 2)
    assert_alike(theirs, ours)
