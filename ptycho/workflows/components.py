"""The TensorFlow path under the names that clients import; see `ptycho.clients.workflow`.

It imports without TensorFlow, because clients import it to open bundles, which either backend does; what
needs TensorFlow says how to install it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptycho.clients import workflow as client
from ptycho.clients.results import Outputs
from ptycho.clients.workflow import reassemble_cdi_image as reassemble_cdi_image
from ptycho.config.settings import InferenceConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.report.outputs import save_outputs as save_outputs
from ptycho.run.preparation import Scan, Scans
from ptycho.run.preparation import ensure_container as create_ptycho_data_container
from ptycho.scan.raw_data import RawData
from ptycho.workflows.trained import save_trained as save_trained

__all__ = [
    "create_ptycho_data_container",
    "infer_scan",
    "load_inference_bundle",
    "reassemble_cdi_image",
    "run_cdi_example",
    "save_outputs",
    "save_trained",
    "train_cdi_model",
]

BACKEND = "tensorflow"


def train_cdi_model(
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    execution_config: PyTorchExecutionConfig | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train with TensorFlow, whatever `config.backend` is; see `ptycho.clients.workflow.train_cdi_model`."""
    return client.train_cdi_model(BACKEND, train_data, test_data, config, execution_config, **options)


def run_cdi_example(
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int | None = 20,
    do_stitching: bool = False,
    execution_config: PyTorchExecutionConfig | None = None,
    **options: Any,
) -> tuple[Any, Any, dict[str, Any]]:
    """Train, save and stitch with TensorFlow; see `ptycho.clients.workflow.run_cdi_example`."""
    return client.run_cdi_example(
        BACKEND,
        train_data,
        test_data,
        config,
        flip_x,
        flip_y,
        transpose,
        M,
        do_stitching,
        execution_config,
        **options,
    )


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
    """Reconstruct a scan in TensorFlow with a bundle (path) or a trained model: (amplitude, phase, results).

    See `ptycho.clients.workflow.infer_scan`.
    """
    return client.infer_scan(
        model,
        raw,
        backend=BACKEND,
        config=config,
        execution_config=execution_config,
        M=M,
        canvas_shape=canvas_shape,
        weighting=weighting,
        progress=progress,
    )


def load_inference_bundle(directory: Path, *, backend: str | None = None) -> tuple[Any, dict[str, Any]]:
    """(model with `.predict`, configuration under legacy names) of a bundle that either backend wrote.

    It is opened by the backend asked for, or else by the one that wrote it, see
    `ptycho.clients.workflow.backend_of_bundle`. Raises BundleError; MissingDependencyError where TensorFlow
    was asked for and is not there.
    """
    return client.load_inference_bundle(directory, client.backend_of_bundle(directory, backend))
