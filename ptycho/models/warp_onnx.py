"""The network that predicts a warp as one ONNX file and a JSON beside it, built from its weights alone.

The graph is the whole network: encoder, correlation of features, trunk, heads, bounds. The steps before it
(both images resized to 128 px, their details) are described in the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.io.atomic import atomic_write
from ptycho.models.onnx_export import IR_VERSION, OPSET
from ptycho.models.onnx_nodes import Nodes, import_onnx
from ptycho.models.onnx_seal import BY, SEALED, sealed
from ptycho.warp.formula import BOUNDS, NAMES
from ptycho.warp.network_shape import (
    FLOW_BOUND,
    FLOW_GAIN,
    POINTS,
    REACH,
    SIDE,
    STRIDE,
    TRUNK_STRIDES,
    WHOLE_GAIN,
    WINDOW_PX,
)

FORMAT, FORMAT_VERSION = "ptychopinn-warp", 1
SHAPES: dict[str, list[str | int]] = {
    "images": ["batch", 4, SIDE, SIDE],
    "values": ["batch", len(NAMES)],
    "points": ["batch", 2, POINTS, POINTS],
}
_MEANINGS = {
    "images": "real and imaginary detail of the fixed, then of the moving image",
    "values": "the global part, in unit radii (half the longer side), in the order of `values`",
    "points": "control points [x, y] of the flow in unit radii, cubic B-splines over the whole 128 px",
}


def write_warp_onnx(weights: Mapping[str, NDArray[Any]], folder: Path) -> list[Path]:
    """Write warp.onnx and warp.json into a folder. weights: those of `warp.safetensors`, float16 or float32.

    The same weights give the same bytes. Raises MissingDependencyError without the package onnx.
    """
    onnx = import_onnx()
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    nodes, constants = _graph(weights)

    def tensor(name: str) -> Any:
        return helper.make_tensor_value_info(name, float32, SHAPES[name], doc_string=_MEANINGS[name])

    graph = helper.make_graph(
        nodes, "warp", [tensor("images")], [tensor("values"), tensor("points")], initializer=constants
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
        producer_name="ptychopinn", doc_string="the distortion between two images of one object",
    )  # fmt: skip
    noted = {"format": FORMAT, "format_version": str(FORMAT_VERSION), SEALED: BY}
    helper.set_model_props(model, noted)
    onnx.checker.check_model(model, full_check=True)
    target = folder / "warp.onnx"
    with atomic_write(target) as temporary:
        temporary.write_bytes(sealed(model.SerializeToString(deterministic=True)))
    return [target, write_description(weights, folder)]


def write_description(weights: Mapping[str, NDArray[Any]], folder: Path) -> Path:
    """Write warp.json: names, shapes, preprocessing and meaning, for clients of the weights or the ONNX
    file."""
    target = folder / "warp.json"
    with atomic_write(target) as temporary:
        temporary.write_text(json.dumps(described(weights), indent=1) + "\n", encoding="utf-8")
    return target


def described(weights: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The description for clients: inputs, outputs, preprocessing."""
    outputs = ("values", "points")
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "input": {"images": {"shape": SHAPES["images"], "meaning": _MEANINGS["images"]}},
        "output": {name: {"shape": SHAPES[name], "meaning": _MEANINGS[name]} for name in outputs},
        "values": dict(zip(NAMES, BOUNDS, strict=True)),
        "flow_bound": FLOW_BOUND,
        "side_px": SIDE,
        "channels": int(weights["flow.weight"].shape[1]),
        "preprocessing": {
            "size": f"the longer side resized to {SIDE} px, bilinear with corners aligned, in the middle",
            "details": f"each image over its mean in windows of {WINDOW_PX} px, less 1 (a micrograph: less"
            " that mean), times its weight, to unit spread, cut at 4",
            "code": "ptycho_torch.warp.predict.predict_warp, ptycho_torch.warp.network.details",
        },
        "meaning": "fixed(p) = moving(p + u(p)); u is global_displacement(values) plus the flow",
    }


def _graph(weights: Mapping[str, NDArray[Any]]) -> tuple[list[Any], list[Any]]:
    w = Nodes()
    for name, value in weights.items():
        w.constant(name, value)
    channel = w.integers(1)
    halves = [w.add("Slice", "images", w.integers(k), w.integers(k + 2), channel) for k in (0, 2)]
    fixed, moving = (_features(w, half) for half in halves)
    alike = w.add("Mul", w.constant("four", 4.0), w.add("Concat", *_likeness(w, fixed, moving), axis=1))
    x = w.add("Concat", alike, fixed, _coordinates(w, fixed), axis=1)
    x = _gelu(w, _convolved(w, x, "trunk.0", 1, 1, 0))
    for number, stride in enumerate(TRUNK_STRIDES):
        x = _gelu(w, _convolved(w, x, f"trunk.{2 + 2 * number}", 3, stride, 1))
    flow = _convolved(w, x, "flow", 3, 1, 1)
    whole = w.add("Gemm", w.add("Flatten", x, axis=1), "whole.weight", "whole.bias", transB=1)
    _bounded(w, whole, WHOLE_GAIN, w.constant("bounds", np.array(BOUNDS)), "values")
    _bounded(w, flow, FLOW_GAIN, w.constant("flow_bound", FLOW_BOUND), "points")
    return w.nodes, list(w.constants.values())


def _convolved(w: Nodes, x: str, layer: str, kernel: int, stride: int, pad: int) -> str:
    names = (f"{layer}.weight", f"{layer}.bias")
    return w.add("Conv", x, *names, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)


def _gelu(w: Nodes, x: str) -> str:
    """x Phi(x), exact (D. Hendrycks, K. Gimpel, arXiv:1606.08415)."""
    half, one = w.constant("half", 0.5), w.constant("one", 1.0)
    phi = w.add("Add", w.add("Erf", w.add("Mul", x, w.constant("root_half", 0.5**0.5))), one)
    return w.add("Mul", w.add("Mul", x, half), phi)


def _features(w: Nodes, images: str) -> str:
    """The encoder's features, of unit length at each place."""
    x = _gelu(w, _convolved(w, images, "encoder.0", 5, 2, 2))
    x = _gelu(w, _convolved(w, x, "encoder.2", 3, 2, 1))
    x = _convolved(w, x, "encoder.4", 3, 1, 1)
    power = w.add("ReduceSum", w.add("Mul", x, x), w.integers(1), keepdims=1)
    return w.add("Div", x, w.add("Sqrt", w.add("Add", power, w.constant("tiny", 1e-6))))


def _likeness(w: Nodes, fixed: str, moving: str) -> list[str]:
    """Inner product of the features with those at each shift of up to REACH steps."""
    padded = w.add("Pad", moving, w.integers(0, 0, REACH, REACH, 0, 0, REACH, REACH))
    side, axes, found = SIDE // STRIDE, w.integers(2, 3), []
    for i in range(2 * REACH + 1):
        for j in range(2 * REACH + 1):
            there = w.add("Slice", padded, w.integers(i, j), w.integers(i + side, j + side), axes)
            found.append(w.add("ReduceSum", w.add("Mul", fixed, there), w.integers(1), keepdims=1))
    return found


def _coordinates(w: Nodes, fixed: str) -> str:
    """x and y of each place in unit radii, for every pair of the batch."""
    side = SIDE // STRIDE
    line = (np.arange(side) + 0.5) * 2 * STRIDE / SIDE - 1
    down, across = np.meshgrid(line, line, indexing="ij")
    where = w.constant("coordinates", np.stack([across, down])[None])
    batch = w.add("Slice", w.add("Shape", fixed), w.integers(0), w.integers(1))
    return w.add("Expand", where, w.add("Concat", batch, w.integers(2, side, side), axis=0))


def _bounded(w: Nodes, x: str, gain: float, bound: str, name: str) -> str:
    """bound tanh(gain x / bound)."""
    scaled = w.add("Div", w.add("Mul", x, w.constant(f"gain of {name}", gain)), bound)
    return w.add("Mul", bound, w.add("Tanh", scaled), name=name)
