"""A trained network behind the call that clients know: `predict([X * intensity_scale, local_offsets])`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.backends import Network, predictor_of
from ptycho.clients.model_names import NamedModel
from ptycho.clients.prediction import predict_scaled
from ptycho.workflows.trained import for_scan


class TrainedModel(NamedModel):
    """A model of either backend; `module` is the backend's own object."""

    def __init__(self, module: Any) -> None:
        self.module: Any = module

    @property
    def backend(self) -> str:
        """The backend that the model runs in."""
        name: str = self.module.backend
        return name

    @property
    def intensity_scale(self) -> float:
        """The factor that callers multiply X by before `predict`."""
        scale: float = self.module.intensity_scale
        return scale

    def for_scan(self, number: int) -> TrainedModel:
        """The network with the probe and scale of one of its training scans. ConfigError for no such scan."""
        return TrainedModel(for_scan(self.module, number))

    def predict(self, inputs: Sequence[Any], batch_size: int = 64) -> NDArray[np.complex64]:
        """Complex patches complex64 from [X * intensity_scale (B, N, N, C), local_offsets].

        Without offsets (B, N, N, C_out); with them the patches of each group merged: (B, N, N, 1). See
        `ptycho.clients.prediction.predict_scaled`.
        """
        seen = predictor_of(self.module)
        return predict_scaled(
            inputs,
            seen.config.model,
            self.intensity_scale,
            lambda x: np.asarray(seen.predict(x)),
            batch_size,
            window=np.sum(np.square(np.abs(seen.probe)), 0),
        )


def network_of(model: Any) -> Network:
    """The model of what a client passes: a `TrainedModel`, or a backend's own."""
    network: Network = model.module if isinstance(model, TrainedModel) else model
    return network
