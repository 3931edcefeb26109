"""From a bundle to one ONNX file whose input is counts; built from the neutral graph, so no backend is
needed.

Everything around the network is inside the file: the square root, the normalisation, the mask of bad pixels,
and the probe, whose Fourier transform is a constant of the graph. Only long-standing operations are used, so
that any recent runtime can read it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import ConfigError, InputError
from ptycho.io.atomic import atomic_write
from ptycho.models.bundle import package_versions
from ptycho.models.onnx_around import REFERENCE, around_amplitude, around_phase, backproject_around
from ptycho.models.onnx_nodes import Nodes, import_onnx
from ptycho.models.onnx_seal import BY, SEALED, sealed
from ptycho.models.trained_state import TrainedState, load_trained_state
from ptycho.models.values import check_weights
from ptycho.networks import graphs as architectures
from ptycho.networks.graphs import Graph, NetworkSpec, Node, Shape

FORMAT = "ptychopinn-onnx"
FORMAT_VERSION = 1
#: of files with the input `reference`
WITH_REFERENCE = 2
#: of December 2021; the file format that belongs to it
OPSET, IR_VERSION = 17, 8
INPUT, OUTPUTS = "counts", ("amplitude", "phase")
_MEANINGS = {
    "counts": "photons per pixel, zero frequency at (N//2, N//2); bad pixels may hold anything",
    REFERENCE: "the image around each pattern, in the network's gauge: C real parts, then C imaginary ones",
    "amplitude": "of the object patches, in the network's gauge",
    "phase": "of the object patches, rad",
}

#: share of the brightest probe pixel below which back-projection is damped, as in the backends' layers
BACKPROJECT_DAMPING = 0.05
_GROUP_NORM_EPSILON = 1e-5
_VERSION = package_versions().get("ptychopinn", "0.0.0+local")


def export_onnx(bundle: Path, target: Path) -> Path:
    """Write the model of a bundle (zip, or its folder; of either backend) as ONNX and return `target`.

    As `write_onnx`; raises BundleError too.
    """
    check_target(target)
    state, _ = load_trained_state(bundle)
    return write_onnx(state, target, source=str(bundle))


def write_onnx(state: TrainedState, target: Path, *, source: str = "model") -> Path:
    """Write a trained state as ONNX and return `target`; `source` names the state in errors.

    Input `counts` (batch, C, N, N) float32, zero frequency at (N//2, N//2), and, where the network starts
    from an image, `reference` (batch, 2 C, N, N) float32, real parts first; outputs `amplitude` and `phase`
    (batch, C_out, N, N) float32, phase in rad. Metadata: see `_metadata`. Equal states give equal bytes.
    Memory: a few times the weights. Raises MissingDependencyError without onnx, BundleError for weights that
    do not fit, ConfigError for a network that is no `Graph`, RunError where `target` cannot be written.
    """
    check_target(target)
    model = build_model(state, source=source)
    import_onnx().checker.check_model(model, full_check=True)
    with atomic_write(target) as temporary:
        temporary.write_bytes(sealed(model.SerializeToString(deterministic=True)))
    return target


def check_target(target: Path) -> None:
    """A path that can be a model; InputError before the work starts."""
    if target.suffix != ".onnx":
        raise InputError(f"{target}: the output must end in .onnx")
    if target.is_dir():
        raise InputError(f"{target}: is a folder; give a file name ending in .onnx")
    import_onnx()


def signature(spec: NetworkSpec) -> dict[str, list[str | int]]:
    """Shape of each tensor by name, the inputs first; all are float32."""
    near = {} if spec.reference == "flat" else {REFERENCE: 2 * spec.channels}
    channels = {INPUT: spec.channels, **near, **dict.fromkeys(OUTPUTS, spec.out_channels)}
    return {name: ["batch", count, spec.N, spec.N] for name, count in channels.items()}


def build_model(state: TrainedState, *, source: str = "model") -> Any:
    """The `onnx.ModelProto` of a trained state; `source` names it in errors."""
    config = state.config.model
    spec = architectures.spec_from_config(config)
    graph = architectures.describe(config.architecture, spec)
    if not isinstance(graph, Graph):
        raise ConfigError(
            f"architecture {config.architecture!r} is a {type(graph).__name__} of one backend: "
            "only a Graph of ptycho.networks.graphs can be exported"
        )
    writer = _Writer()
    check_weights(graph, spec, state.weights, source)
    writer.network(graph, spec, state.weights, state)
    onnx = import_onnx()
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    tensors = [
        helper.make_tensor_value_info(name, float32, shape, doc_string=_MEANINGS[name])
        for name, shape in signature(spec).items()
    ]
    constants = list(writer.constants.values())
    made = helper.make_graph(
        writer.nodes,
        graph.name,
        tensors[: -len(OUTPUTS)],
        tensors[-len(OUTPUTS) :],
        initializer=constants,
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ptychopinn",
        producer_version=_VERSION,
        doc_string="object patch = amplitude * exp(i phase), one for every diffraction pattern of a group",
    )
    helper.set_model_props(model, _metadata(state))
    return model


def _metadata(state: TrainedState) -> dict[str, str]:
    """Text by name: what a client of the network must know besides its tensors."""
    model, scan = state.config.model, state.scans[0]
    probe = np.ascontiguousarray(scan.probe, "<c8")
    noted: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION if model.reference == "flat" else WITH_REFERENCE,
        "ptychopinn_version": _VERSION,
        SEALED: BY,
        "opset": OPSET,
        "architecture": model.architecture,
        "N": model.N,
        "gridsize": model.gridsize,
        "x_scale": scan.x_scale,
        "nphotons": scan.nphotons,
        "intensity_scale": state.intensity_scale,
        "probe_factor": scan.probe_factor,
        "log_scale": scan.log_scale,
        "probe_modes": len(probe),
        "probe": base64.b64encode(probe.tobytes()).decode("ascii"),
        "model_config": json.dumps(dataclasses.asdict(model), sort_keys=True),
    }
    return {name: str(value) for name, value in noted.items()}


class _Writer(Nodes):
    """The graph of a network, with what comes before and after it."""

    def network(
        self, graph: Graph, spec: NetworkSpec, weights: Mapping[str, NDArray[Any]], state: TrainedState
    ) -> None:
        """Counts to x, every node of the graph, and the two outputs."""
        for name, value in weights.items():
            self.constant(name, value)
        self.scan, self.spec = state.scans[0], spec
        self.shapes = architectures.shapes(graph, spec)
        known = {"diffraction": self._normalised(state)}
        for node in graph.nodes:
            inputs = [known[name] for name in node.inputs if name not in ("probe", "reference")]
            known[node.name] = _OPERATIONS[node.op](self, node, inputs)
        for output, name in zip(OUTPUTS, (graph.amplitude, graph.phase), strict=True):
            self.add("Identity", known[name], name=output)

    def _normalised(self, state: TrainedState) -> str:
        """x = sqrt(counts) * x_scale; masked pixels are zero whatever they hold, negative counts are zero."""
        counts = INPUT
        if self.scan.bad_pixels.any():
            good = self.constant("good_pixels", ~self.scan.bad_pixels, np.bool_)
            counts = self.add("Where", good, counts, self.constant("zero", 0))
        amplitude = self.add("Sqrt", self.add("Relu", counts))
        return self.add("Mul", amplitude, self.constant("x_scale", self.scan.x_scale), name="x")

    def shape_of(self, node: Node, position: int = 0) -> Shape:
        """(channels, rows, columns) of one of a node's inputs."""
        return self.shapes[node.inputs[position]]


# ------------------------------------------------------------------------------------------- the operations


def _conv(w: _Writer, node: Node, x: list[str]) -> str:
    kernel, stride = node.options["kernel"], node.options["stride"]
    pad = 0 if stride > 1 else kernel // 2
    return w.add(
        "Conv",
        x[0],
        f"{node.name}.weight",
        f"{node.name}.bias",
        name=f"node:{node.name}",
        kernel_shape=[kernel, kernel],
        strides=[stride, stride],
        pads=[pad] * 4,
    )


def _norm(w: _Writer, node: Node, x: list[str]) -> str:
    """One group over channels and pixels, then a scale and a shift for each channel."""
    channels, rows, columns = w.shape_of(node)
    one, zero = w.constant("one:1", [1.0]), w.constant("zero:1", [0.0])
    flat = w.add("Reshape", x[0], w.integers(0, 1, -1))
    even = w.add("InstanceNormalization", flat, one, zero, epsilon=_GROUP_NORM_EPSILON)
    back = w.add("Reshape", even, w.integers(0, channels, rows, columns))
    per_channel = w.integers(channels, 1, 1)
    scaled = w.add("Mul", back, w.add("Reshape", f"{node.name}.weight", per_channel))
    return w.add("Add", scaled, w.add("Reshape", f"{node.name}.bias", per_channel), name=f"node:{node.name}")


def _activation(w: _Writer, node: Node, x: list[str]) -> str:
    kind = node.options["kind"]
    if kind == "swish":
        return w.add("Mul", x[0], w.add("Sigmoid", x[0]))
    if kind == "pi_tanh":
        return w.add("Mul", w.add("Tanh", x[0]), w.constant("pi", math.pi))
    return w.add({"relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus"}[kind], x[0])


def _upsample(w: _Writer, node: Node, x: list[str]) -> str:
    scales = w.constant("scales", [1.0, 1.0, 2.0, 2.0])
    return w.add(
        "Resize",
        x[0],
        "",
        scales,
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )


def _resize_canvas(w: _Writer, node: Node, x: list[str]) -> str:
    side, had = node.options["side"], w.shape_of(node)[-1]
    before = side // 2 - had // 2
    after = side - had - before
    if side >= had:
        return w.add("Pad", x[0], w.integers(0, 0, before, before, 0, 0, after, after))
    ends = (w.integers(-before, -before), w.integers(side - before, side - before))
    return w.add("Slice", x[0], *ends, w.integers(2, 3))


def _slice_channels(w: _Writer, node: Node, x: list[str]) -> str:
    ends = (w.integers(node.options["start"]), w.integers(node.options["stop"]))
    return w.add("Slice", x[0], *ends, w.integers(1))


def _masked(inside: float) -> Callable[[_Writer, Node, list[str]], str]:
    """Times a mask that is `inside` on the central N/2 x N/2 and the opposite around it."""

    def operation(w: _Writer, node: Node, x: list[str]) -> str:
        N = w.shape_of(node)[-1]
        mask = np.full((N, N), 1 - inside)
        mask[N // 4 : N // 4 + N // 2, N // 4 : N // 4 + N // 2] = inside
        return w.add("Mul", x[0], w.constant(f"{node.op}:{N}", mask))

    return operation


def _backproject(w: _Writer, node: Node, x: list[str]) -> str:
    """The backends' `backproject` for a known probe: everything but the pattern is a constant.

    The inverse FFT is two products with a matrix: a transform of N <= 256 costs less than the convolutions
    that follow, is as fast on every runtime and needs no complex tensors. [Re | Im] lie side by side.
    """
    C, N = w.spec.channels, w.spec.N
    probe = np.asarray(w.scan.probe, np.complex128)
    P = len(probe)
    power = np.abs(probe) ** 2
    flat = N / (2 * math.sqrt(power.sum()))
    wave = np.fft.fftshift(np.fft.fft2(probe, norm="ortho"), axes=(-2, -1)) * flat
    modulus = np.sqrt((np.abs(wave) ** 2).sum(0) + 1e-6)
    lit = power.sum(0)
    damped = lit + BACKPROJECT_DAMPING * lit.max()
    back = probe.conj() / (damped * flat)

    ratio = w.add("Sub", w.add("Div", x[0], w.constant("flat_modulus", modulus)), w.constant("one", 1))
    ratio = w.add("Reshape", ratio, w.integers(0, C, 1, N, 1, N))
    wave_pair = np.stack([wave.real, wave.imag], axis=2)  # (P, N, 2, N)
    excess = w.add("Mul", ratio, w.constant("flat_wave", wave_pair))
    excess = w.add("Reshape", excess, w.integers(0, C, P, N, 2 * N))
    frequencies = np.arange(N) - N // 2
    A = np.exp(2j * np.pi * np.outer(np.arange(N), frequencies) / N) / math.sqrt(N)
    columns = np.block([[A.real.T, A.imag.T], [-A.imag.T, A.real.T]])
    rows = np.block([[A.real, -A.imag], [A.imag, A.real]])
    turned = w.add("MatMul", excess, w.constant("inverse_dft_columns", columns))
    ends = (w.integers(0), w.integers(N), w.integers(2 * N))
    parts = [w.add("Slice", turned, ends[i], ends[i + 1], w.integers(4)) for i in range(2)]
    stacked = w.add("Concat", *parts, axis=3)
    residual = w.add("MatMul", w.constant("inverse_dft_rows", rows), stacked)  # (B, C, P, 2N, N)
    update = []
    for name, pair in (("real", (back.real, -back.imag)), ("imag", (back.imag, back.real))):
        weight = w.constant(f"back_{name}", np.concatenate(pair, axis=1))
        product = w.add("Mul", residual, weight)
        product = w.add("Reshape", product, w.integers(0, C, 2 * P, N, N))
        update.append(w.add("ReduceSum", product, w.integers(2), keepdims=1))
    patches = w.add("Reshape", w.add("Concat", *update, axis=2), w.integers(0, 2 * C, N, N))
    batch = w.add("Shape", x[0], start=0, end=1)
    window = w.constant("lit_window", (lit / damped)[None, None])
    shape = w.add("Concat", batch, w.integers(1, N, N), axis=0)
    return w.add("Concat", patches, w.add("Expand", window, shape), axis=1, name=f"node:{node.name}")


_OPERATIONS: dict[str, Callable[[_Writer, Node, list[str]], str]] = {
    "conv": _conv,
    "norm": _norm,
    "activation": _activation,
    "add": lambda w, node, x: w.add("Add", *x),
    "max_pool": lambda w, node, x: w.add("MaxPool", x[0], kernel_shape=[2, 2], strides=[2, 2]),
    "upsample": _upsample,
    "pixel_shuffle": lambda w, node, x: w.add(
        "DepthToSpace", x[0], blocksize=node.options["factor"], mode="CRD"
    ),
    "slice_channels": _slice_channels,
    "resize_canvas": _resize_canvas,
    "mask_border": _masked(0.0),
    "mask_centre": _masked(1.0),
    "multiply": lambda w, node, x: w.add("Mul", *x),
    "backproject": _backproject,
    "backproject_around": backproject_around,
    "around_amplitude": around_amplitude,
    "around_phase": around_phase,
}
