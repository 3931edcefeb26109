"""The stem around a reference: the oracle in NumPy, finite differences, and the same answer everywhere."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from ptycho.config.settings import ModelConfig, TrainingConfig
from ptycho.models.trained_state import TrainedState
from ptycho.networks.graphs import NetworkSpec, describe, initial_weights, spec_from_config
from ptycho.scan.scan_set import KnownScan
from ptycho_torch import layers


def case(N=32, C=2, P=2, B=3, seed=0):
    """x, probe and reference in float64, one bad pixel marked by -1."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((N, N)) - N // 2
    beam = np.exp(-(x**2 + y**2) / (N / 5) ** 2) * np.exp(0.02j * (x**2 + y**2))
    probe = np.stack([beam, 0.4 * beam * x / 6])[:P] * 3
    smooth = np.fft.ifft2(np.fft.fft2(rng.normal(size=(2, B, C, N, N))) * np.exp(-((x**2 + y**2) / 40.0)))
    field = np.fft.ifftshift(smooth, axes=(-2, -1)).real
    reference = 0.5 * np.exp(0.5 * field[0] + 1j * field[1])
    return rng.gamma(2, 0.3, (B, C, N, N)), probe, reference


def oracle(x, probe, reference):
    """`backproject_around` as it is defined, by physics.propagate."""
    lit = (np.abs(probe) ** 2).sum(0)
    damped = lit + 0.05 * lit.max()
    waves = np.stack([physics_wave(probe * one) for one in reference.reshape(-1, 1, *lit.shape)])
    waves = waves.reshape(*reference.shape[:2], *probe.shape)
    modulus = np.sqrt((np.abs(waves) ** 2).sum(2) + 1e-6)
    excess = np.where(x < 0, 0, x / modulus - 1)[:, :, None] * waves
    back = np.fft.ifft2(np.fft.ifftshift(excess, axes=(-2, -1)), norm="ortho")
    change = (back * probe.conj()).sum(2) / damped
    ratio = change * reference.conj() / (np.abs(reference) ** 2 + 0.0025)
    share = lit / lit.sum()
    mean = (reference * share).sum((-2, -1), keepdims=True)
    seen = reference * mean.conj() / (np.abs(mean) + 1e-6)
    seen = seen / np.sqrt((np.abs(reference) ** 2 * share).sum((-2, -1), keepdims=True) + 1e-6)
    window = np.broadcast_to(lit / damped, (len(x), 1, *lit.shape))
    return np.concatenate([ratio.real, ratio.imag, seen.real, seen.imag, window], 1)


def physics_wave(exits):
    from ptycho import physics

    return physics.propagate(exits)


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(value)) for value in arrays]


def test_the_stem_is_the_oracle():
    x, probe, reference = case()
    x[0, 0, 3, 4] = -1
    made = layers.backproject_around(*tensors(x, probe, reference)).numpy()
    np.testing.assert_allclose(made, oracle(x, probe, reference), atol=1e-10)


def test_the_right_image_is_left_alone_and_a_wrong_one_is_moved_towards_it():
    _, probe, reference = case(C=1)
    x = np.sqrt((np.abs(physics_wave(reference[:, :, None] * probe)) ** 2).sum(2) + 1e-6)
    rest = layers.backproject_around(*tensors(x, probe, reference))[:, :2]
    assert float(rest.abs().max()) < 1e-9
    y, c = np.indices(x.shape[-2:]) - 16
    wrong = reference * np.exp(0.02 * np.cos(0.3 * y) + 0.02j * np.sin(0.25 * c))
    change = layers.backproject_around(*tensors(x, probe, wrong))[:, :2].numpy()
    lit = (np.abs(probe) ** 2).sum(0)
    wanted = np.broadcast_to(np.stack([-0.02 * np.cos(0.3 * y), -0.02 * np.sin(0.25 * c)]), change.shape)
    for found, truth in zip(change.swapaxes(0, 1), wanted.swapaxes(0, 1), strict=True):
        assert (lit * found * truth).sum() > 0


def test_the_gradient_of_the_misfit_is_minus_the_change_times_the_light():
    """d/d(log O) of the sum of (A - x)^2 / 2, by finite differences, at a bright pixel."""
    x, probe, reference = case(C=1, B=1)

    def misfit(image):
        amplitude = np.sqrt((np.abs(physics_wave(image[:, :, None] * probe)) ** 2).sum(2) + 1e-6)
        return 0.5 * ((amplitude - x) ** 2).sum()

    change = layers.backproject_around(*tensors(x, probe, reference)).numpy()[0]
    lit = (np.abs(probe) ** 2).sum(0)
    at, step = (0, 0, 15, 17), 1e-4
    weight = (lit + 0.05 * lit.max())[15, 17] * (np.abs(reference[at]) ** 2 + 0.0025)
    for channel, turn in ((0, step), (1, 1j * step)):
        values = []
        for sign in (1, -1):
            image = reference.copy()
            image[at] *= np.exp(sign * turn)
            values.append(misfit(image))
        slope = (values[0] - values[1]) / (2 * step)
        assert -change[channel, 15, 17] * weight == pytest.approx(slope, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("N, channels", [(32, 1), (36, 4)])
def test_the_untrained_answer_is_the_reference(N, channels):
    spec = NetworkSpec(N=N, channels=channels, n_filters_scale=1, reference="coarse")
    x, probe, reference = (value.to(torch.float32) if value.is_floating_point() else value.to(torch.complex64)
                           for value in tensors(*case(N, channels)))  # fmt: skip
    amplitude, phase = layers.build_network("swift", spec, 0)(x, probe, reference)
    made = torch.complex(amplitude * torch.cos(phase), amplitude * torch.sin(phase))
    np.testing.assert_allclose(made.detach().numpy(), reference.numpy(), atol=1e-6)


def some_weights(spec):
    graph, rng = describe("swift", spec), np.random.default_rng(0)
    weights = initial_weights(graph, spec, 0)
    return {
        name: value + (0.3 / max(1, value[0].size) ** 0.5 * rng.normal(size=value.shape)).astype(np.float32)
        for name, value in weights.items()
    }


@pytest.mark.tf
def test_tensorflow_gives_the_answer_and_the_gradient_of_torch(tf):
    theirs = importlib.import_module("ptycho.tf.layers")
    spec = NetworkSpec(N=36, channels=2, n_filters_scale=1, reference="coarse")
    x, probe, reference = case(36)
    x[0, 0, 3, 4] = -1
    stem = theirs.backproject_around(*(tf.constant(v) for v in (x, probe, reference))).numpy()
    np.testing.assert_allclose(stem, oracle(x, probe, reference), atol=1e-10)
    x, probe, reference = x.astype("f4"), probe.astype("c8"), reference.astype("c8")
    torch_net = layers.build_network("swift", spec, 0)
    weights = some_weights(spec)
    layers.load_neutral_weights(torch_net, {k: torch.from_numpy(v) for k, v in weights.items()})
    tf_net = theirs.build_network("swift", spec, 0)
    theirs.load_neutral_weights(tf_net, weights)
    wanted = torch_net(*tensors(x, probe, reference))
    (wanted[0] ** 2).mean().backward()
    with tf.GradientTape() as tape:
        made = tf_net(*(tf.constant(v) for v in (x, probe, reference)))
        loss = tf.reduce_mean(made[0] ** 2)
    gradient = tape.gradient(loss, tf_net.neutral["stem.weight"].value).numpy().transpose(3, 2, 0, 1)
    for ours, other in zip(wanted, made, strict=True):
        away = np.angle(np.exp(1j * (ours.detach().numpy() - other.numpy())))
        np.testing.assert_allclose(away, 0, atol=2e-4)
    slope = torch_net.weights["stem"].weight.grad.numpy()
    np.testing.assert_allclose(gradient, slope, atol=1e-3 * np.abs(slope).max())


@pytest.mark.onnx
@pytest.mark.parametrize("gridsize", [1, 2])
def test_onnx_gives_the_answer_of_torch(tmp_path, gridsize):
    pytest.importorskip("onnxruntime")
    from ptycho.models.onnx_export import write_onnx
    from ptycho.models.onnx_model import open_onnx

    model = ModelConfig(N=36, gridsize=gridsize, n_filters_scale=1, reference="coarse", rounds=3)
    spec = spec_from_config(model)
    x, probe, reference = (
        v.astype(t) for v, t in zip(case(36, spec.channels), ("f4", "c8", "c8"), strict=True)
    )
    reference[0, 0, :4] *= -1  # on both sides of the cut of the angle
    bad = np.zeros((36, 36), bool)
    bad[5, 7] = True
    scan = KnownScan(probe, 0.5, 1e4, 1.0, bad, probe)
    state = TrainedState(TrainingConfig(model=model), some_weights(spec), (scan,))
    opened = open_onnx(write_onnx(state, tmp_path / "m.onnx"))
    assert opened.config.model == model
    made = opened.predict((x / 0.5) ** 2, reference)
    network = layers.build_network("swift", spec, 0)
    layers.load_neutral_weights(network, {k: torch.from_numpy(v) for k, v in state.weights.items()})
    amplitude, phase = network(*tensors(np.where(bad, -1, x), probe, reference))
    wanted = (amplitude * torch.exp(1j * phase)).detach().numpy()
    np.testing.assert_allclose(made, wanted, atol=3e-4 * np.abs(wanted).max())


@pytest.mark.tf
def test_both_backends_train_alike_around_a_reference(tf):
    from pathlib import Path

    from ptycho.config.settings import PyTorchExecutionConfig
    from ptycho.simulation.scenario import Scenario, simulate
    from ptycho.workflows.train import train

    raw = simulate(Scenario(object="lines", n_positions=36, seed=5)).raw
    execution = PyTorchExecutionConfig(accelerator="cpu", logger_backend="none", learning_rate=1e-4)
    losses = []
    for backend in ("pytorch", "tensorflow"):
        config = TrainingConfig(
            start_from="shipped", nepochs=1, probe_from="guess", output_dir=Path(), backend=backend
        )
        history = train(raw, None, config, execution).history
        losses.append([history["train_loss"][0], history["val_loss"][0]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
