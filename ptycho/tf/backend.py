"""What TensorFlow supplies to `ptycho.backends`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.forward.seen import check_reference
from ptycho.models.trained_state import TrainedState
from ptycho.run.job import Fitted, Job
from ptycho.scan.scan_set import KnownScan
from ptycho.tf.layers import load_neutral_weights, neutral_weights
from ptycho.tf.model import PtychoPINN_Keras

Tensor = Any


class KerasBackend:
    """`ptycho.backends.Backend` with TensorFlow and Keras."""

    name = "tensorflow"

    def check(
        self, config: TrainingConfig, execution: PyTorchExecutionConfig, resume: Path | None = None
    ) -> None:
        """What only PyTorch does, refused; settings that change nothing here, named in the log."""
        from ptycho.tf.fit.run import check_execution

        check_execution(config, execution)

    def build(self, config: TrainingConfig, execution: PyTorchExecutionConfig) -> PtychoPINN_Keras:
        return PtychoPINN_Keras(config, precision=execution.precision)

    def build_to_predict(self, config: TrainingConfig) -> PtychoPINN_Keras:
        return self.build(config, PyTorchExecutionConfig())

    def load(self, model: PtychoPINN_Keras, state: TrainedState) -> None:
        self.load_weights(model, state.weights)
        model.attach_scans(state.scans)

    def load_weights(self, model: PtychoPINN_Keras, weights: Mapping[str, NDArray[Any]]) -> None:
        load_neutral_weights(model.network, weights)

    def fit(self, job: Job, model: PtychoPINN_Keras | None = None) -> Fitted[PtychoPINN_Keras]:
        from ptycho.tf.fit.run import fit

        return fit(job, model)

    def predict(
        self,
        model: PtychoPINN_Keras,
        x: NDArray[np.float32],
        scan: int = 0,
        reference: NDArray[np.complex64] | None = None,
    ) -> Tensor:
        if model.config.model.reference == "flat":
            return model.patches(tf.convert_to_tensor(x), tf.constant(scan, tf.int32))
        check_reference(reference)
        return model.patches(
            tf.convert_to_tensor(x), tf.constant(scan, tf.int32), tf.convert_to_tensor(reference)
        )

    def state(self, model: PtychoPINN_Keras) -> TrainedState:
        return TrainedState(
            config=model.config,
            weights=neutral_weights(model.network),
            scans=tuple(model.known_scans()),
        )

    def known_scan(self, model: PtychoPINN_Keras, scan: int) -> KnownScan:
        return model.known_scans()[scan]

    def placed(
        self, model: PtychoPINN_Keras, execution: PyTorchExecutionConfig
    ) -> AbstractContextManager[object]:
        from ptycho.tf.fit.run import resolve_device

        return resolve_device(execution)

    def has_gpu(self) -> bool:
        return bool(tf.config.list_physical_devices("GPU"))


BACKEND = KerasBackend()
