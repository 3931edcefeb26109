"""Networks as data: weights' bounds and starting values, sizes and costs by hand, parts of every weight."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from ptycho.config.settings import ModelConfig
from ptycho.networks.graphs import (
    HALF_AMPLITUDE,
    Graph,
    GraphBuilder,
    NetworkSpec,
    cnn,
    count_multiply_adds,
    count_parameters,
    describe,
    initial_weights,
    parameter_shapes,
    shapes,
    spec_from_config,
    swift,
)
from ptycho.networks.parts import part_of


def test_starting_weights_follow_glorot_and_what_the_node_says():
    b = GraphBuilder()
    x = b.conv("diffraction", "wide", 60, kernel=3)
    x = b.conv(x, "still", 4, kernel=1, init="zeros", bias=0.3)
    b.add("norm", x, name="even")
    graph = Graph("test", tuple(b.nodes), "even", "even")
    spec = NetworkSpec(N=32, channels=5)
    made = initial_weights(graph, spec, 0)
    limit = math.sqrt(6 / ((5 + 60) * 9))  # fan in 5 x 9, fan out 60 x 9
    assert np.abs(made["wide.weight"]).max() == pytest.approx(limit, rel=5e-3)
    assert made["wide.weight"].std() == pytest.approx(limit / math.sqrt(3), rel=0.05)
    assert not made["wide.bias"].any() and not made["still.weight"].any()
    assert (made["still.bias"] == np.float32(0.3)).all()
    assert (made["even.weight"] == 1).all() and not made["even.bias"].any()
    other, again = initial_weights(graph, spec, 1), initial_weights(graph, spec, 0)
    assert (other["wide.weight"] != made["wide.weight"]).any()
    assert (again["wide.weight"] == made["wide.weight"]).all()


@pytest.mark.parametrize("kind", HALF_AMPLITUDE)
def test_bias_of_the_amplitude_head_starts_at_one_half(kind):
    functions = {
        "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
        "softplus": lambda v: math.log1p(math.exp(v)),
        "relu": lambda v: max(v, 0.0),
        "swish": lambda v: v / (1 + math.exp(-v)),
    }
    root = brentq(lambda v: functions[kind](v) - 0.5, -3.0, 3.0)
    assert HALF_AMPLITUDE[kind] == pytest.approx(root, abs=1e-7)
    spec = NetworkSpec(amp_activation=kind)
    graph = swift(spec)
    assert initial_weights(graph, spec, 0)["amplitude.bias"] == pytest.approx(root, abs=1e-6)
    assert not initial_weights(graph, spec, 0)["phase.bias"].any()


def test_parameters_of_the_reference_network_by_the_table():
    """../shared/contract/physics.md: s = 2, gridsize 1."""
    for N, wanted in ((64, 2_331_772), (128, 4_661_212), (256, 12_912_268)):
        spec = NetworkSpec(N=N)
        assert count_parameters(cnn(spec), spec) == wanted
    spec = NetworkSpec(N=64, n_filters_scale=1)
    made = parameter_shapes(cnn(spec), spec)
    assert made["amplitude.centre.weight"] == (1, 32 - 4, 3, 3)
    assert made["amplitude.border.conv1.weight"] == (32, 4, 3, 3)
    plain = NetworkSpec(N=64, n_filters_scale=1, probe_big=False)
    assert parameter_shapes(cnn(plain), plain)["amplitude.centre.weight"] == (1, 32, 3, 3)


def test_sides_between_the_tuned_ones_take_the_smaller_table():
    def first(N: int) -> int:
        spec = NetworkSpec(N=N, n_filters_scale=1)
        return parameter_shapes(cnn(spec), spec)["encoder.0.conv1.weight"][0]

    assert [first(N) for N in (32, 64, 96, 128, 200, 256, 300)] == [32, 32, 32, 16, 16, 8, 8]


def test_multiply_adds_of_a_convolution():
    b = GraphBuilder()
    x = b.conv("diffraction", "a", 6, kernel=3)
    b.conv(x, "b", 4, kernel=2, stride=2)
    graph = Graph("test", tuple(b.nodes), "b", "b")
    spec = NetworkSpec(N=16, channels=2)
    assert count_multiply_adds(graph, spec) == 16 * 16 * 6 * 2 * 9 + 8 * 8 * 4 * 6 * 4
    assert shapes(graph, spec)["b"] == (4, 8, 8)


@pytest.mark.parametrize(
    "pad, big, masked", [(True, True, False), (True, False, True), (False, False, False)]
)
def test_swift_is_cut_to_its_centre_only_without_a_border(pad, big, masked):
    graph = swift(NetworkSpec(pad_object=pad, probe_big=big))
    assert any(node.op == "mask_centre" for node in graph.nodes) == masked


def test_channels_are_the_patterns_of_a_group():
    assert spec_from_config(ModelConfig(gridsize=3)).channels == 9
    assert spec_from_config(ModelConfig(gridsize=3, object_big=False)).out_channels == 1


def test_every_weight_belongs_to_the_part_that_its_place_says():
    spec = NetworkSpec(N=64, n_filters_scale=1)
    graph = cnn(spec)
    found = {name: part_of(name, graph) for name in parameter_shapes(graph, spec)}
    assert found["encoder.0.conv1.weight"] == found["encoder.1.conv2.bias"] == "encoder_bottom"
    assert found["encoder.2.conv1.weight"] == "encoder_top"
    assert found["phase.1.conv2.weight"] == "decoder" and found["phase.border.out.bias"] == "phase_head"
    assert found["amplitude.centre.weight"] == "amplitude_head"
    graph = describe("swift", spec)
    found = {name: part_of(name, graph) for name in parameter_shapes(graph, spec)}
    assert (
        found["fine.0.conv1.weight"] == "encoder_bottom" and found["coarse.1.conv1.weight"] == "encoder_top"
    )
    assert found["fine.1.norm.weight"] == "decoder" and found["amplitude.weight"] == "amplitude_head"
