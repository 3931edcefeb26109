"""From an exported model and a scan to one image: onnxruntime predicts, the core does the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import InferenceConfig, PyTorchExecutionConfig
from ptycho.errors import ConfigError
from ptycho.image.stitcher import Stitcher
from ptycho.models.onnx_model import OnnxModel, open_onnx
from ptycho.run.preparation import inference_container
from ptycho.run.reconstruction import as_outputs, judged_by_data, reconstruct
from ptycho.scan.pattern_store import keep_patterns
from ptycho.scan.raw_data import RawData


def infer_scan_onnx(
    model: Path | OnnxModel,
    raw: RawData,
    *,
    config: InferenceConfig | None = None,
    execution_config: PyTorchExecutionConfig | None = None,
    M: int | None = None,
    canvas_shape: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Any, Any, dict[str, Any]]:
    """Reconstruct a scan: (amplitude (H, W), phase (H, W) rad, results), as the backends' `infer_scan`.

    Results hold the same names, `r_factor` and `r_per_pattern` among them. An object in the scan gives the
    canvas its shape. Time linear in positions; memory: the scan once as float32, the canvas, one batch.
    Raises DataError where the scan does not fit the model, ConfigError for `trained_scan`, which was chosen
    when the model was written, and what `open_onnx` raises.
    """
    config, execution = config or InferenceConfig(), execution_config or PyTorchExecutionConfig()
    if config.trained_scan is not None:
        raise ConfigError(
            f"trained_scan = {config.trained_scan}: an ONNX model holds one scan's probe and scale; "
            "choose it when it is written, with ptycho export --trained_scan"
        )
    raw = keep_patterns(raw, execution, config.output_dir)
    opened = model if isinstance(model, OnnxModel) else open_onnx(model, execution)
    network = opened.config.model
    container = inference_container(
        raw, opened.config, config, x_scale=opened.x_scale, nphotons=opened.nphotons
    )
    if canvas_shape is None and raw.objectGuess is not None:
        canvas_shape = raw.objectGuess.shape

    def predict(x: NDArray[np.float32]) -> NDArray[np.complex64]:
        return opened.predict(np.square(x / np.float32(opened.x_scale)))

    made = reconstruct(
        container,
        opened.probe,
        predict,
        Stitcher,
        lambda patches: patches,
        one_patch_a_group=network.gridsize > 1 and not network.object_big,
        M=M,
        canvas_shape=canvas_shape,
        batch_size=execution.inference_batch_size,
        progress=progress,
    )
    amplitude, phase, results = as_outputs(made, container)
    state = opened.state
    results["to_counts"] = state["intensity_scale"] * math.exp(state["log_scale"])
    return amplitude, phase, {**results, **judged_by_data(made, container), "backend": "onnxruntime"}
