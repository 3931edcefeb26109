"""Trained models of PyTorch under the names that clients and scripts import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptycho.clients import workflow as client
from ptycho.clients.results import Outputs
from ptycho.clients.trained_model import TrainedModel as TrainedModel
from ptycho.config.settings import InferenceConfig, PyTorchExecutionConfig
from ptycho.scan.raw_data import RawData
from ptycho.workflows.trained import save_trained as save_trained


def load_inference_bundle_torch(directory: Path) -> tuple[TrainedModel, dict[str, Any]]:
    """(model with `.predict`, configuration under legacy names) of a bundle; params.cfg follows it."""
    return client.load_inference_bundle(directory, "pytorch")


def infer_scan(
    model: Any,
    raw: RawData,
    *,
    config: InferenceConfig | None = None,
    execution_config: PyTorchExecutionConfig | None = None,
    M: int | None = None,
    canvas_shape: tuple[int, int] | None = None,
    weighting: str = "probe",
    progress: Callable[[int, int], None] | None = None,
) -> Outputs:
    """Reconstruct a scan with a bundle (path) or a model; see `ptycho.clients.workflow.infer_scan`."""
    return client.infer_scan(
        model,
        raw,
        backend="pytorch",
        config=config,
        execution_config=execution_config,
        M=M,
        canvas_shape=canvas_shape,
        weighting=weighting,
        progress=progress,
    )
