"""Every mistake of the public reference in the contract has a test named after it, on both backends: physics,
training and networks here, files and settings in `test_mistakes_in_files.py`.

`MISTAKES` says which test holds which phrase of the contract's last section.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from both_backends import gauges, settings

from ptycho import physics as oracle
from ptycho.errors import DataError
from ptycho.forward import diffraction, losses, merging
from ptycho.image.canvas import make_frame
from ptycho.image.stitcher import Stitcher, stitch
from ptycho.run.preparation import ensure_container, plan_training
from ptycho.run.schedules import learning_rate_factor

MISTAKES = {
    "test_labels_mirrored_inside_the_group": "gs>1 labels mirrored inside the group",
    "test_groups_without_their_anchor": "groups without their anchor, so coverage by chance",
    "test_canvas_clipped": "canvas clipped at +-5/7 px",
    "test_one_canvas_for_a_whole_batch": "one canvas for a whole batch when B*C >= 64",
    "test_a_division_by_a_thousandth_outside_the_windows": (
        "a division by 0.001 outside the centre windows and an unbounded border"
    ),
    "test_scale_and_probe_never_trained": "scale and probe never trained under Keras 3",
    "test_schedulers_that_never_change_the_learning_rate": "schedulers that never change the learning rate",
    "test_supervised_mode_trains_the_pinn": "supervised mode trains the PINN",
    "test_probe_modes_summed_as_fields": "probe modes summed as fields",
    "test_yaml_values_overwritten_by_defaults": "YAML values overwritten by command-line defaults",
    "test_boolean_flags_that_are_always_true": "boolean flags that are always true",
    "test_validation_lost_above_ten_thousand_groups": "validation lost above 10,000 groups",
    "test_patches_averaged_although_they_sit_at_different_places": (
        "C patches averaged although they sit at different places"
    ),
    "test_patches_stitched_at_mirrored_positions": "patches stitched at mirrored positions",
    "test_a_fallback_that_returns_the_mean_patch": "a fallback that returns the mean patch as the image",
    "test_loading_that_can_return_random_weights": "strict=False loading that can return random weights",
    "test_psnr_with_peak_255_on_data_of_order_one": (
        "PSNR with peak 255 on data of order one (published values are 48.13 dB too high: 85.53 means 37.40)"
    ),
    "test_the_probe_never_normalised_in_one_backend": (
        "the probe never normalised in one backend, so the object saturates"
    ),
    "test_border_heads_at_the_negative_minimum": "border heads at the negative minimum of their activation",
    "test_amplitude_activations_silently_replaced": "amplitude activations silently replaced by another",
    "test_sqrt_and_log_without_an_epsilon": "sqrt and log without an epsilon",
    "test_loader_device_and_precision_settings_ignored": "loader, device and precision settings ignored",
    "test_pickled_bundles_that_run_code": "pickled bundles that run code",
    "test_counts_read_as_amplitude": "units guessed nowhere (counts read as amplitude)",
}

N = 32


def test_every_mistake_of_the_contract_has_its_test(shared_dir):
    text = (shared_dir / "contract" / "physics.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## Mistakes of the public reference")
    listed = " ".join(section.partition("\n")[2].split()).rstrip(".").split(" · ")
    assert sorted(listed) == sorted(MISTAKES.values())
    held = {name for module in (__name__, "test_mistakes_in_files") for name in vars(import_module(module))}
    assert set(MISTAKES) <= held


@pytest.fixture
def true_patches():
    """Builds a smooth asymmetric object's patches (K, N, N) at sub-pixel positions (K, 2), and the object."""
    y, x = np.mgrid[:160, :160] / 13
    obj = (1 + 0.3 * np.cos(x + 0.4 * y)) * np.exp(1j * np.sin(0.9 * y - 0.7 * x + 0.1 * x * y))

    def build(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = positions.reshape(-1, 2)
        return oracle.extract(obj, flat[:, 0], flat[:, 1], N).reshape(*positions.shape[:-1], N, N), obj

    return build


# ------------------------------------------------------------------------------- groups and their places


def test_labels_mirrored_inside_the_group(side, make_scan):
    raw = make_scan()
    container = ensure_container(raw, settings(raw, gridsize=2))
    groups = np.arange(6)
    found = side.numpy(side.batch(container, groups, False, label_scale=1.0)["labels"])
    places = container.positions_px[container.nn_indices[groups]]
    wanted = oracle.extract(raw.objectGuess, *places.reshape(-1, 2).T, N).reshape(found.shape)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    mirrored = 2 * places.mean(1, keepdims=True) - places
    other = oracle.extract(raw.objectGuess, *mirrored.reshape(-1, 2).T, N).reshape(found.shape)
    assert np.abs(found - other).max() > 0.1


def test_groups_without_their_anchor(side, make_scan):
    """Grouping is the core's; each backend is asked through its own door."""
    raw = make_scan()
    config = settings(raw, gridsize=2, neighbor_count=6)
    made = getattr(side.workflow, "create_ptycho_data_container", None) or side.workflow._ensure_container
    groups = made(raw, config).nn_indices
    assert sorted(groups[:, 0]) == list(range(raw.n_positions))
    assert all(len(set(group)) == 4 for group in groups.tolist())


def merged_and_seen(side, patches, relative, window):
    given = [side.asarray(a) for a in (patches, relative, window)]
    return side.numpy(merging.merge(*given)), side.numpy(merging.merge_and_extract(*given))


def test_canvas_clipped(side, true_patches):
    relative = np.array([[[-17.25, 9.5], [17.25, -9.5], [6.0, 20.75], [-6.0, -20.75]]])
    patches, _ = true_patches(80 + relative)
    window = oracle.central_window(N)
    canvas, views = merged_and_seen(side, patches, relative, window)
    assert canvas.shape[-1] >= N + 2 * 20.75
    merged = oracle.merge(patches[0], relative[0], oracle.central_window(N))
    wanted = oracle.extract_group(merged, relative[0], N)
    np.testing.assert_allclose(views[0], wanted, atol=1e-5)
    middle = (..., slice(10, 22), slice(10, 22))
    np.testing.assert_allclose(views[middle], patches[middle], atol=0.05)


@pytest.mark.parametrize("B, C", [(63, 1), (16, 4), (13, 5), (1024, 4)])
def test_one_canvas_for_a_whole_batch(side, B, C):
    """Batches of B*C = 63, 64, 65 and 4096 patterns: every group keeps its own canvas."""
    rng = np.random.default_rng(0)
    positions = rng.uniform(40, 110, (B, 1, 2)) + rng.uniform(-4, 4, (B, C, 2))
    relative = positions - positions.mean(1, keepdims=True)
    patches = (rng.normal(size=(B, C, N, N)) + 1j * rng.normal(size=(B, C, N, N))).astype(np.complex64)
    given = [side.asarray(a) for a in (patches, relative, oracle.central_window(N))]
    views = side.numpy(merging.merge_and_extract(*given))
    for b in (0, B // 2, B - 1):
        canvas = oracle.merge(patches[b], relative[b], oracle.central_window(N))
        np.testing.assert_allclose(views[b], oracle.extract_group(canvas, relative[b], N), atol=1e-4)


def test_a_division_by_a_thousandth_outside_the_windows(side):
    relative = np.array([[[-3.0, 0.0], [3.0, 0.0]]])
    patches = np.ones((1, 2, N, N), np.complex64) * np.array([1, 3])[None, :, None, None]
    canvas, views = merged_and_seen(side, patches, relative, oracle.central_window(N))
    assert np.abs(canvas).max() <= 3 + 1e-5 and np.abs(views).max() <= 3 + 1e-5
    reach = canvas.shape[-1] // 2 - N // 2
    above_every_window = canvas[0, reach + 2]
    np.testing.assert_allclose(above_every_window[2 * reach : N], 2, rtol=1e-5)  # the plain mean of 1 and 3
    np.testing.assert_allclose(above_every_window[reach - 3 : reach + 3], 1, rtol=1e-5)


def test_patches_averaged_although_they_sit_at_different_places(side, make_scan):
    raw = make_scan(n_positions=23)
    model, _ = side.model(raw, settings(raw, gridsize=2))
    delta = np.zeros((1, 4, N, N))
    delta[..., N // 2, N // 2] = 1
    side.answer(model, delta)
    assert landed(side.infer(model, raw, M=20, canvas_shape=None)) == pixels(raw.positions_px)


def test_patches_stitched_at_mirrored_positions(side, make_scan):
    raw = make_scan(n_positions=23)
    model, _ = side.model(raw, settings(raw))
    delta = np.zeros((1, 1, N, N))
    delta[..., N // 2 - 2, N // 2 + 5] = 1
    side.answer(model, delta)
    found = side.infer(model, raw, M=20)
    assert landed(found) == pixels(raw.positions_px + [5, -2])


def landed(found: dict[str, Any]) -> set[tuple[float, float]]:
    """Object pixels [x, y] at which an image is not zero."""
    origin = found["origin_xy"]
    return {(float(x + origin[0]), float(y + origin[1])) for y, x in np.argwhere(abs(found["object"]) > 1e-6)}


def pixels(positions: np.ndarray) -> set[tuple[float, float]]:
    return {(float(x), float(y)) for x, y in positions}


def test_a_fallback_that_returns_the_mean_patch(side, make_scan):
    stitcher = Stitcher(make_frame(np.array([[10.0, 10.0]]), 16, (40, 40)), np.ones((16, 16), "f4"))
    stitcher.add(side.asarray(np.ones((1, N, N), np.complex64)), np.array([[500.0, 500.0]]))
    with pytest.raises(DataError, match="no patch reached the canvas"):
        stitcher.result()
    with pytest.raises(DataError, match="2 patches but 1 positions"):
        stitch(side.asarray(np.ones((2, N, N), np.complex64)), np.zeros((1, 2)), np.ones((16, 16), "f4"))
    # a wide scan gives an image as wide as the scan
    raw = make_scan(n_positions=30, objectGuess=None)
    model, _ = side.model(raw, settings(raw))
    side.answer(model, np.ones((1, 1, N, N)))
    found = side.infer(model, raw, M=16)
    assert min(found["object"].shape) >= 16 + np.ptp(raw.positions_px, axis=0).min() - 1


# ------------------------------------------------------------------------------------------------ what trains


def test_scale_and_probe_never_trained(side, trained, fixed):
    raw, config, results = trained
    start = gauges(raw, config)[1]
    probe, log_scale = side.probe_and_scale(results["models"]["diffraction_to_obj"])
    assert np.abs(probe - start).max() > 1e-4 and log_scale != 0
    probe, log_scale = side.probe_and_scale(fixed[2]["models"]["diffraction_to_obj"])
    np.testing.assert_array_equal(probe, gauges(*fixed[:2])[1])
    assert log_scale == 0


def test_schedulers_that_never_change_the_learning_rate(side, trained, fixed):
    """Two of them here; every scheduler step by step in the tests of each backend's optimiser."""
    for (_, config, results), steps in ((trained, 2), (fixed, 2)):
        rates = results["history"]["learning_rate"]
        course = [
            learning_rate_factor(config, config.scheduler, steps * (epoch + 1), steps, 3 * steps)
            for epoch in range(3)
        ]
        np.testing.assert_allclose(rates, 1e-3 * np.array(course), rtol=1e-6)
        assert len(set(rates)) > 1


def test_supervised_mode_trains_the_pinn(side, make_scan):
    raw = make_scan()
    config = settings(raw, gridsize=2, model_type="supervised")
    model, container = side.model(raw, config)
    scale = plan_training(container, None, config).label_scales[0]
    batch = side.batch(container, np.arange(4), False, label_scale=scale)
    labels = side.numpy(batch["labels"])
    side.answer(model, labels)
    perfect = side.terms(model, batch)
    assert list(perfect) == ["loss", "supervised"]
    assert perfect["loss"] == pytest.approx(0, abs=1e-5)
    # diffraction has no say, labels have
    other = {**batch, "x": side.asarray(np.zeros_like(side.numpy(batch["x"])))}
    assert side.terms(model, other)["loss"] == pytest.approx(0, abs=1e-5)
    side.answer(model, labels.conj())
    assert side.terms(model, batch)["loss"] > 0.01


def test_probe_modes_summed_as_fields(side):
    rng = np.random.default_rng(0)
    patch, one, other = rng.normal(size=(3, N, N)) + 1j * rng.normal(size=(3, N, N))

    def intensity(*modes):
        probe = side.asarray(np.stack(modes))
        return side.numpy(diffraction.diffract(side.asarray(patch[None]), probe))[0]

    np.testing.assert_allclose(intensity(one, other), intensity(one) + intensity(other), rtol=1e-9)
    as_fields = np.abs(np.fft.fftshift(np.fft.fft2(patch * (one + other), norm="ortho"))) ** 2
    assert np.abs(intensity(one, other) - as_fields).max() > 0.1 * as_fields.max()


def test_validation_lost_above_ten_thousand_groups(side, make_scan):
    raw = make_scan(n_positions=49)
    config = settings(
        raw, gridsize=2, n_groups=10_500, neighbor_count=20, enable_oversampling=True, batch_size=500
    )
    container = ensure_container(raw, config)
    plan = plan_training(container, None, config)
    counted = sum(int(side.numpy(b["counted"]).sum()) for b in side.validation(container, plan, config))
    assert len(container) == 10_500 and counted == 4 * plan.held_out.sum() >= 4 * 1050


def test_the_probe_never_normalised_in_one_backend(side, trained, fixed):
    """Whatever the power of the guess, the probe has the documented one, and amplitude one half fits."""
    for raw, config, results in (trained, fixed):
        model = results["models"]["diffraction_to_obj"]
        probe, _ = side.probe_and_scale(model)
        power = (N / 2) ** 2 * (config.model.probe_scale / 2) ** 2
        assert np.sum(np.abs(probe) ** 2) == pytest.approx(power, rel=1e-5 if raw is fixed[0] else 0.05)
        container = results["train_container"]
        amplitude, _ = side.network(model, container.patterns[container.nn_indices])
        assert 0.2 < np.median(amplitude) < 0.8


# ------------------------------------------------------------------------------------------------ the network

ACTIVATIONS = {
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "softplus": lambda v: np.log1p(np.exp(v)),
    "relu": lambda v: np.maximum(v, 0),
    "swish": lambda v: v / (1 + np.exp(-v)),
}


def answers(side, make_scan, kind: str, architecture: str, biases: dict[str, float]) -> tuple[Any, Any]:
    """Amplitude and phase (4, 1, N, N) of a network whose last convolutions are these biases alone."""
    raw = make_scan(n_positions=4)
    model, container = side.model(raw, settings(raw, architecture=architecture, amp_activation=kind))
    weights = side.weights(model)
    for name, value in biases.items():
        weights[f"{name}.weight"] = np.zeros_like(weights[f"{name}.weight"])
        weights[f"{name}.bias"] = np.full_like(weights[f"{name}.bias"], value)
    side.load(model, weights)
    return side.network(model, container.patterns[:4, None])


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_amplitude_activations_silently_replaced(side, kind, make_scan):
    for value in (-1.5, 0.7):
        amplitude, _ = answers(side, make_scan, kind, "swift", {"amplitude": value})
        np.testing.assert_allclose(amplitude, ACTIVATIONS[kind](value), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_border_heads_at_the_negative_minimum(side, kind, make_scan):
    biases = {"amplitude.centre": 0.4, "amplitude.border.out": 0.9, "phase.border.out": 0.2}
    amplitude, phase = answers(side, make_scan, kind, "cnn", biases)
    ring = np.ones((N, N), bool)
    ring[N // 4 : -N // 4, N // 4 : -N // 4] = False
    np.testing.assert_allclose(amplitude[..., ring], ACTIVATIONS[kind](0.9), rtol=1e-5)
    np.testing.assert_allclose(amplitude[..., ~ring], ACTIVATIONS[kind](0.4), rtol=1e-5)
    np.testing.assert_allclose(phase[..., ring], np.pi * np.tanh(0.2), rtol=1e-5)
    # and as training starts: swish alone may dip, to -0.278 at its lowest
    started, _ = answers(side, make_scan, kind, "cnn", {})
    assert started[..., ring].min() > -0.2 and np.abs(started[..., ring]).max() < 2


def test_sqrt_and_log_without_an_epsilon(side):
    """Dark fields, dark pixels, flat patches: every value and every gradient is a finite number."""
    zero, counted = np.zeros((2, 1, 8, 8)), side.asarray(np.ones((1, 1, 1, 1), bool))
    none, many, nothing = (side.asarray(a) for a in (zero, zero + 1e9, zero.astype(complex)))
    probe, weight = side.asarray(np.ones((1, 8, 8), complex)), side.asarray(np.ones((8, 8)))

    def expected(patches):
        return diffraction.rate(diffraction.diffract(patches, probe), 30.0)

    functions = [
        lambda o: losses.poisson_nll(expected(o), none, counted),
        lambda o: losses.poisson_deviance(expected(o), none, counted),
        lambda o: losses.poisson_deviance(expected(o), many, counted),
        lambda o: losses.amplitude_mae(diffraction.amplitude(diffraction.diffract(o, probe)), none, counted),
        losses.total_variation,
        lambda o: losses.realspace_mae(o, nothing, weight),
        lambda o: losses.supervised(o, nothing, weight),
    ]
    for number, function in enumerate(functions):
        value, gradient = side.gradient(function, zero.astype(complex))
        assert np.isfinite(value) and np.isfinite(gradient).all(), number
