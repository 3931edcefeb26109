"""What both trainers are made of, one table: the model of several scans, its batches, its optimiser."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
from both_backends import settings, silent

from ptycho import backends
from ptycho.errors import ConfigError
from ptycho.models.trained_state import TrainedState
from ptycho.objectives.stages import resolve_stages, spans
from ptycho.run.preparation import plan_training, train_and_test
from ptycho.scan.normalization import intensity_scale
from ptycho.scan.scan_set import KnownScan, ScanSet


def known_scan(seed, modes=2, N=32):
    """A scan of which every number is its own."""
    rng = np.random.default_rng(seed)
    fields = rng.normal(size=(4, modes, N, N)).astype(np.float32)
    x_scale, photons, factor, correction = rng.uniform(1, 2, 4)
    return KnownScan(
        probe=fields[0] + 1j * fields[1],
        x_scale=x_scale,
        nphotons=1e5 * photons,
        probe_factor=factor,
        bad_pixels=rng.random((N, N)) < 0.1,
        guess=fields[2] + 1j * fields[3],
        log_scale=float(np.float32(correction)),
    )


def assert_same(one, other):
    for field in dataclasses.fields(KnownScan):
        np.testing.assert_allclose(getattr(one, field.name), getattr(other, field.name), rtol=1e-6)


@pytest.fixture
def built(side, make_scan):
    """Builds (backend, model, scans that it knows)."""

    def build(*seeds, **changes):
        config = settings(make_scan(), backend=side.name, **{"probe_trainable": True, **changes})
        backend = backends.find(side.name)
        model = backend.build(config, silent())
        known = [known_scan(seed) for seed in seeds]
        model.attach_scans(known)
        return backend, model, known

    return build


def test_a_model_knows_every_scan_by_its_number(side, built):
    backend, model, known = built(1, 2, 3)
    assert model.n_scans == 3
    for number, scan in enumerate(known):
        assert_same(backend.known_scan(model, number), scan)
        np.testing.assert_allclose(side.numpy(model.probe_of(number)), scan.probe, rtol=1e-6)
        np.testing.assert_array_equal(side.numpy(model.counted_of(number)), ~scan.bad_pixels)
        wanted = intensity_scale(scan.nphotons, 32)
        assert float(model.intensity_scale_of(number)) == pytest.approx(wanted, rel=1e-6)
    assert model.x_scale == pytest.approx(known[0].x_scale) and model.nphotons == known[0].nphotons
    assert model.intensity_scale == pytest.approx(intensity_scale(known[0].nphotons, 32))


def test_a_model_of_one_scan_knows_it(side, built):
    backend, model, (scan,) = built(4)
    assert model.n_scans == 1
    found = backend.known_scan(model, 0)
    assert_same(found, dataclasses.replace(scan, guess=found.guess))
    np.testing.assert_array_equal(side.numpy(model.counted_of()), ~scan.bad_pixels)
    np.testing.assert_allclose(side.numpy(model.complex_probe), scan.probe)


def test_bad_pixels_reach_no_network_and_each_scan_has_its_own(side, built, some_weights):
    backend, model, known = built(1, 2)
    side.load(model, some_weights(side.weights(model)))
    x = np.random.default_rng(0).random((2, 1, 32, 32)).astype(np.float32)
    for number, scan in enumerate(known):
        plain = np.asarray(backend.predict(model, x, number))
        spoilt = np.where(scan.bad_pixels, 7, x).astype(np.float32)
        np.testing.assert_array_equal(backend.predict(model, spoilt, number), plain)
        moved = np.where(known[1 - number].bad_pixels, 7, x).astype(np.float32)
        assert np.abs(np.asarray(backend.predict(model, moved, number)) - plain).max() > 1e-4


def test_patches_are_modulus_and_phase_of_the_network(side, built, some_weights):
    _, model, _ = built(1)
    side.load(model, some_weights(side.weights(model)))
    x = np.random.default_rng(0).random((2, 1, 32, 32)).astype(np.float32)
    masked = x * side.numpy(model.counted_of())
    modulus, phase = side.network(model, masked.astype(np.float32))
    np.testing.assert_allclose(side.patches(model, x), modulus * np.exp(1j * phase), rtol=1e-5, atol=1e-6)


def test_a_region_is_merged_on_one_canvas_and_groups_each_on_their_own(side, built):
    _, model, _ = built(1)
    rng = np.random.default_rng(0)
    patches = side.asarray(
        (rng.random((3, 1, 32, 32)) + 1j * rng.random((3, 1, 32, 32))).astype(np.complex64)
    )
    positions = side.asarray(np.array([[[30.0, 30.0]], [[33.0, 31.0]], [[36.0, 34.0]]]))

    def views(count, region):
        batch = {"positions_xy": positions[:count], "region": region, "scan": 0}
        return side.numpy(model.views(patches[:count], batch))

    assert np.abs(views(3, True) - views(3, False)).max() > 0.01
    np.testing.assert_allclose(views(1, True), views(1, False), rtol=1e-6)  # a region of one is a group
    np.testing.assert_allclose(views(3, False)[:1], views(1, False), rtol=1e-5)


def test_what_trains_is_what_the_settings_say(side, built):
    def moving(**changes):
        _, model, _ = built(1, **changes)
        if side.name == "tensorflow":
            trained = {id(variable) for variable in model.trained()}
            return id(model.probe) in trained, id(model.log_scale) in trained
        return model.probe.requires_grad, model.log_scale.requires_grad

    assert moving(intensity_scale_trainable=True) == (True, True)
    assert moving(intensity_scale_trainable=False) == (True, False)
    assert moving(intensity_scale_trainable=True, probe_trainable=False) == (False, True)
    assert moving(intensity_scale_trainable=True, model_type="supervised")[1] is False


def test_weights_follow_from_the_seed_alone(side, make_scan):
    backend = backends.find(side.name)

    def weights(seed):
        return side.weights(backend.build(settings(make_scan(), seed=seed, backend=side.name), silent()))

    first, again, others = weights(0), weights(0), [weights(1), weights(2)]
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)
    kernels = [name for name, value in first.items() if value.ndim > 1 and np.ptp(value) > 0]
    assert kernels
    for name in kernels:
        values = [first[name], *(other[name] for other in others)]
        assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(values, values[1:], strict=False))


def test_batches_hold_their_groups_with_labels_and_who_counts(side, pair):
    """Every number of a batch, read from the scans themselves."""
    scans, _ = train_and_test(pair, None, settings(pair[0], gridsize=2, n_groups=20))
    swapped = ScanSet(scans.containers[::-1], (1, 0))  # the model knows them the other way round
    first = len(swapped.containers[0])
    held_out = np.arange(len(swapped)) % 3 == 0
    scales = [2.0, 5.0]
    for place, groups in ((0, np.array([3, 0, 7])), (1, np.array([first, first + 4]))):
        container, number = swapped.containers[place], 1 - place
        members = container.nn_indices[groups - place * first]
        batch = side.some_batch(swapped, groups, place == 1, held_out, scales)
        np.testing.assert_array_equal(side.numpy(batch["x"]), container.patterns[members])
        np.testing.assert_array_equal(side.numpy(batch["positions_xy"]), container.positions_px[members])
        counted = side.numpy(batch["counted"])
        np.testing.assert_array_equal(counted, np.repeat(held_out[groups][:, None], 4, 1))
        labels = container.pattern_labels(members) * scales[number]
        np.testing.assert_allclose(side.numpy(batch["labels"]), labels, rtol=1e-6)
        assert int(batch["scan"]) == number and bool(batch["region"]) == (place == 1)
    everyone = side.some_batch(swapped, np.array([first]), False, None, None)
    assert side.numpy(everyone["counted"]).all() and "labels" not in everyone


def formula(optimizer, value, gradients, rate, decay, momentum):
    """Kingma and Ba's Adam, Loshchilov and Hutter's AdamW, and gradient descent with momentum, in float64."""
    mean = square = velocity = np.zeros_like(value)
    for step, gradient in enumerate(gradients, 1):
        if optimizer == "adamw":
            value = value - rate * decay * value
        else:
            gradient = gradient + decay * value
        if optimizer == "sgd":
            velocity = momentum * velocity + gradient
            value = value - rate * velocity
            continue
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        value = value - rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
    return value


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_optimisers_follow_their_formulas(side, built, optimizer, decay):
    _, model, known = built(5, optimizer=optimizer, weight_decay=decay, momentum=0.7)
    start = np.stack([known[0].probe.real, known[0].probe.imag], -1).astype(float)
    rng = np.random.default_rng(1)
    gradients = [rng.normal(size=start.shape) for _ in range(4)]
    side.optimise(model, gradients, rate=0.03)
    wanted = formula(optimizer, start, gradients, 0.03, decay, 0.7)
    found = side.numpy(model.probe_of())
    np.testing.assert_allclose(np.stack([found.real, found.imag], -1), wanted, rtol=1e-4, atol=1e-5)


def test_every_part_has_its_rate_at_every_step(side, built):
    stages = [
        {"name": "a", "steps": 2, "trainable": ["scale", "encoder"], "learning_rate": {"scale": 0.4}},
        {"name": "b", "epochs": 1, "trainable": "probe", "learning_rate": 0.2},
    ]
    _, model, _ = built(
        1, stages=stages, scheduler="Exponential", lr_gamma=0.5, intensity_scale_trainable=True
    )
    found = side.rates(model, spans(resolve_stages(model.config), 2), rate=0.1, steps=5)
    zero = [0.0] * 5
    wanted = {
        "encoder_bottom": [0.1, 0.1, 0, 0, 0], "encoder_top": [0.1, 0.1, 0, 0, 0], "decoder": zero,
        "amplitude_head": zero, "phase_head": zero, "probe": [0, 0, 0.2, 0.2, 0.1],
        "scale": [0.4, 0.4, 0, 0, 0],
    }  # fmt: skip
    assert list(found) == list(wanted)
    for part, rates in wanted.items():
        np.testing.assert_allclose(found[part], rates, err_msg=part)


def test_a_part_that_does_not_train_has_no_rate(side, built):
    stages = [{"name": "a", "steps": 2}]
    _, model, _ = built(1, stages=stages, probe_trainable=False, intensity_scale_trainable=True)
    found = side.rates(model, spans(resolve_stages(model.config), 2), rate=0.1, steps=1)
    assert found["scale"] == [0.1] and "probe" not in found


def test_a_network_without_parts_takes_no_stages(side, built):
    _, model, _ = built(1)
    model.network = object() if side.name == "tensorflow" else importlib.import_module("torch").nn.Identity()
    with pytest.raises(ConfigError, match="stages need.* network whose parts are known"):
        side.parts(model)


def test_a_state_put_into_a_new_model_is_the_old_one(side, built):
    backend, model, known = built(1, 2)
    state = backend.state(model)
    assert isinstance(state, TrainedState)
    other = backend.build(dataclasses.replace(model.config, seed=9), silent())
    backend.load(other, state)
    for name, value in side.weights(model).items():
        np.testing.assert_array_equal(side.weights(other)[name], value)
    for number, scan in enumerate(known):
        assert_same(backend.known_scan(other, number), scan)


def test_training_order_and_validation_are_the_plans(side, pair):
    """Two epochs of batches in order, and the validation batches, of two scans."""
    config = settings(pair[0], batch_size=6, region_ratio=0.5)
    scans, _ = train_and_test(pair, None, config)
    plan = plan_training(scans, None, config)
    wanted = [batch for epoch in (3, 4) for batch in plan.epoch(epoch)]
    found = side.order(scans, plan, 3, 5)
    validated = side.judged(scans, plan)
    assert len(found) == len(wanted) and len(validated) == len(plan.validation)
    for (groups, region), batch in zip([*wanted, *plan.validation], [*found, *validated], strict=True):
        place, local = scans.where(groups)
        members = scans.containers[place].nn_indices[local]
        np.testing.assert_array_equal(
            side.numpy(batch["positions_xy"]), scans.containers[place].positions_px[members]
        )
        assert bool(batch["region"]) == region and int(batch["scan"]) == place
