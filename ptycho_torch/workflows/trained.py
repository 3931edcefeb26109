"""A trained model as callers hold it, and its way to disk and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

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
from ptycho.scan.scan_set import KnownScan
from ptycho_torch.config_bridge import from_training_config
from ptycho_torch.layers import load_neutral_weights, neutral_weights
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.workflows.inference import predict_groups, reconstruct_container


class TrainedModel(NamedModel):
    """A network behind the call that clients know: `predict([X * intensity_scale, local_offsets])`."""

    def __init__(self, module: PtychoPINN_Lightning) -> None:
        self.module = module.eval()

    @property
    def intensity_scale(self) -> float:
        """The factor that callers multiply X by before `predict`."""
        return self.module.intensity_scale

    def for_scan(self, number: int) -> TrainedModel:
        """The network with the probe and scale of one of its training scans. ConfigError for no such scan."""
        state = trained_state(self.module).for_scan(number)
        return TrainedModel(module_of(state).to(self.module.device))

    def predict(self, inputs: Sequence[Any], batch_size: int = 64) -> np.ndarray:
        """Complex patches complex64 from [X * intensity_scale (B, N, N, C), local_offsets].

        Without offsets (B, N, N, C_out); with them the patches of each group merged: (B, N, N, 1). See
        `ptycho.clients.prediction.predict_scaled`.
        """
        return predict_scaled(
            inputs,
            self.module.config.model,
            self.intensity_scale,
            lambda x: predict_groups(self.module, torch.from_numpy(x)).cpu().numpy(),
            batch_size,
            window=self.module.complex_probe.detach().abs().square().sum(0).cpu().numpy(),
        )


def trained_state(module: PtychoPINN_Lightning) -> TrainedState:
    """Everything the module knows, as arrays on the CPU."""
    return TrainedState(
        config=module.config,
        weights={name: value.numpy() for name, value in neutral_weights(module.network).items()},
        scans=tuple(_known(module, number) for number in range(module.n_scans)),
    )


def _known(module: PtychoPINN_Lightning, number: int) -> KnownScan:
    x_scale, nphotons, factor = module.of_scan(module.gauge, number).tolist()
    probe = module.probe_of(number).detach().cpu().numpy()
    guess = torch.view_as_complex(module.guesses[number]).cpu().numpy() if module.n_scans > 1 else probe
    return KnownScan(
        probe=probe,
        x_scale=x_scale,
        nphotons=nphotons,
        probe_factor=factor,
        bad_pixels=module.of_scan(module.bad_pixels, number).cpu().numpy(),
        guess=guess,
        log_scale=module.of_scan(module.log_scale, number).item(),
    )


def save_trained(module: PtychoPINN_Lightning, directory: Path) -> Path:
    """Write `wts.h5.zip`: configuration, neutral weights, normalisation, probe, scale. Atomic."""
    return trained_state(module).save(directory, "pytorch")


def module_of(state: TrainedState, execution: PyTorchExecutionConfig | None = None) -> PtychoPINN_Lightning:
    """The Lightning module of a trained state, whichever backend trained it; else a ConfigError."""
    configs = from_training_config(state.config, execution or PyTorchExecutionConfig())
    data, model, training, inference = configs
    module = PtychoPINN_Lightning(model, data, training, inference)
    weights = {name: torch.from_numpy(np.array(value)) for name, value in state.weights.items()}
    load_neutral_weights(module.network, weights)
    module.attach_scans(state.scans)
    return module.eval()


def load_module(
    path: Path, choose: Callable[[TrainedState], TrainedState] = lambda state: state
) -> PtychoPINN_Lightning:
    """The Lightning module of a bundle (zip, its folder, or the unpacked contents), on the CPU.

    `choose` may take one scan's view of the state before the module is built.
    """
    state, execution = load_trained_state(path)
    chosen = choose(state)
    try:
        return module_of(chosen, execution)
    except ConfigError as error:
        raise BundleError(f"{path}: {error}") from None


def seeing(model: Path | TrainedModel, data: Scan, wanted: int | None = None) -> PtychoPINN_Lightning:
    """The module with which a model sees a scan: that of the training scan `wanted`, or else of the most
    similar one, see `TrainedState.for_data`."""
    if not isinstance(model, TrainedModel):
        return load_module(model, lambda state: state.for_data(data, wanted))
    if model.module.n_scans == 1 and wanted is None:
        return model.module
    return module_of(trained_state(model.module).for_data(data, wanted)).to(model.module.device)


def load_inference_bundle_torch(directory: Path) -> tuple[TrainedModel, dict[str, Any]]:
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
    """Reconstruct a scan with a trained model: (amplitude, phase, results), as `_reassemble_cdi_image_torch`.

    The normalisation is the training set's, that of its most similar scan where it has several, or of
    `config.trained_scan`; an object in the scan gives the canvas its shape. Results also hold `r_factor` and
    `r_per_pattern`: the stitched object re-diffracted at every position with the model's probe; and
    `to_counts`, the factor that makes the probe's power counts. Time linear in positions; memory: the scan
    once as float32, the canvas, one batch.
    """
    from ptycho_torch.training import resolve_accelerator

    config, execution = config or InferenceConfig(), execution_config or PyTorchExecutionConfig()
    raw = keep_patterns(raw, execution, config.output_dir)
    module = seeing(model, raw, config.trained_scan).eval()
    container = inference_container(
        raw, module.config, config, x_scale=module.x_scale, nphotons=module.nphotons
    )
    if canvas_shape is None and raw.objectGuess is not None:
        canvas_shape = raw.objectGuess.shape
    accelerator, _ = resolve_accelerator(execution)
    if accelerator != "cpu":
        module.to("cuda" if accelerator in ("auto", "gpu", "cuda") else accelerator)
    made = reconstruct_container(
        module,
        container,
        M=M,
        weighting=weighting,
        canvas_shape=canvas_shape,
        batch_size=execution.inference_batch_size,
        progress=progress,
    )
    amplitude, phase, results = as_outputs(made, container)
    results["to_counts"] = module.intensity_scale * math.exp(float(module.of_scan(module.log_scale).detach()))
    return amplitude, phase, {**results, **judged_by_data(made, container)}
