"""The bundle as a model that MLflow serves: an address, `wts.h5.zip`, and the name of this module.

No pickle and no code travels with the model: MLflow imports this module from the installed package and hands
it the bundle, which is JSON and safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.models.trained_state import load_trained_state


class ServedModel:
    """What `mlflow models serve` and `mlflow.pyfunc.load_model` answer with: complex patches in two parts."""

    def __init__(self, model: Any) -> None:
        self._of_scan = {0: model}

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, NDArray[Any]]:
        """`real` and `imag`, each (B, N, N, C_out) float32, of the patches for (B, N, N, C) float32: measured
        amplitude in the gauge of `TrainedModel.predict`, that is X * intensity_scale.

        `params` may hold `trained_scan`, the number of the training scan whose probe and scale the patterns
        are seen with (default 0). One patch for each pattern of a group, not merged. Raises DataError for
        another shape, ConfigError for a scan that the model does not know.
        """
        number = int((params or {}).get("trained_scan", 0))
        if number not in self._of_scan:
            self._of_scan[number] = self._of_scan[0].for_scan(number)
        try:
            scaled = np.asarray(model_input, np.float32)
        except (TypeError, ValueError):
            raise DataError("inputs must be one array of numbers (B, N, N, C)") from None
        patches = self._of_scan[number].predict([scaled])
        return {"real": np.ascontiguousarray(patches.real), "imag": np.ascontiguousarray(patches.imag)}


def _load_pyfunc(path: str) -> ServedModel:
    """MLflow's door: the bundle at `path` in the backend that wrote it, which must be installed."""
    workflow = import_module("ptycho.workflows.backend_selector")
    return ServedModel(workflow.load_inference_bundle_with_backend(Path(path))[0])


def save_model(path: Path, bundle: Path) -> Path:
    """Write the folder of an MLflow model around a copy of the bundle; needs the package mlflow.

    Raises BundleError where the bundle cannot be read.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    state, _ = load_trained_state(bundle)
    N, C = state.config.model.N, state.config.model.gridsize**2
    number = np.dtype(np.float32)
    mlflow.pyfunc.save_model(
        path=str(path),
        loader_module=__name__,
        data_path=str(bundle),
        signature=ModelSignature(
            inputs=Schema([TensorSpec(number, (-1, N, N, C))]),
            outputs=Schema([TensorSpec(number, (-1, N, N, -1), name) for name in ("real", "imag")]),
            params=ParamSchema([ParamSpec("trained_scan", DataType.long, 0)]),
        ),
        pip_requirements=["ptychopinn"],
    )
    return path
