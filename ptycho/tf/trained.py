"""A trained model as callers hold it, and its way to disk and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.clients.legacy import dataclass_to_legacy_dict
from ptycho.clients.model_names import NamedModel, OpenedBundle
from ptycho.clients.prediction import predict_scaled
from ptycho.config.settings import InferenceConfig, PyTorchExecutionConfig
from ptycho.errors import BundleError, ConfigError
from ptycho.models.trained_state import TrainedState, load_trained_state
from ptycho.run.preparation import Scan, inference_container
from ptycho.run.reconstruction import as_outputs, judged_by_data
from ptycho.scan.pattern_store import keep_patterns
from ptycho.scan.raw_data import RawData
from ptycho.tf.inference import predict_groups, reconstruct_container
from ptycho.tf.layers import load_neutral_weights, neutral_weights
from ptycho.tf.model import PtychoPINN_Keras


class TrainedModel(NamedModel):
    """A network behind the call that clients know: `predict([X * intensity_scale, local_offsets])`."""

    backend = "tensorflow"

    def __init__(self, module: PtychoPINN_Keras) -> None:
        self.module = module

    @property
    def intensity_scale(self) -> float:
        """The factor that callers multiply X by before `predict`."""
        return self.module.intensity_scale

    def for_scan(self, number: int) -> TrainedModel:
        """The network with the probe and scale of one of its training scans. ConfigError for no such scan."""
        return TrainedModel(module_of(trained_state(self.module).for_scan(number)))

    def predict(self, inputs: Sequence[Any], batch_size: int = 64) -> NDArray[np.complex64]:
        """Complex patches complex64 from [X * intensity_scale (B, N, N, C), local_offsets].

        See `ptycho.clients.prediction.predict_scaled`.
        """
        return predict_scaled(
            inputs,
            self.module.config.model,
            self.intensity_scale,
            lambda x: np.asarray(predict_groups(self.module, x)),
            batch_size,
            window=np.sum(np.abs(np.asarray(self.module.complex_probe)) ** 2, 0),
        )


def trained_state(module: PtychoPINN_Keras) -> TrainedState:
    """Everything the model knows, as arrays."""
    return TrainedState(
        config=module.config,
        weights=neutral_weights(module.network),
        scans=tuple(module.known_scans()),
    )


def save_trained(module: PtychoPINN_Keras, directory: Path) -> Path:
    """Write `wts.h5.zip`: configuration, neutral weights, normalisation, probe, scale. Atomic."""
    return trained_state(module).save(directory, "tensorflow")


def module_of(state: TrainedState) -> PtychoPINN_Keras:
    """The Keras model of a trained state, whichever backend trained it; ConfigError where it cannot be."""
    module = PtychoPINN_Keras(state.config)
    load_neutral_weights(module.network, state.weights)
    module.attach_scans(state.scans)
    return module


def load_module(
    path: Path, choose: Callable[[TrainedState], TrainedState] = lambda state: state
) -> PtychoPINN_Keras:
    """The Keras model of a bundle (zip, its folder, or the unpacked contents), whichever backend wrote it.

    `choose` may take one scan's view of the state before the model is built.
    """
    state, _ = load_trained_state(path)
    chosen = choose(state)
    try:
        return module_of(chosen)
    except ConfigError as error:
        raise BundleError(f"{path}: {error}") from None


def seeing(model: Path | TrainedModel, data: Scan, wanted: int | None = None) -> PtychoPINN_Keras:
    """The Keras model with which a model sees a scan: that of the training scan `wanted`, or else of the most
    similar one, see `TrainedState.for_data`."""
    if not isinstance(model, TrainedModel):
        return load_module(model, lambda state: state.for_data(data, wanted))
    if model.module.n_scans == 1 and wanted is None:
        return model.module
    return module_of(trained_state(model.module).for_data(data, wanted))


def load_inference_bundle_tf(directory: Path) -> tuple[TrainedModel, dict[str, Any]]:
    """(model with `.predict`, configuration under legacy names) of a bundle; params.cfg follows it."""
    from ptycho.clients import params

    model = TrainedModel(load_module(directory))
    legacy = dataclass_to_legacy_dict(model.module.config)
    legacy["intensity_scale"] = model.intensity_scale
    params.cfg.update(legacy)
    return OpenedBundle((model, legacy))


def infer_scan(
    model: Path | TrainedModel,
    raw: RawData,
    *,
    config: InferenceConfig | None = None,
    execution_config: PyTorchExecutionConfig | None = None,
    M: int | None = None,
    canvas_shape: tuple[int, int] | None = None,
    weighting: str = "probe",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Any, Any, dict[str, Any]]:
    """Reconstruct a scan with a trained model: (amplitude, phase, results), as `reassemble_cdi_image`.

    The normalisation is the training set's, that of its most similar scan where it has several, or of
    `config.trained_scan`; an object in the scan gives the canvas its shape. Results also hold `r_factor` and
    `r_per_pattern`: the stitched object re-diffracted at every position with the model's probe; and
    `to_counts`, the factor that makes the probe's power counts. Time linear in positions; memory: the scan
    once as float32, the canvas, one batch.
    """
    from ptycho.tf.training import resolve_device

    config, execution = config or InferenceConfig(), execution_config or PyTorchExecutionConfig()
    raw = keep_patterns(raw, execution, config.output_dir)
    module = seeing(model, raw, config.trained_scan)
    container = inference_container(
        raw, module.config, config, x_scale=module.x_scale, nphotons=module.nphotons
    )
    if canvas_shape is None and raw.objectGuess is not None:
        canvas_shape = raw.objectGuess.shape
    with resolve_device(execution):
        made = reconstruct_container(
            module,
            container,
            M=M,
            canvas_shape=canvas_shape,
            weighting=weighting,
            batch_size=execution.inference_batch_size,
            progress=progress,
        )
    amplitude, phase, results = as_outputs(made, container)
    results["to_counts"] = module.intensity_scale * math.exp(float(module.of_scan(module.log_scale)))
    return amplitude, phase, {**results, **judged_by_data(made, container)}
