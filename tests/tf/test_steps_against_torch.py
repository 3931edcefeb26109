"""Both backends from the same weights on the same batches: a hundred Adam steps, and terms of a step."""

from __future__ import annotations

import numpy as np
import pytest
from steps_of_both import keras_steps, largest_difference, torch_steps, twins, weights_of

tf = pytest.importorskip("tensorflow")


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
