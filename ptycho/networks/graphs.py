"""The networks, written once as data: both backends build from these graphs and share the weights' names.

A `Graph` is a list of `Node`s in the order of computation. Inputs are `diffraction` (B, C, N, N), the
normalised amplitude x with zero frequency at (N//2, N//2), and `probe` (P, N, N) complex, in the gauge of
`ptycho.scan.normalization`; where the answer starts from an image, also `reference` (B, C, N, N) complex,
that image around each pattern, in the gauge of the patches. Outputs are `amplitude` and `phase`, each
(B, C_out, N, N). Channels are first here; a backend that prefers them last transposes, the weights stay
(out, in, row, column).

Registering an own network takes five lines: see `register`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import ConfigError
from ptycho.networks.building import HALF_AMPLITUDE as HALF_AMPLITUDE
from ptycho.networks.building import Graph as Graph
from ptycho.networks.building import GraphBuilder as GraphBuilder
from ptycho.networks.building import NetworkSpec as NetworkSpec
from ptycho.networks.building import Node as Node
from ptycho.networks.building import Shape as Shape
from ptycho.networks.swift import swift as swift

# --------------------------------------------------------------------------------------------- the networks

_CNN_ENCODER = {64: (32, 64, 128), 128: (16, 32, 64, 128), 256: (8, 16, 32, 64, 128)}
_CNN_DECODER = {64: (64, 32), 128: (128, 64, 32), 256: (256, 128, 64, 32)}
_BORDER_CHANNELS = 4


def _tuned_side(N: int) -> int:
    """The largest tuned side that is not above N (64 for anything smaller)."""
    return max((side for side in _CNN_ENCODER if side <= N), default=64)


def cnn(spec: NetworkSpec) -> Graph:
    """The literature's network: Hoidn et al. 2023, one encoder, one decoder each for amplitude and phase.

    Its table stands in `specs/architectures.md`. Sides that its pooling does not divide are zero-padded first
    and cropped last.
    """
    tuned, s = _tuned_side(spec.N), spec.n_filters_scale
    encoder, decoder = _CNN_ENCODER[tuned], _CNN_DECODER[tuned]
    multiple = 2 ** len(encoder)
    side = math.ceil(spec.N / multiple) * multiple
    b = GraphBuilder()
    x = "diffraction" if side == spec.N else b.add("resize_canvas", "diffraction", side=side)
    for i, filters in enumerate(encoder):
        for j in (1, 2):
            x = b.conv(x, f"encoder.{i}.conv{j}", s * filters, activation="relu")
        x = b.add("max_pool", x)

    def head(branch: str, activation: str) -> str:
        h = x
        for i, filters in enumerate(decoder):
            for j in (1, 2):
                h = b.conv(h, f"{branch}.{i}.conv{j}", s * filters, activation="relu")
            h = b.add("upsample", h)
        if not spec.pad_object:
            h = b.add("upsample", h)
            h = b.conv(h, f"{branch}.centre", spec.out_channels, activation=activation)
        else:
            channels = s * decoder[-1]
            keep = channels - _BORDER_CHANNELS if spec.probe_big else channels
            centre = b.add("slice_channels", h, start=0, stop=keep)
            centre = b.conv(centre, f"{branch}.centre", spec.out_channels, activation=activation)
            centre = b.add("resize_canvas", centre, side=side)
            if spec.probe_big:
                ring = b.add("slice_channels", h, start=keep, stop=channels)
                for j in (1, 2):
                    ring = b.conv(ring, f"{branch}.border.conv{j}", s * encoder[0], activation="relu")
                ring = b.add("upsample", ring)
                ring = b.conv(ring, f"{branch}.border.out", spec.out_channels, activation=activation)
                ring = b.add("mask_border", ring)
                centre = b.add("add", centre, ring)
            h = centre
        return h if side == spec.N else b.add("resize_canvas", h, side=spec.N)

    amplitude = head("amplitude", spec.amp_activation)
    phase = head("phase", "pi_tanh")
    return Graph("cnn", tuple(b.nodes), amplitude, phase)


# --------------------------------------------------------------------------------------------- the registry

_REGISTRY: dict[str, Callable[[NetworkSpec], Any]] = {"swift": swift, "cnn": cnn}


def register(name: str) -> Callable[[Callable[[NetworkSpec], Any]], Callable[[NetworkSpec], Any]]:
    """Add a network under a name: decorate a function of a `NetworkSpec`.

    The function returns a `Graph`, which both backends run, or a module of one backend. A module is called
    with (diffraction, probe) and returns (amplitude, phase), each (B, C_out, N, N); the other backend refuses
    it by name.
    """

    def decorator(factory: Callable[[NetworkSpec], Any]) -> Callable[[NetworkSpec], Any]:
        if _REGISTRY.get(name, factory) is not factory:
            raise ConfigError(f"architecture {name!r} is registered already: choose another name")
        _REGISTRY[name] = factory
        return factory

    return decorator


def available() -> tuple[str, ...]:
    """Names that `ModelConfig.architecture` accepts now."""
    return tuple(_REGISTRY)


def describe(name: str, spec: NetworkSpec) -> Any:
    """The registered network of that name for this spec; ConfigError names the nearest known one."""
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, _REGISTRY, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"architecture = {name!r}: not registered (known: {', '.join(_REGISTRY)}){hint} "
            "- a network of your own must be imported before it is named"
        )
    if spec.amp_activation not in HALF_AMPLITUDE:
        raise ConfigError(f"amp_activation = {spec.amp_activation!r}: one of {', '.join(HALF_AMPLITUDE)}")
    made = _REGISTRY[name](spec)
    seen = [name for node in made.nodes for name in node.inputs] if isinstance(made, Graph) else ["reference"]
    if spec.reference != "flat" and "reference" not in seen:
        raise ConfigError(f"architecture = {name!r}: takes no reference; use 'swift', or reference = 'flat'")
    return made


# ------------------------------------------------------------------------------ what a graph says of itself

_SAME_SHAPE = frozenset(
    ("activation", "norm", "add", "multiply", "mask_border", "mask_centre")
    + ("around_amplitude", "around_phase")
)


def shapes(graph: Graph, spec: NetworkSpec) -> dict[str, Shape]:
    """(channels, rows, columns) of every node, inputs included; ConfigError where a graph does not fit.

    >>> spec = NetworkSpec(N=64)
    >>> graph = describe("cnn", spec)
    >>> shapes(graph, spec)["diffraction"], shapes(graph, spec)[graph.amplitude]
    ((1, 64, 64), (1, 64, 64))
    """
    known: dict[str, Shape] = {"probe": (1, spec.N, spec.N)}
    known |= dict.fromkeys(("diffraction", "reference"), (spec.channels, spec.N, spec.N))
    for node in graph.nodes:
        channels, rows, columns = known[node.inputs[0]]
        option = node.options
        if node.op == "conv":
            stride = option["stride"]
            if rows % stride or columns % stride:
                raise ConfigError(f"{graph.name}: node {node.name} cannot divide {rows} px by {stride}")
            known[node.name] = (option["filters"], rows // stride, columns // stride)
        elif node.op == "max_pool":
            known[node.name] = (channels, rows // 2, columns // 2)
        elif node.op == "upsample":
            known[node.name] = (channels, rows * 2, columns * 2)
        elif node.op == "pixel_shuffle":
            f = option["factor"]
            known[node.name] = (channels // f**2, rows * f, columns * f)
        elif node.op == "slice_channels":
            known[node.name] = (option["stop"] - option["start"], rows, columns)
        elif node.op == "resize_canvas":
            known[node.name] = (channels, option["side"], option["side"])
        elif node.op == "backproject":
            known[node.name] = (2 * channels + 1, rows, columns)
        elif node.op == "backproject_around":
            known[node.name] = (4 * channels + 1, rows, columns)
        elif node.op in _SAME_SHAPE:
            known[node.name] = (channels, rows, columns)
        else:
            raise ConfigError(f"{graph.name}: node {node.name} has the unknown operation {node.op!r}")
    return known


def parameter_shapes(graph: Graph, spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of weights: `<node>.weight` (out, in, k, k) or (channels,), `<node>.bias` (out,)."""
    known = shapes(graph, spec)
    result: dict[str, tuple[int, ...]] = {}
    for node in graph.nodes:
        channels = known[node.inputs[0]][0]
        if node.op == "conv":
            kernel, filters = node.options["kernel"], node.options["filters"]
            result[f"{node.name}.weight"] = (filters, channels, kernel, kernel)
            result[f"{node.name}.bias"] = (filters,)
        elif node.op == "norm":
            result[f"{node.name}.weight"] = (channels,)
            result[f"{node.name}.bias"] = (channels,)
    return result


def count_parameters(graph: Graph, spec: NetworkSpec) -> int:
    """Number of trained weights of the network itself (scale and probe not counted).

    >>> spec = NetworkSpec(N=64)
    >>> count_parameters(describe("swift", spec), spec) > 100_000
    True
    """
    return sum(math.prod(shape) for shape in parameter_shapes(graph, spec).values())


def count_multiply_adds(graph: Graph, spec: NetworkSpec) -> int:
    """Multiply-adds of all convolutions for one group, forward."""
    known, total = shapes(graph, spec), 0
    for node in graph.nodes:
        if node.op == "conv":
            filters, rows, columns = known[node.name]
            total += rows * columns * filters * known[node.inputs[0]][0] * node.options["kernel"] ** 2
    return total


def initial_weights(graph: Graph, spec: NetworkSpec, seed: int) -> dict[str, NDArray[np.float32]]:
    """The same starting weights for both backends: Glorot-uniform kernels, constant biases.

    Source: Glorot and Bengio, AISTATS 2010. `init: zeros` nodes start at zero so that residual blocks start
    as the identity. float32, drawn in float64 from `numpy.random.default_rng(seed)` in node order.
    """
    rng = np.random.default_rng(seed)
    options = {node.name: node for node in graph.nodes}
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in parameter_shapes(graph, spec).items():
        node = options[name.rsplit(".", 1)[0]]
        if node.op == "norm":
            value = np.ones(shape) if name.endswith("weight") else np.zeros(shape)
        elif name.endswith("bias"):
            value = np.full(shape, node.options["bias"])
        elif node.options["init"] == "zeros":
            value = np.zeros(shape)
        else:
            receptive = math.prod(shape[2:])
            limit = math.sqrt(6.0 / ((shape[0] + shape[1]) * receptive))
            value = rng.uniform(-limit, limit, shape)
        weights[name] = value.astype(np.float32)
    return weights


def spec_from_config(model: Any) -> NetworkSpec:
    """The part of a `ModelConfig` that shapes the network."""
    known = {name: getattr(model, name) for name in NetworkSpec.__dataclass_fields__ if hasattr(model, name)}
    return replace(NetworkSpec(**known), channels=model.gridsize**2)
