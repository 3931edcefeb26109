"""Both backends from the same weights on the same batches: a hundred Adam steps, and terms of a step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ptycho.preparation import ensure_container, plan_training

tf = pytest.importorskip("tensorflow")


def twins(raw, config, dtype, rate=1e-3):
    """The torch module, the Keras model, and the batches of an epoch, all in one precision."""
    from ptycho.probe_start import starting_probe
    from ptycho.tf.data import HeldScan, batches_per_epoch, training_dataset
    from ptycho.tf.model import PtychoPINN_Keras
    from ptycho.tf.optimizers import Optimizer
    from ptycho_torch.config_bridge import from_training_config
    from ptycho_torch.data import GroupBatches, GroupDataset, make_loader
    from ptycho_torch.model import PtychoPINN_Lightning

    container = ensure_container(raw, config)
    plan = plan_training(container, None, config)
    probe = starting_probe(container, config, lambda *_: pytest.fail("the file's probe is used"))
    data, model, training, inference = from_training_config(
        dataclasses.replace(config, backend="pytorch"), None
    )
    theirs = PtychoPINN_Lightning(model, data, training, inference)
    ours = PtychoPINN_Keras(config, dtype=dtype)
    for one in (theirs, ours):
        one.attach_scan(
            probe.modes,
            x_scale=container.x_scale,
            nphotons=container.nphotons,
            probe_factor=probe.factor,
            bad_pixels=container.bad_pixels,
        )
    theirs = theirs.to(getattr(torch, dtype))
    theirs.learning_rate = rate
    ours.steps = Optimizer(ours.trained(), config, rate, batches_per_epoch=batches_per_epoch(plan))
    loader = make_loader(GroupDataset(container, label_scale=plan.label_scale), GroupBatches(plan))
    scan = HeldScan.of(container, label_scale=plan.label_scale, dtype=dtype)
    return theirs, ours, loader, training_dataset(scan, plan, 0, 1000)


def torch_steps(module, loader, count, dtype):
    """Train as Lightning does; the loss of every step."""
    from ptycho_torch import training

    optimizer, losses, epoch = training.configure_optimizers(module), [], 0
    while len(losses) < count:
        loader.sampler.set_epoch(epoch)
        epoch += 1
        for batch in loader:
            batch["x"] = batch["x"].to(getattr(torch, dtype))
            optimizer.zero_grad()
            loss = module.terms(batch)["loss"]
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return np.array(losses[:count])


def keras_steps(model, dataset, count):
    step = tf.function(model.train_step, autograph=False, reduce_retracing=True)
    losses = []
    for batch in dataset.take(count):
        step(batch)
        losses.append(float(model.last_loss))
    return np.array(losses)


def weights_of(theirs, ours):
    """(torch, Keras) arrays by neutral name, probe and scale among them."""
    from ptycho.tf.checkpoint import model_arrays
    from ptycho_torch.layers import neutral_weights

    torch_side = {f"network.{n}": v.numpy() for n, v in neutral_weights(theirs.network).items()}
    torch_side["probe"] = theirs.probe.detach().numpy()
    torch_side["log_scale"] = theirs.log_scale.detach().numpy()
    keras_side = model_arrays(ours)
    assert torch_side.keys() == keras_side.keys()
    return {name: (torch_side[name], keras_side[name]) for name in torch_side}


def largest_difference(pairs):
    """Largest difference of any weight, relative to the largest magnitude of its tensor (at least 1e-3)."""
    return max(np.abs(a - b).max() / max(np.abs(a).max(), 1e-3) for a, b in pairs.values())


# 24 positions: 22 train in batches of 8, 8 and 6, so a step also sees a batch that is not full. The settings
# are calm ones: elsewhere (Poisson in groups, or single precision at a rate of 1e-3) the steps are chaotic,
# and torch itself ends elsewhere after a change of one rounding.
@pytest.mark.parametrize(
    "dtype, rate, settings, loss_limit, weight_limit",
    [
        ("float64", 1e-3, {"probe_trainable": True}, 1e-8, 1e-6),
        (
            "float64",
            1e-3,
            {"probe_trainable": True, "gridsize": 2, "torch_loss_mode": "mae"},
            1e-8,
            1e-6,
        ),
        ("float32", 1e-4, {}, 1e-3, 1e-2),
    ],
)
def test_a_hundred_adam_steps_end_at_the_same_weights(
    make_scan, small_config, dtype, rate, settings, loss_limit, weight_limit
):
    raw = make_scan(n_positions=24)
    config = small_config(raw, region_ratio=0.5, n_groups=24, **settings)
    theirs, ours, loader, dataset = twins(raw, config, dtype, rate)
    before = {name: b.copy() for name, (_, b) in weights_of(theirs, ours).items()}
    count = 99  # whole epochs of three, so that both stop at the same step
    torch_losses = torch_steps(theirs, loader, count, dtype)
    losses = keras_steps(ours, dataset, count)
    np.testing.assert_allclose(losses, torch_losses, rtol=loss_limit)
    assert losses[-3:].mean() < 0.95 * losses[:3].mean()
    pairs = weights_of(theirs, ours)
    assert largest_difference(pairs) < weight_limit
    moved = np.abs(pairs["probe"][1] - before["probe"]).max()
    assert moved > 1e-3 if config.probe_trainable else moved == 0
    assert abs(pairs["log_scale"][1]) > rate


@pytest.mark.parametrize(
    "weights", [{"torch_loss_mode": "mae"}, {"realspace_weight": 0.1, "mae_weight": 0.5}]
)
def test_terms_have_the_names_and_values_of_torch(make_scan, small_config, weights):
    raw = make_scan()
    config = small_config(raw, realspace_mae_weight=0.2, merge_window="probe", **weights)
    theirs, ours, loader, dataset = twins(raw, config, "float64")
    batch = next(iter(loader))
    batch["x"] = batch["x"].double()
    wanted = theirs.terms(batch)
    found = ours.terms(next(iter(dataset)))
    assert list(found) == list(wanted) == ["loss", *ours.term_names]
    for name, value in wanted.items():
        # labels are stored in single precision on both sides
        assert float(found[name]) == pytest.approx(value.item(), rel=1e-6 if "mae" in name else 1e-9), name


def test_supervised_terms_are_torchs_and_probe_and_scale_stay(make_scan, small_config):
    raw = make_scan()
    config = small_config(raw, model_type="supervised", probe_trainable=True)
    theirs, ours, loader, dataset = twins(raw, config, "float64")
    batch = next(iter(loader))
    batch["x"] = batch["x"].double()
    wanted, found = theirs.terms(batch), ours.terms(next(iter(dataset)))
    assert list(found) == list(wanted) == ["loss", "supervised"]
    assert float(found["loss"]) == pytest.approx(wanted["loss"].item(), rel=1e-6)
    moved = ours.trained()
    assert not any(v is ours.probe or v is ours.log_scale for v in moved)


def test_bad_pixels_reach_neither_network_nor_loss(make_scan, small_config):
    bad = np.zeros((32, 32), bool)
    bad[3:6, 10:14] = True
    raw = make_scan(bad_pixels=bad)
    _, ours, _, dataset = twins(raw, small_config(raw), "float32")
    batch = next(iter(dataset))
    spoiled = {**batch, "x": tf.where(tf.constant(bad), 1e3, batch["x"])}
    for name, value in ours.terms(batch).items():
        assert float(ours.terms(spoiled)[name]) == pytest.approx(float(value), rel=1e-6)


def test_three_modes_make_one_intensity(make_scan, small_config):
    raw = make_scan()
    one = raw.probeGuess
    modes = np.stack([one, 0.4 * np.roll(one, 3, 0), 0.2 * np.roll(one, 3, 1)])
    scan = make_scan(probeGuess=modes)
    theirs, ours, loader, dataset = twins(scan, small_config(scan), "float64")
    assert ours.complex_probe.shape == (3, 32, 32)
    batch = next(iter(loader))
    batch["x"] = batch["x"].double()
    found = float(ours.terms(next(iter(dataset)))["loss"])
    assert found == pytest.approx(theirs.terms(batch)["loss"].item(), rel=1e-9)


def test_a_second_scan_is_refused(make_scan, small_config):
    from ptycho.errors import ConfigError
    from ptycho.tf.model import PtychoPINN_Keras

    raw = make_scan()
    model = PtychoPINN_Keras(small_config(raw))
    with pytest.raises(ConfigError, match="no probe yet: call attach_scan first"):
        _ = model.complex_probe
    numbers = {"x_scale": 1.0, "nphotons": 1e4, "probe_factor": 1.0}
    model.attach_scan(raw.probe_modes, **numbers)
    with pytest.raises(ConfigError, match="attached to this model already: build another"):
        model.attach_scan(raw.probe_modes, **numbers)
