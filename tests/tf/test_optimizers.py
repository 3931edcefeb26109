"""The optimisers take torch's steps: formulas, clipping, accumulation, the course of the rate, resuming."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ptycho.config.config import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.run.schedules import learning_rate_factor

tf = pytest.importorskip("tensorflow")
optimizers = pytest.importorskip("ptycho.tf.optimizers")

SHAPES = ((3, 4), (5,), ())
OPTIMIZERS = {
    "adam": lambda p, c: torch.optim.Adam(p, 1e-2, betas=(0.9, 0.99), weight_decay=c.weight_decay),
    "adamw": lambda p, c: torch.optim.AdamW(p, 1e-2, betas=(0.9, 0.99), weight_decay=c.weight_decay),
    "sgd": lambda p, c: torch.optim.SGD(p, 1e-2, momentum=c.momentum, weight_decay=c.weight_decay),
}


def values(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def made(config, rate=1e-2, **options):
    variables = [tf.Variable(value) for value in values(0)]
    return variables, optimizers.Optimizer(variables, config, rate, **options)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("clip, how", [(None, "norm"), (1.5, "norm"), (0.5, "value")])
def test_a_hundred_steps_are_torchs(name, decay, clip, how):
    config = TrainingConfig(
        optimizer=name, weight_decay=decay, gradient_clip_val=clip, gradient_clip_algorithm=how
    )
    variables, ours = made(config)
    parameters = [torch.nn.Parameter(torch.tensor(value)) for value in values(0)]
    theirs = OPTIMIZERS[name](parameters, config)
    step = tf.function(lambda *gradients: ours.take(gradients))
    for i in range(100):
        gradients = values(i + 1)
        step(*(tf.constant(g) for g in gradients))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        if clip and how == "norm":
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        elif clip:
            torch.nn.utils.clip_grad_value_(parameters, clip)
        theirs.step()
    for variable, parameter in zip(variables, parameters, strict=True):
        np.testing.assert_allclose(variable.numpy(), parameter.detach().numpy(), rtol=1e-10, atol=1e-12)


def test_accumulated_batches_make_the_step_of_one_large_batch():
    config = TrainingConfig()
    one, large = made(config)
    parts, ours = made(config, accumulate=4, batches_per_epoch=4)
    gradients = [values(i) for i in range(1, 5)]
    large.take([tf.constant(np.mean([g[i] for g in gradients], 0)) for i in range(len(SHAPES))])
    for gradient in gradients:
        assert int(ours.iterations) == 0
        ours.take([tf.constant(g) for g in gradient])
    assert int(ours.iterations) == 1
    for a, b in zip(one, parts, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


def test_what_is_left_at_the_end_of_an_epoch_still_makes_a_step():
    variables, ours = made(TrainingConfig(optimizer="sgd", momentum=0.0), accumulate=2, batches_per_epoch=5)
    before = variables[1].numpy()
    assert ours.steps_per_epoch == 3
    for _ in range(2):
        ours.begin_epoch(None)
        for _ in range(5):
            ours.take([tf.ones_like(v) for v in variables])
    assert int(ours.iterations) == 6
    # every batch counts one half, whether its step holds two or one
    np.testing.assert_allclose(variables[1].numpy(), before - 1e-2 * 2 * 2.5, rtol=1e-12)


@pytest.mark.parametrize("scheduler", ["Exponential", "WarmupCosine", "OneCycle"])
def test_the_rate_follows_the_schedule_step_by_step(scheduler):
    config = TrainingConfig(scheduler=scheduler, nepochs=3)
    variables, ours = made(config, batches_per_epoch=4)
    step = tf.function(lambda: ours.take([tf.zeros_like(v) for v in variables]))
    seen = []
    for _ in range(3):
        ours.begin_epoch(lambda n: learning_rate_factor(config, scheduler, n, 4, 12))
        for _ in range(4):
            seen.append(float(ours.learning_rate))
            step()
    wanted = [1e-2 * learning_rate_factor(config, scheduler, n, 4, 12) for n in range(13)]
    np.testing.assert_allclose([*seen, float(ours.learning_rate)], wanted, rtol=1e-12)
    assert max(seen) > 1.05 * min(seen)


def test_a_flat_rate_stays():
    variables, ours = made(TrainingConfig())
    ours.begin_epoch(None)
    ours.take([tf.ones_like(v) for v in variables])
    assert float(ours.learning_rate) == 1e-2


def test_a_state_put_back_goes_on_the_same_way():
    config = TrainingConfig()
    variables, whole = made(config)
    for i in range(3):
        whole.take([tf.constant(g) for g in values(i)])
    again, other = made(config)
    for variable, source in zip(again, variables, strict=True):
        variable.assign(source)
    other.load_state(whole.state())
    for optimizer in (whole, other):
        optimizer.take([tf.constant(g) for g in values(7)])
    for a, b in zip(variables, again, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with pytest.raises(ConfigError, match="the optimiser's state is not one of 'adam'"):
        other.load_state({"iterations": np.int64(1)})


def test_the_plateau_rule_is_torchs():
    callbacks = pytest.importorskip("ptycho.tf.fit.stopping")
    config = TrainingConfig(plateau_factor=0.3, plateau_patience=2, plateau_min_lr=1e-4)
    variables, ours = made(config)
    history = SimpleNamespace(row={})
    plateau = callbacks.Plateau(history, config)
    plateau.set_model(SimpleNamespace(steps=ours))
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1e-2)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, factor=0.3, patience=2, min_lr=1e-4)
    rng = np.random.default_rng(3)
    rates = []
    for value in 1 + 0.1 * rng.random(40):
        history.row["val_loss"] = float(value)
        plateau.on_epoch_end(0)
        scheduler.step(float(value))
        rates.append(float(ours.learning_rate))
        assert rates[-1] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
    assert len(set(rates)) > 2
