"""The neutral graphs: sizes, costs, shapes, starting weights, and the registry that a user's own network
joins.
"""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.errors import ConfigError
from ptycho.networks import graphs as a


@pytest.mark.parametrize("N, expected", [(64, 2_331_772), (128, 4_661_212), (256, 12_912_268)])
def test_the_literature_network_has_its_published_size(N, expected):
    spec = a.NetworkSpec(N=N)
    assert a.count_parameters(a.describe("cnn", spec), spec) == expected


@pytest.mark.parametrize("N", [64, 128])
def test_the_default_network_costs_at_most_a_tenth(N):
    spec = a.NetworkSpec(N=N)
    cost = {name: a.count_multiply_adds(a.describe(name, spec), spec) for name in ("cnn", "swift")}
    assert cost["swift"] <= cost["cnn"] / 10


def test_multiply_adds_of_one_convolution():
    graph = a.Graph(
        "one", (a.Node("c", "conv", ("diffraction",), {"filters": 5, "kernel": 3, "stride": 1}),), "c", "c"
    )
    assert a.count_multiply_adds(graph, a.NetworkSpec(N=32, channels=2)) == 32 * 32 * 5 * 2 * 9


@pytest.mark.parametrize("name", ["cnn", "swift"])
@pytest.mark.parametrize("N", [32, 34, 64, 96, 128, 130, 256])
@pytest.mark.parametrize("channels, object_big", [(1, True), (4, True), (4, False), (9, True)])
@pytest.mark.parametrize("probe_big, pad_object", [(True, True), (False, True), (True, False)])
def test_every_even_side_gives_patches_of_that_side(name, N, channels, object_big, probe_big, pad_object):
    spec = a.NetworkSpec(
        N=N, channels=channels, object_big=object_big, probe_big=probe_big, pad_object=pad_object
    )
    graph = a.describe(name, spec)
    shapes = a.shapes(graph, spec)
    assert shapes[graph.amplitude] == shapes[graph.phase] == (channels if object_big else 1, N, N)


def test_starting_weights_are_glorot_seeded_and_float32():
    spec = a.NetworkSpec(N=64)
    graph = a.describe("cnn", spec)
    one, same, other = (a.initial_weights(graph, spec, seed) for seed in (3, 3, 4))
    name = "encoder.1.conv2.weight"
    assert one[name].dtype == np.float32 and np.array_equal(one[name], same[name])
    assert not np.array_equal(one[name], other[name])
    limit = np.sqrt(6 / ((128 + 128) * 9))
    assert 0.95 * limit < np.abs(one[name]).max() <= limit
    assert not one["encoder.1.conv2.bias"].any()


@pytest.mark.parametrize("kind", sorted(a.HALF_AMPLITUDE))
def test_the_untrained_default_answers_half_whatever_the_activation(kind):
    x = a.HALF_AMPLITUDE[kind]
    value = {
        "sigmoid": 1 / (1 + np.exp(-x)),
        "softplus": np.log1p(np.exp(x)),
        "relu": max(x, 0),
        "swish": x / (1 + np.exp(-x)),
    }[kind]
    assert value == pytest.approx(0.5, abs=1e-6)


def test_an_unknown_network_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"architecture = 'swfit': not registered .* did you mean 'swift'"):
        a.describe("swfit", a.NetworkSpec())


def test_a_name_is_registered_once():
    with pytest.raises(ConfigError, match="'cnn' is registered already"):
        a.register("cnn")(lambda spec: None)


def test_an_unknown_operation_is_refused_with_its_node():
    graph = a.Graph("odd", (a.Node("n", "wobble", ("diffraction",)),), "n", "n")
    with pytest.raises(ConfigError, match="node n has the unknown operation 'wobble'"):
        a.shapes(graph, a.NetworkSpec())
