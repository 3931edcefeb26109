"""Triage as one ONNX file and a JSON beside it; built from its weights alone, so no backend is needed.

The graph contains variance stabilisation, normalisation, the network and the sigmoid. The steps before it
(pooling, the numbers of `ptycho.triage.features`) are described in the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ptycho.io.atomic import atomic_write
from ptycho.models.onnx_export import IR_VERSION, OPSET
from ptycho.models.onnx_nodes import Nodes, import_onnx
from ptycho.models.onnx_seal import BY, SEALED, sealed
from ptycho.models.triage import DECISION, THRESHOLDS, USUAL
from ptycho.triage.features import NEAR, NUMBERS, SIDE
from ptycho.triage.labels import FAULTS, MEANINGS

FORMAT, FORMAT_VERSION = "ptychopinn-triage", 1
INPUTS: dict[str, list[str | int]] = {
    "frames": ["batch", SIDE, SIDE],
    "around": ["batch", SIDE, SIDE],
    "usual": ["batch_or_1", SIDE, SIDE],
    "numbers": ["batch", len(NUMBERS)],
    "noise": ["batch_or_1_too", 1, 1],
}
OUTPUT = "probability"
_MEANINGS = {
    "frames": "counts of each frame, summed in blocks",
    "around": "the same of its neighbours on the object: block by block the mean of the middle three of five",
    "usual": "the same of the scan: the mean frame, what stands far out of it cut off",
    "numbers": "as `normalisation.numbers` names them, not normalised",
    "noise": "the scan's noise in standard deviations of photons",
    OUTPUT: "of each fault by itself; a frame is good where none is above its threshold",
}


def write_triage_onnx(weights: Mapping[str, NDArray[Any]], folder: Path, cut: float) -> list[Path]:
    """Write triage.onnx and triage.json into a folder. weights: those of `ptycho.models.triage`; cut: of the
    normalised numbers. The same weights give the same bytes. Raises MissingDependencyError."""
    onnx = import_onnx()
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    nodes, constants = _graph(weights, cut)

    def tensor(name: str, shape: list[str | int]) -> Any:
        return helper.make_tensor_value_info(name, float32, shape, doc_string=_MEANINGS[name])

    graph = helper.make_graph(
        nodes, "triage", [tensor(name, shape) for name, shape in INPUTS.items()],
        [tensor(OUTPUT, ["batch", len(FAULTS)])], initializer=constants,
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
        producer_name="ptychopinn", doc_string="what is wrong with each frame of a ptychographic scan",
    )  # fmt: skip
    noted = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        SEALED: BY,
        "labels": json.dumps(FAULTS),
    }
    helper.set_model_props(model, noted)
    onnx.checker.check_model(model, full_check=True)
    made = [folder / "triage.onnx", folder / "triage.json"]
    with atomic_write(made[0]) as temporary:
        temporary.write_bytes(sealed(model.SerializeToString(deterministic=True)))
    with atomic_write(made[1]) as temporary:
        temporary.write_text(json.dumps(described(weights, cut), indent=1) + "\n", encoding="utf-8")
    return made


def described(weights: Mapping[str, NDArray[Any]], cut: float) -> dict[str, Any]:
    """The description for clients of the ONNX file: labels, preprocessing, normalisation, thresholds."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "labels": list(FAULTS),
        "meanings": MEANINGS,
        "good": "a frame is good where no probability reaches its threshold; several faults may hold at once",
        "thresholds": {name: float(t) for name, t in zip(FAULTS, weights[THRESHOLDS], strict=True)},
        **_usual(weights),
        "inputs": {name: {"shape": shape, "meaning": _MEANINGS[name]} for name, shape in INPUTS.items()},
        "output": {OUTPUT: {"shape": ["batch", len(FAULTS)], "meaning": _MEANINGS[OUTPUT]}},
        "preprocessing": {
            "counts": "0 in bad pixels and where negative; numbers that are not whole are scaled so that the"
            " median frame has 1e5",
            "pooling": f"sums over blocks of ceil(N / {SIDE}) px, the N px in the middle of {SIDE} x {SIDE}"
            " blocks: frames are resized, not cropped",
            "side": SIDE,
            "neighbours": NEAR,
            "inside": "variance stabilised by 2 sqrt(n + 3/8); six pictures as ptycho.triage.features.images",
            "numbers": "as ptycho.triage.features.look makes them",
        },
        "normalisation": {
            "numbers": list(NUMBERS),
            "mean": [float(v) for v in weights["mean"]],
            "scale": [float(v) for v in weights["scale"]],
            "cut": cut,
            "inside": True,
        },
    }


def _usual(weights: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The tails of usual scans, where the file has them."""
    if USUAL not in weights:
        return {}
    return {
        "usual_tails": {name: float(t) for name, t in zip(FAULTS, weights[USUAL], strict=True)},
        "in_a_scan": "the log odds of a threshold rise by what the scan's 85 % quantile of log odds, frames"
        " of log odds of 4 or more left out, exceeds its usual tail",
    }


def _relu(w: Nodes, x: str, layer: str) -> str:
    """A dense layer and its ReLU."""
    return w.add("Relu", w.add("Gemm", x, f"{layer}.weight", f"{layer}.bias", transB=1))


def _graph(weights: Mapping[str, NDArray[Any]], cut: float) -> tuple[list[Any], list[Any]]:
    w = Nodes()
    for name, value in weights.items():
        if name not in DECISION:
            w.constant(name, value)
    x = _pictures(w)
    channel_axis = w.integers(1)
    unlike = w.add("Slice", x, w.integers(4), w.integers(6), channel_axis)
    flat = w.add("Reshape", unlike, w.integers(0, 0, -1))
    about = _relu(w, w.add("Flatten", w.add("MatMul", flat, "about"), axis=1), "rings")
    depth = sum(name.startswith("convolutions.") and name.endswith(".weight") for name in weights)
    for k in range(depth):
        layer = f"convolutions.{k}"
        conv = w.add(
            "Conv", x, f"{layer}.weight", f"{layer}.bias", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        )
        x = w.add("Relu", conv)
    shape = _relu(w, w.add("Flatten", x, axis=1), "shape")
    known = w.add("Div", w.add("Sub", "numbers", "mean"), "scale")
    known = w.add("Clip", known, w.constant("lowest", -cut), w.constant("highest", cut))
    both = w.add("Concat", shape, about, _relu(w, known, "beside"), axis=1)
    logits = w.add("Gemm", _relu(w, both, "joined"), "last.weight", "last.bias", transB=1)
    w.add("Sigmoid", logits, name=OUTPUT)
    return w.nodes, list(w.constants.values())


def _pictures(w: Nodes) -> str:
    """`ptycho.triage.features.images`."""
    one, two, side = w.constant("one", 1.0), w.constant("two", 2.0), w.constant("side", float(SIDE))
    lift = w.constant("three_eighths", 0.375)
    axes = w.integers(1, 2)
    names = ("frames", "around", "usual")
    totals = [w.add("Add", w.add("ReduceSum", name, axes, keepdims=1), one) for name in names]
    pictures = [
        w.add("Mul", w.add("Sqrt", w.add("Div", name, total)), side)
        for name, total in zip(names, totals, strict=True)
    ]

    def root(x: str) -> str:
        return w.add("Mul", two, w.add("Sqrt", w.add("Add", x, lift)))

    own = root("frames")
    alike = [
        w.add("Mul", name, w.add("Div", totals[0], total))
        for name, total in zip(names[1:], totals[1:], strict=True)
    ]
    for model in ("around", *alike):
        z = w.add("Div", w.add("Sub", own, root(model)), "noise")
        pictures.append(w.add("Mul", w.add("Sign", z), w.add("Log", w.add("Add", w.add("Abs", z), one))))
    like_frames = w.add("Shape", "frames")
    channel = w.integers(1)
    whole = [w.add("Unsqueeze", w.add("Expand", picture, like_frames), channel) for picture in pictures]
    return w.add("Concat", *whole, axis=1)
