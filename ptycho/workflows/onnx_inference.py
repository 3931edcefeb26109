"""An exported model as inference takes it: onnxruntime predicts, the core does the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import InferenceConfig
from ptycho.errors import ConfigError
from ptycho.models.onnx_model import OnnxModel
from ptycho.run.reconstruction import Predictor


def predictor_of_onnx(model: OnnxModel, config: InferenceConfig) -> Predictor[NDArray[np.complex64]]:
    """An opened ONNX file as it sees a scan.

    Raises ConfigError for `trained_scan`, which was chosen when the model was written.
    """
    if config.trained_scan is not None:
        raise ConfigError(
            f"trained_scan = {config.trained_scan}: an ONNX model holds one scan's probe and scale; "
            "choose it when it is written, with ptycho export --trained_scan"
        )

    def predict(
        x: NDArray[np.float32], reference: NDArray[np.complex64] | None = None
    ) -> NDArray[np.complex64]:
        return model.predict(np.square(x / np.float32(model.x_scale)), reference)

    return Predictor(
        config=model.config,
        x_scale=model.x_scale,
        nphotons=model.nphotons,
        probe=model.probe,
        log_scale=model.log_scale,
        predict=predict,
    )
