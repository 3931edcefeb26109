"""A bundle as a model for `mlflow models serve` and `mlflow.pyfunc.load_model`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.clients.trained_model import TrainedModel
from ptycho.errors import DataError
from ptycho.models.bundle import load_bundle
from ptycho.workflows.trained import open_bundle


class ServedModel:
    """What `mlflow models serve` and `mlflow.pyfunc.load_model` answer with: complex patches in two parts."""

    def __init__(self, model: TrainedModel) -> None:
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


def load_pyfunc(path: str) -> ServedModel:
    """What MLflow calls: opens the bundle at `path` in the backend that wrote it, which must be installed."""
    bundle = Path(path)
    return ServedModel(TrainedModel(open_bundle(bundle, load_bundle(bundle).backend)))
