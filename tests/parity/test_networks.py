"""The TensorFlow interpreter of the neutral graphs: layouts, weights at the door, one trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptycho.errors import ConfigError
from ptycho.forward.diffraction import diffract
from ptycho.forward.merging import merge_and_extract
from ptycho.forward.region import region_views
from ptycho.networks import graphs as architectures
from ptycho.networks.graphs import Graph, GraphBuilder, NetworkSpec

pytestmark = pytest.mark.tf

SMALL = NetworkSpec(N=32, channels=4, n_filters_scale=1)


@pytest.fixture
def registry(monkeypatch):
    """Registers architectures for one test: registry(name, factory)."""
    monkeypatch.setattr(architectures, "_REGISTRY", dict(architectures._REGISTRY))
    return lambda name, factory: architectures.register(name)(factory)


class TestOperations:
    """Operations whose layout can go wrong, against torch, channels first."""

    @pytest.mark.parametrize("factor, channels", [(2, 1), (2, 3), (4, 2)])
    def test_pixel_shuffle_orders_channels_as_torch(self, tf, ours, factor, channels):
        x = np.random.default_rng(0).normal(size=(2, channels * factor**2, 5, 7)).astype(np.float32)
        wanted = torch.nn.functional.pixel_shuffle(torch.from_numpy(x), factor).numpy()
        made = ours.layers.pixel_shuffle(tf.constant(x.transpose(0, 2, 3, 1)), factor).numpy()
        np.testing.assert_array_equal(made.transpose(0, 3, 1, 2), wanted)

    @pytest.mark.parametrize("here, there", [(32, 40), (40, 32), (33, 40), (40, 33), (34, 34)])
    def test_canvas_is_resized_about_its_centre_pixel(self, tf, ours, theirs, here, there):
        x = np.random.default_rng(0).normal(size=(2, 3, here, here)).astype(np.float32)
        wanted = theirs.layers.resize_canvas(torch.from_numpy(x), there).numpy()
        made = ours.layers.resize_canvas(tf.constant(x.transpose(0, 2, 3, 1)), there).numpy()
        np.testing.assert_array_equal(made.transpose(0, 3, 1, 2), wanted)

    @pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-11)])
    @pytest.mark.parametrize("channels, modes", [(1, 1), (4, 3)])
    def test_backprojection_equals_that_of_torch(
        self, tf, ours, theirs, make_scan_batch, dtype, tolerance, channels, modes
    ):
        scan = make_scan_batch(NetworkSpec(N=64, channels=channels), modes)
        x, probe = (
            scan.x.astype(dtype),
            scan.probe.astype("complex64" if dtype == "float32" else "complex128"),
        )
        wanted = theirs.layers.backproject(torch.from_numpy(x), torch.from_numpy(probe)).numpy()
        made = ours.layers.backproject(tf.constant(x), tf.constant(probe)).numpy()
        assert made.shape == wanted.shape == (2, 2 * channels + 1, 64, 64) and made.dtype == dtype
        np.testing.assert_allclose(made, wanted, atol=tolerance * np.abs(wanted).max())

    def test_normalisation_has_the_formula_and_the_gradient_of_torch(self, tf, ours):
        rng = np.random.default_rng(0)
        x, weight, bias = (rng.normal(1, 2, shape) for shape in ((3, 6, 5, 7), (6,), (6,)))
        upstream = rng.normal(size=x.shape)
        theirs = [torch.tensor(value, requires_grad=True) for value in (x, weight, bias)]
        wanted = torch.nn.functional.group_norm(theirs[0], 1, *theirs[1:])
        wanted.backward(torch.from_numpy(upstream))
        mine = [tf.constant(value) for value in (x.transpose(0, 2, 3, 1), weight, bias)]
        with tf.GradientTape() as tape:
            tape.watch(mine)
            made = ours.layers.group_norm(*mine)
        gradients = tape.gradient(made, mine, tf.constant(upstream.transpose(0, 2, 3, 1)))
        np.testing.assert_allclose(made.numpy().transpose(0, 3, 1, 2), wanted.detach().numpy(), atol=1e-12)
        np.testing.assert_allclose(gradients[0].numpy().transpose(0, 3, 1, 2), theirs[0].grad, atol=1e-12)
        for gradient, there in zip(gradients[1:], theirs[1:], strict=True):
            np.testing.assert_allclose(gradient.numpy(), there.grad, atol=1e-11)

    def test_every_operation_of_the_neutral_vocabulary_runs_and_equals_torch(
        self, tf, ours, theirs, registry, make_scan_batch, some_weights
    ):
        def everything(spec: NetworkSpec) -> Graph:
            b = GraphBuilder()
            x = b.conv("diffraction", "first", 12, kernel=1, activation="swish")
            x = b.add("norm", b.add("max_pool", x), name="norm")
            x = b.add("pixel_shuffle", b.conv(x, "wide", 12), factor=2)
            x = b.add("add", x, b.add("slice_channels", b.conv("diffraction", "side", 5), start=1, stop=4))
            x = b.add(
                "resize_canvas", b.add("upsample", b.conv(x, "down", 6, kernel=4, stride=4)), side=spec.N
            )
            centre = b.add("mask_centre", b.conv(x, "a", spec.out_channels, activation="softplus"))
            border = b.add("mask_border", b.conv(x, "b", spec.out_channels, activation="pi_tanh"))
            return Graph("everything", tuple(b.nodes), centre, border)

        registry("everything", everything)
        scan = make_scan_batch(SMALL, 2)
        there = theirs.layers.build_network("everything", SMALL, seed=1)
        here = ours.layers.build_network("everything", SMALL, seed=1)
        weights = some_weights(theirs.layers.neutral_weights(there))
        theirs.layers.load_neutral_weights(
            there, {name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()}
        )
        ours.layers.load_neutral_weights(here, weights)
        x, probe = scan.x.astype(np.float32), scan.probe.astype(np.complex64)
        wanted = there(torch.from_numpy(x), torch.from_numpy(probe))
        for made, expected in zip(here(tf.constant(x), tf.constant(probe)), wanted, strict=True):
            expected = expected.detach().numpy()
            np.testing.assert_allclose(made.numpy(), expected, atol=1e-5 * np.abs(expected).max())


class TestWeights:
    @pytest.mark.parametrize("name", ["cnn", "swift"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_starting_weights_are_those_of_torch(self, ours, theirs, name, dtype):
        spec = NetworkSpec(N=64, channels=4, n_filters_scale=1)
        network = ours.layers.build_network(name, spec, seed=5, dtype=dtype)
        there = theirs.layers.neutral_weights(theirs.layers.build_network(name, spec, seed=5))
        mine = ours.layers.neutral_weights(network)
        graph = architectures.describe(name, spec)
        assert {key: value.shape for key, value in mine.items()} == architectures.parameter_shapes(
            graph, spec
        )
        assert mine.keys() == there.keys() and all(value.dtype == dtype for value in mine.values())
        assert all(np.array_equal(mine[key], there[key].numpy()) for key in mine)
        assert sorted(variable.name for variable in network.trainable_variables) == sorted(mine)

    def test_weights_go_out_and_in_unchanged(self, ours, some_weights):
        network = ours.layers.build_network("swift", SMALL, seed=0)
        weights = some_weights(ours.layers.neutral_weights(network))
        ours.layers.load_neutral_weights(network, weights)
        back = ours.layers.neutral_weights(network)
        assert all(np.array_equal(back[key], weights[key].astype(np.float32)) for key in weights)
        assert all(value.flags.c_contiguous for value in back.values())

    def test_weights_of_another_network_are_refused_by_name_and_change_nothing(self, ours):
        network = ours.layers.build_network("swift", SMALL, seed=0)
        before = ours.layers.neutral_weights(network)
        with pytest.raises(ConfigError, match="weights do not fit the network: missing .*wrong architecture"):
            ours.layers.load_neutral_weights(network, {"encoder.0.conv1.weight": np.zeros(1)})
        zeros = {key: np.zeros_like(value) for key, value in before.items()}
        with pytest.raises(ConfigError, match=r"stem.bias has shape \(3,\), expected \(24,\)"):
            ours.layers.load_neutral_weights(network, {**zeros, "stem.bias": np.zeros(3)})
        after = ours.layers.neutral_weights(network)
        assert all(np.array_equal(after[key], before[key]) for key in before)


class TestOwnNetworks:
    def test_a_keras_layer_is_taken_as_it_is(self, tf, ours, registry):
        import keras

        class Mine(keras.layers.Layer):
            def __init__(self, spec):
                super().__init__()
                self.conv = keras.layers.Conv2D(2 * spec.out_channels, 3, padding="same")

            def call(self, diffraction, probe):
                both = self.conv(tf.transpose(diffraction, [0, 2, 3, 1]))
                amplitude, phase = tf.split(tf.transpose(both, [0, 3, 1, 2]), 2, 1)
                return tf.sigmoid(amplitude), phase

        registry("five_lines", Mine)
        one, other = (ours.layers.build_network("five_lines", SMALL, seed=0) for _ in range(2))
        weights = ours.layers.neutral_weights(one)
        assert len(weights) == 2
        ours.layers.load_neutral_weights(other, weights)
        x, probe = tf.random.stateless_uniform([2, 4, 32, 32], [1, 2]), tf.ones([1, 32, 32], tf.complex64)
        for mine, copy in zip(one(x, probe), other(x, probe), strict=True):
            assert mine.shape == (2, 4, 32, 32)
            np.testing.assert_array_equal(mine.numpy(), copy.numpy())

    @pytest.mark.parametrize("factory, kind", [(lambda spec: torch.nn.Identity(), "Identity"), (int, "int")])
    def test_what_is_neither_graph_nor_layer_is_refused(self, ours, registry, factory, kind):
        registry("foreign", lambda spec: factory(spec) if kind == "Identity" else 3)
        wanted = f"'foreign' returned {kind}: the TensorFlow backend needs a Graph or a keras.layers.Layer"
        with pytest.raises(ConfigError, match=wanted):
            ours.layers.build_network("foreign", SMALL, seed=0)


class TestTraces:
    """A function traced once serves batches and canvases of any size."""

    @pytest.mark.parametrize("object_big", [True, False])
    def test_ten_batch_sizes_are_one_trace_and_equal_eager_results(
        self, tf, ours, make_scan_batch, object_big
    ):
        spec = NetworkSpec(N=32, channels=4, n_filters_scale=1, object_big=object_big)
        network = ours.layers.build_network("swift", spec, seed=0)
        traces = []

        def chain(x, probe, positions, places, patches):
            traces.append(1)
            modulus, phase = network(x, probe)
            patches = patches * tf.complex(modulus * tf.cos(phase), modulus * tf.sin(phase))
            power = tf.reduce_sum(tf.square(tf.abs(probe)), 0)
            relative = positions - tf.reduce_mean(positions, 1, keepdims=True)
            window = tf.ones([32, 32])
            views = [
                region_views(patches, places, positions, power),
                merge_and_extract(patches, relative, window),
            ]
            return [diffract(view, probe) for view in views]

        out = spec.out_channels
        graph = tf.function(
            chain,
            input_signature=[
                tf.TensorSpec([None, 4, 32, 32], tf.float32),
                tf.TensorSpec([None, 32, 32], tf.complex64),
                tf.TensorSpec([None, 4, 2], tf.float64),
                tf.TensorSpec([None, out, 2], tf.float64),
                tf.TensorSpec([None, out, 32, 32], tf.complex64),
            ],
        )
        for B in range(1, 11):
            scan = make_scan_batch(spec, modes=1 + B % 3, B=B, seed=B, reach=B)
            given = [
                tf.constant(scan.x.astype(np.float32)),
                tf.constant(scan.probe.astype(np.complex64)),
                tf.constant(scan.positions_xy),
                tf.constant(scan.places_xy),
                tf.constant(scan.patches.astype(np.complex64)),
            ]
            made = graph(*given)
            assert len(traces) == B  # one for the graph, one for every eager call before
            for mine, eager in zip(made, chain(*given), strict=True):
                assert mine.shape == (B, 4, 32, 32)
                np.testing.assert_allclose(mine.numpy(), eager.numpy(), atol=1e-5 * np.abs(eager).max())


@pytest.mark.parametrize("name", ["swift", "cnn"])
@pytest.mark.parametrize("half, tolerance", [("bfloat16", 0.1), ("float16", 0.02)])
def test_half_precision_convolutions_keep_float32_weights_and_nearly_the_answer(
    name, half, tolerance, tf, ours, make_scan_batch, some_weights
):
    spec = NetworkSpec(N=64, n_filters_scale=1)
    scan = make_scan_batch(spec)
    x, probe = tf.constant(scan.x.astype(np.float32)), tf.constant(scan.probe.astype(np.complex64))
    full = ours.layers.build_network(name, spec, seed=0)
    weights = some_weights(ours.layers.neutral_weights(full))
    mixed = ours.layers.build_network(name, spec, seed=0, compute_dtype=half)
    for network in (full, mixed):
        ours.layers.load_neutral_weights(network, weights)
    with tf.GradientTape() as tape:
        made = mixed(x, probe)
        total = tf.reduce_sum(made[0] * tf.cos(made[1]))
    gradients = tape.gradient(total, mixed.trainable_variables)
    assert all(gradient.dtype == tf.float32 for gradient in gradients)
    for value, wanted in zip(made, full(x, probe), strict=True):
        error = np.abs(value.numpy() - wanted.numpy()).max() / np.abs(wanted.numpy()).max()
        assert value.dtype == tf.float32 and 0 < error < tolerance
