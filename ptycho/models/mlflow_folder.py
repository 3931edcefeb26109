"""The bundle in the layout of MLflow: an address, `wts.h5.zip`, and the name of the module that opens it.

The model holds neither pickle nor code: MLflow imports the module from the installed package and gives it the
bundle, which is JSON and safetensors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptycho.models.trained_state import load_trained_state

#: the module whose `_load_pyfunc` opens the bundle; written into every saved model, so it never changes
LOADER = "ptycho.tracking.mlflow_model"


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
        loader_module=LOADER,
        data_path=str(bundle),
        signature=ModelSignature(
            inputs=Schema([TensorSpec(number, (-1, N, N, C))]),
            outputs=Schema([TensorSpec(number, (-1, N, N, -1), name) for name in ("real", "imag")]),
            params=ParamSchema([ParamSpec("trained_scan", DataType.long, 0)]),
        ),
        pip_requirements=["ptychopinn"],
    )
    return path
