"""The graph interpreter and the physics stem."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptycho import physics
from ptycho.errors import ConfigError
from ptycho.networks import graphs as architectures
from ptycho.networks.graphs import NetworkSpec
from ptycho_torch import layers


def random_probe(modes: int, N: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    y, x = np.indices((N, N)) - N // 2
    envelope = np.exp(-(x**2 + y**2) / (N / 6) ** 2)
    probe = (rng.normal(size=(modes, N, N)) + 1j * rng.normal(size=(modes, N, N))) * envelope
    return torch.from_numpy(probe * N / np.sqrt(np.sum(np.abs(probe) ** 2))).to(torch.complex64)


@pytest.mark.parametrize("name", ["cnn", "swift"])
@pytest.mark.parametrize("N, channels, object_big", [(64, 1, True), (96, 4, True), (34, 4, False)])
@pytest.mark.parametrize("probe_big, pad_object", [(True, True), (False, True), (True, False)])
def test_the_network_has_the_declared_weights_and_answers_in_bounds(
    name, N, channels, object_big, probe_big, pad_object
):
    spec = NetworkSpec(
        N=N,
        channels=channels,
        object_big=object_big,
        probe_big=probe_big,
        pad_object=pad_object,
        n_filters_scale=1,
    )
    network = layers.build_network(name, spec, seed=0)
    graph = architectures.describe(name, spec)
    shapes = {key: tuple(value.shape) for key, value in layers.neutral_weights(network).items()}
    assert shapes == architectures.parameter_shapes(graph, spec)
    x = torch.rand(2, channels, N, N, generator=torch.Generator().manual_seed(0))
    amplitude, phase = network(x, random_probe(2, N))
    assert amplitude.shape == phase.shape == (2, channels if object_big else 1, N, N)
    assert float(amplitude.min()) >= 0 and float(amplitude.max()) <= 1
    assert float(phase.abs().max()) <= np.pi
    border = amplitude[:, :, : N // 4 - 1]
    assert bool((border == 0).all()) == (pad_object and not probe_big)


@pytest.mark.parametrize("activation", ["sigmoid", "swish", "softplus", "relu"])
def test_the_activation_asked_for_is_the_one_used(activation):
    spec = NetworkSpec(amp_activation=activation)
    kinds = [n.options["kind"] for n in architectures.describe("cnn", spec).nodes if n.op == "activation"]
    assert activation in kinds and not ({"sigmoid", "swish", "softplus"} - {activation}) & set(kinds)
    network = layers.build_network("swift", spec, seed=0)
    amplitude, _ = network(torch.rand(1, 1, 64, 64), random_probe(1, 64))
    np.testing.assert_allclose(amplitude.detach().numpy(), 0.5, atol=1e-5)


def test_a_flat_object_back_projects_to_nothing_and_a_real_one_to_its_contrast():
    N, probe = 64, random_probe(2, 64)
    flat = np.full((1, 1, N, N), N / (2 * np.sqrt(float((probe.abs() ** 2).sum()))))
    x = np.sqrt(physics.diffract(flat, probe.numpy()))
    residual = layers.backproject(torch.from_numpy(x), probe)
    assert residual.shape == (1, 3, N, N)
    assert float(residual[:, :2].abs().max()) < 1e-4
    bump = np.exp(-(np.add.outer(np.arange(-32, 32) ** 2, np.arange(-32, 32) ** 2)) / 40) * 0.2
    x = np.sqrt(physics.diffract(flat * (1 + bump), probe.numpy()))
    found = layers.backproject(torch.from_numpy(x), probe)[0, 0].numpy()
    window = layers.backproject(torch.from_numpy(x), probe)[0, 2].numpy()
    assert np.corrcoef((found * window).ravel(), (bump * window).ravel())[0, 1] > 0.6


def test_probe_power_does_not_change_what_is_back_projected():
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    probe = random_probe(1, 32)
    one, other = layers.backproject(x, probe), layers.backproject(x, 7.5 * probe)
    np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=2e-3, atol=2e-4)


def test_a_network_of_ones_own_joins_in_five_lines():
    @architectures.register("five_lines")
    class Mine(torch.nn.Module):
        def __init__(self, spec):
            super().__init__()
            self.conv = torch.nn.Conv2d(spec.channels, 2 * spec.out_channels, 3, padding=1)

        def forward(self, diffraction, probe):
            amplitude, phase = self.conv(diffraction).chunk(2, 1)
            return torch.sigmoid(amplitude), phase

    try:
        assert "five_lines" in architectures.available()
        network = layers.build_network("five_lines", NetworkSpec(N=32), seed=0)
        amplitude, _ = network(torch.zeros(1, 1, 32, 32), random_probe(1, 32))
        assert amplitude.shape == (1, 1, 32, 32)
    finally:
        architectures._REGISTRY.pop("five_lines")


def test_what_is_neither_graph_nor_module_is_refused():
    architectures.register("nothing")(lambda spec: 3)
    try:
        with pytest.raises(
            ConfigError, match="returned int: the PyTorch backend needs a Graph or a torch.nn.Module"
        ):
            layers.build_network("nothing", NetworkSpec(), seed=0)
    finally:
        architectures._REGISTRY.pop("nothing")


def test_weights_of_another_network_are_refused_by_name():
    small = layers.build_network("swift", NetworkSpec(), seed=0)
    with pytest.raises(ConfigError, match="weights do not fit the network: missing .*wrong architecture"):
        layers.load_neutral_weights(small, {"encoder.0.conv1.weight": torch.zeros(1)})


def test_equal_seeds_give_equal_networks_whatever_the_global_generator_did():
    torch.manual_seed(1)
    one = layers.neutral_weights(layers.build_network("swift", NetworkSpec(), seed=5))
    torch.manual_seed(2)
    other = layers.neutral_weights(layers.build_network("swift", NetworkSpec(), seed=5))
    assert all(torch.equal(one[name], other[name]) for name in one)
