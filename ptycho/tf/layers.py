"""Runs the neutral graphs of `ptycho.networks.graphs` in TensorFlow: one small function an operation.

Weights keep the graph's names, so that a bundle written by either backend loads into the other. Inside a
network channels are last, (B, rows, columns, channels), because TensorFlow's convolutions on the CPU need it;
nobody outside sees that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.errors import ConfigError
from ptycho.networks import graphs as architectures
from ptycho.networks.graphs import Graph, NetworkSpec, Node

Tensor = Any

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": tf.nn.relu,
    "swish": tf.nn.silu,
    "sigmoid": tf.sigmoid,
    "softplus": tf.nn.softplus,
    "pi_tanh": lambda x: math.pi * tf.tanh(x),
}

#: share of the brightest probe pixel below which back-projection is damped (rPIE, Maiden 2017)
BACKPROJECT_DAMPING = 0.05
#: power of a dark reference, below which its change is no longer a part of it
REFERENCE_FLOOR = 0.0025
#: added to the variance of a normalised group
NORM_EPSILON = 1e-5


def resize_canvas(x: Tensor, side: int) -> Tensor:
    """Zero-pad or crop rows and columns of (B, rows, columns, channels) to side x side, centre on centre."""
    before = side // 2 - x.shape[1] // 2
    after = side - x.shape[1] - before
    if before < 0 or after < 0:
        return x[:, -before : x.shape[1] + after, -before : x.shape[2] + after]
    return tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])


def border_mask(x: Tensor) -> Tensor:
    """(N, N, 1) mask: one outside the central N/2 x N/2 of x (B, N, N, channels)."""
    N = x.shape[1]
    mask = np.ones((N, N, 1))
    mask[N // 4 : N // 4 + N // 2, N // 4 : N // 4 + N // 2] = 0
    return tf.constant(mask, x.dtype)


def backproject(diffraction: Tensor, probe: Tensor) -> Tensor:
    """Real-space residual of a flat object: what the pattern says before anything is learned.

    psi_p = a FFT(P_p) is the flat object's wave, with a = N / (2 |P|) so that it explains the mean pattern;
    its modulus is replaced by the measured one, and conj(P) (psi' - psi) / (|P|^2 + damping) / a is the first
    object update (Fienup 1982; damping as in Maiden, Johnson and Li, Optica 4, 736 (2017)).
    Shapes: diffraction (B, C, N, N), probe (P, N, N) complex; returns (B, 2C+1, N, N): real and imaginary
    parts of each pattern, then how well the probe lights each pixel.
    """
    size = tf.shape(diffraction)
    B, C, N = size[0], diffraction.shape[1], size[-1]
    side = tf.cast(N, diffraction.dtype)
    power = tf.square(tf.math.real(probe)) + tf.square(tf.math.imag(probe))
    flat = side / (2 * tf.sqrt(tf.reduce_sum(power)))
    # in double: single precision is lost where the wave is weak and the division below brings it back
    wave = tf.cast(tf.signal.fft2d(tf.cast(probe, tf.complex128)), probe.dtype)
    wave = wave * tf.cast(flat / side, probe.dtype)
    squared = tf.square(tf.math.real(wave)) + tf.square(tf.math.imag(wave))
    modulus = tf.sqrt(tf.reduce_sum(squared, 0) + 1e-6)
    # the real pattern is turned to the transform's own order, not the complex waves of every mode
    measured = tf.signal.ifftshift(diffraction, axes=(-2, -1))
    excess = tf.cast(measured / modulus - 1, probe.dtype)[:, :, None] * wave
    lit = tf.reduce_sum(power, 0)
    damped = lit + BACKPROJECT_DAMPING * tf.reduce_max(lit)
    update = tf.math.conj(probe) * tf.cast(side / (damped * flat), probe.dtype)
    found = tf.reduce_sum(tf.signal.ifft2d(excess) * update, 2)
    parts = tf.reshape(tf.stack([tf.math.real(found), tf.math.imag(found)], 2), [B, 2 * C, N, N])
    window = tf.broadcast_to(lit / damped, [B, 1, N, N])
    return tf.concat([parts, window], 1)


def backproject_around(diffraction: Tensor, probe: Tensor, reference: Tensor) -> Tensor:
    """What each pattern changes in the image it is seen on: one step of error reduction around a reference.

    Formula and shapes as `ptycho_torch.layers.backproject_around`: diffraction (B, C, N, N), negative = not
    measured; probe (P, N, N) and reference (B, C, N, N) complex; returns (B, 4C+1, N, N).
    """
    N = diffraction.shape[-1]
    lit = tf.reduce_sum(_squared(probe), 0)
    damped = lit + BACKPROJECT_DAMPING * tf.reduce_max(lit)
    waves = tf.signal.fft2d(reference[:, :, None] * probe) / N
    modulus = tf.sqrt(tf.reduce_sum(_squared(waves), 2) + 1e-6)
    measured = tf.signal.ifftshift(diffraction, axes=(-2, -1))
    excess = tf.where(measured < 0, tf.zeros_like(measured), measured / modulus - 1)
    back = tf.math.conj(probe) * tf.cast(N / damped, probe.dtype)
    change = tf.reduce_sum(tf.signal.ifft2d(tf.cast(excess, probe.dtype)[:, :, None] * waves) * back, 2)
    power = _squared(reference)
    ratio = change * tf.math.conj(reference) / tf.cast(power + REFERENCE_FLOOR, probe.dtype)
    share = lit / tf.reduce_sum(lit)
    mean = tf.reduce_sum(reference * tf.cast(share, probe.dtype), (-2, -1), keepdims=True)
    turn = tf.math.conj(mean) / tf.cast(tf.abs(mean) + 1e-6, probe.dtype)
    spread = tf.sqrt(tf.reduce_sum(power * share, (-2, -1), keepdims=True) + 1e-6)
    seen = reference * turn / tf.cast(spread, probe.dtype)
    window = tf.broadcast_to(lit / damped, [tf.shape(diffraction)[0], 1, N, N])
    parts = [part(value) for value in (ratio, seen) for part in (tf.math.real, tf.math.imag)]
    return tf.cast(tf.concat([*parts, window], 1), diffraction.dtype)


def _squared(x: Tensor) -> Tensor:
    return tf.square(tf.math.real(x)) + tf.square(tf.math.imag(x))


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """Channels to pixels: channel c f^2 + i f + j goes to channel c of pixel (i, j) of each f x f block."""
    rows, columns, channels = x.shape[1] * factor, x.shape[2] * factor, x.shape[3] // factor**2
    if channels > 1:
        # tf.nn.depth_to_space counts the channel fastest
        order = np.arange(channels * factor**2).reshape(channels, -1).T.reshape(-1)
        x = tf.gather(x, order, axis=3)
    x = tf.nn.depth_to_space(x, factor)
    x.set_shape([None, rows, columns, channels])
    return x


def group_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over all of one example, then weight and bias (channels,)."""
    flat = tf.reshape(x, [-1, math.prod(x.shape[1:])])
    mean = tf.reduce_mean(flat, 1, keepdims=True)
    centred = flat - mean
    variance = tf.reduce_mean(tf.square(centred), 1, keepdims=True)
    normal = centred * tf.math.rsqrt(variance + NORM_EPSILON)
    return tf.reshape(normal, [-1, *x.shape[1:]]) * weight + bias


def _channels_last(x: Tensor) -> Tensor:
    """(B, C, N, N) -> (B, N, N, C); with one channel the memory is the same."""
    if x.shape[1] == 1:
        return tf.reshape(x, [-1, *x.shape[2:], 1])
    return tf.transpose(x, [0, 2, 3, 1])


def _channels_first(x: Tensor) -> Tensor:
    """(B, N, N, C) -> (B, C, N, N)."""
    if x.shape[3] == 1:
        return tf.reshape(x, [-1, 1, *x.shape[1:3]])
    return tf.transpose(x, [0, 3, 1, 2])


class GraphNetwork(keras.layers.Layer):  # type: ignore[misc]
    """A graph with its weights: (diffraction (B,C,N,N), probe (P,N,N)) -> amplitude, phase (B,C_out,N,N).

    Weights, inputs and outputs are of `dtype`; convolutions run in `compute_dtype` if that is another one.
    """

    def __init__(
        self, graph: Graph, spec: NetworkSpec, seed: int, dtype: str = "float32", half: str | None = None
    ) -> None:
        super().__init__(name=graph.name, dtype=dtype, autocast=False)
        self.graph, self.spec, self.half = graph, spec, half
        self.neutral: dict[str, Any] = {}
        for name, value in architectures.initial_weights(graph, spec, seed).items():
            stored = _stored(value)
            variable = self.add_weight(name=name, shape=stored.shape, initializer="zeros", dtype=dtype)
            variable.assign(stored)
            self.neutral[name] = variable
        self.built = True

    def call(
        self, diffraction: Tensor, probe: Tensor, reference: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        side = self.spec.N
        diffraction = tf.ensure_shape(diffraction, [None, self.spec.channels, side, side])
        values: dict[str, Tensor] = {"diffraction": _channels_last(diffraction)}
        if reference is not None:
            reference = tf.ensure_shape(reference, diffraction.shape)
            values["reference"] = _channels_last(reference)
        for node in self.graph.nodes:
            if node.op == "backproject":
                values[node.name] = _channels_last(backproject(diffraction, probe))
            elif node.op == "backproject_around":
                values[node.name] = _channels_last(backproject_around(diffraction, probe, reference))
            else:
                values[node.name] = self._run(node, [values[name] for name in node.inputs])
        amplitude, phase = (values[name] for name in (self.graph.amplitude, self.graph.phase))
        return (
            tf.cast(_channels_first(amplitude), diffraction.dtype),
            tf.cast(_channels_first(phase), diffraction.dtype),
        )

    def _run(self, node: Node, inputs: list[Tensor]) -> Tensor:
        x, option = inputs[0], node.options
        if node.op == "conv":
            stride = option["stride"]
            weight, bias = self._own(node)
            if self.half:
                x, weight, bias = (tf.cast(value, self.half) for value in (x, weight, bias))
            y = tf.nn.conv2d(x, weight, stride, "VALID" if stride > 1 else "SAME")
            return tf.nn.bias_add(y, bias)
        if node.op == "norm":
            weight, bias = self._own(node)
            return group_norm(tf.cast(x, weight.dtype), weight, bias)
        if node.op in ("around_amplitude", "around_phase"):
            part = (tf.abs if node.op == "around_amplitude" else tf.math.angle)(inputs[1])
            x = tf.cast(x, part.dtype)
            return part * tf.exp(x) if node.op == "around_amplitude" else part + x
        if len(inputs) == 2 and inputs[0].dtype != inputs[1].dtype:
            inputs = [tf.cast(value, self.compute_dtype) for value in inputs]
        return _STATELESS[node.op](inputs, option)

    def _own(self, node: Node) -> tuple[Tensor, Tensor]:
        return self.neutral[f"{node.name}.weight"].value, self.neutral[f"{node.name}.bias"].value


_STATELESS: dict[str, Callable[[list[Tensor], Mapping[str, Any]], Tensor]] = {
    "activation": lambda x, o: ACTIVATIONS[o["kind"]](x[0]),
    "add": lambda x, o: x[0] + x[1],
    "multiply": lambda x, o: x[0] * x[1],
    "max_pool": lambda x, o: tf.nn.max_pool2d(x[0], 2, 2, "VALID"),
    "upsample": lambda x, o: tf.raw_ops.ResizeNearestNeighbor(
        images=x[0], size=[2 * x[0].shape[1], 2 * x[0].shape[2]]
    ),
    "pixel_shuffle": lambda x, o: pixel_shuffle(x[0], o["factor"]),
    "slice_channels": lambda x, o: x[0][..., o["start"] : o["stop"]],
    "resize_canvas": lambda x, o: resize_canvas(x[0], o["side"]),
    "mask_border": lambda x, o: x[0] * border_mask(x[0]),
    "mask_centre": lambda x, o: x[0] * (1 - border_mask(x[0])),
}


def build_network(
    name: str, spec: NetworkSpec, seed: int, dtype: str = "float32", compute_dtype: str | None = None
) -> Any:
    """The registered network as a Keras layer; graphs are interpreted, a user's own layer is taken as it is.

    `compute_dtype` 'bfloat16' or 'float16': convolutions of a graph run in it, its weights stay in `dtype`.
    """
    made = architectures.describe(name, spec)
    if isinstance(made, Graph):
        return GraphNetwork(made, spec, seed, dtype, compute_dtype if compute_dtype != dtype else None)
    if isinstance(made, keras.layers.Layer):
        if not made.built:
            sides = (spec.N, spec.N)
            made(tf.zeros([1, spec.channels, *sides], dtype), tf.zeros([1, *sides], _complex(dtype)))
        return made
    raise ConfigError(
        f"architecture {name!r} returned {type(made).__name__}: the TensorFlow backend needs a Graph "
        "or a keras.layers.Layer"
    )


def neutral_weights(network: Any) -> dict[str, NDArray[Any]]:
    """Copies of the weights under their neutral names, kernels (out, in, row, column)."""
    return {name: _kernel_last(network, value.numpy()) for name, value in _variables(network).items()}


def load_neutral_weights(network: Any, weights: Mapping[str, Any]) -> None:
    """Put weights with neutral names into the network; every name and shape must match."""
    own = _variables(network)
    missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or foreign:
        raise ConfigError(
            f"weights do not fit the network: missing {missing[:3]}, unknown {foreign[:3]} "
            "- wrong architecture?"
        )
    stored = {name: np.asarray(weights[name]) for name in own}
    if isinstance(network, GraphNetwork):
        stored = {name: _stored(value) for name, value in stored.items()}
    for name, value in stored.items():
        if value.shape != tuple(own[name].shape):
            raise ConfigError(
                f"weights do not fit the network: {name} has shape {tuple(np.shape(weights[name]))}, "
                f"expected {_kernel_last(network, own[name].numpy()).shape} - wrong architecture?"
            )
    for name, value in stored.items():
        own[name].assign(value)


def _variables(network: Any) -> dict[str, Any]:
    """Variables by neutral name; those of a user's own layer are numbered, because Keras counts up its names
    with every layer of the process."""
    if isinstance(network, GraphNetwork):
        return dict(network.neutral)
    return {f"{i}.{variable.name}": variable for i, variable in enumerate(network.weights)}


def _stored(value: NDArray[Any]) -> NDArray[Any]:
    """Kernel (out, in, row, column) as TensorFlow stores it, (row, column, in, out)."""
    return np.ascontiguousarray(value.transpose(2, 3, 1, 0)) if value.ndim == 4 else value


def _kernel_last(network: Any, value: NDArray[Any]) -> NDArray[Any]:
    """The way back of `_stored`, for networks that are graphs."""
    turned = isinstance(network, GraphNetwork) and value.ndim == 4
    return np.ascontiguousarray(value.transpose(3, 2, 0, 1)) if turned else value


def _complex(dtype: str) -> str:
    return "complex128" if dtype == "float64" else "complex64"
