"""A trained model as callers hold it, and its way to disk and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptycho.bundle import load_bundle, save_bundle
from ptycho.config.config import (
    InferenceConfig,
    PyTorchExecutionConfig,
    dataclass_to_legacy_dict,
    resolve_n_groups,
)
from ptycho.errors import BundleError, ConfigError, DataError
from ptycho.evaluation.rfactor import r_factor
from ptycho.loader import PtychoDataContainer
from ptycho.raw_data import RawData
from ptycho_torch.config_bridge import from_training_config
from ptycho_torch.layers import load_neutral_weights, neutral_weights
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.workflows.inference import predict_groups, reconstruct_container


class TrainedModel:
    """A network behind the call that clients know: `predict([X * intensity_scale, local_offsets])`."""

    def __init__(self, module: PtychoPINN_Lightning) -> None:
        self.module = module.eval()

    @property
    def intensity_scale(self) -> float:
        """The factor that callers multiply X by before `predict`."""
        return self.module.intensity_scale

    def predict(self, inputs: Sequence[Any], batch_size: int = 64) -> np.ndarray:
        """Complex patches (B, N, N, C_out) complex64 from [X * intensity_scale (B, N, N, C), local_offsets].

        The offsets belong to the merge of training and are not needed here; they may be left out.
        """
        scaled = np.asarray(inputs[0], np.float32)
        model = self.module.config.model
        wanted = (model.N, model.N, model.gridsize**2)
        if scaled.ndim != 4 or scaled.shape[1:] != wanted:
            raise DataError(
                f"predict: input has shape {scaled.shape}; this model takes "
                f"(B, {wanted[0]}, {wanted[1]}, {wanted[2]})"
            )
        x = np.ascontiguousarray(np.moveaxis(scaled, -1, 1)) / np.float32(self.intensity_scale)
        parts = [
            predict_groups(self.module, torch.from_numpy(x[i : i + batch_size])).cpu().numpy()
            for i in range(0, len(x), batch_size)
        ]
        return np.moveaxis(np.concatenate(parts), 1, -1)


def save_trained(module: PtychoPINN_Lightning, directory: Path) -> Path:
    """Write `wts.h5.zip`: configuration, neutral weights, normalisation, probe, scale. Atomic."""
    config = dataclasses.asdict(module.config)
    gauge = module.gauge.tolist()
    state = {
        "x_scale": gauge[0],
        "nphotons": gauge[1],
        "probe_factor": gauge[2],
        "intensity_scale": module.intensity_scale,
        "log_scale": module.log_scale.item(),
        "N": module.config.model.N,
        "gridsize": module.config.model.gridsize,
    }
    weights = {name: value.numpy() for name, value in neutral_weights(module.network).items()}
    extra = {
        "probe": module.complex_probe.detach().cpu().numpy(),
        "bad_pixels": module.bad_pixels.cpu().numpy(),
    }
    return save_bundle(
        directory, weights=weights, config=config, state=state, backend="pytorch", extra_arrays=extra
    )


def load_module(path: Path) -> PtychoPINN_Lightning:
    """The Lightning module of a bundle (zip, its folder, or the unpacked contents), on the CPU."""
    from ptycho.config.yaml_io import training_config_from

    bundle = load_bundle(Path(path))
    try:
        config, execution = training_config_from(bundle.config, source=str(path))
        data, model, training, inference = from_training_config(config, execution)
        module = PtychoPINN_Lightning(model, data, training, inference)
        weights = {name: torch.from_numpy(np.array(value)) for name, value in bundle.weights.items()}
        load_neutral_weights(module.network, weights)
        state, extra = bundle.state, bundle.extra_arrays
        module.attach_scan(
            extra["probe"],
            x_scale=state["x_scale"],
            nphotons=state["nphotons"],
            probe_factor=state["probe_factor"],
            bad_pixels=extra.get("bad_pixels"),
        )
        with torch.no_grad():
            module.log_scale.fill_(state["log_scale"])
    except KeyError as error:
        raise BundleError(
            f"{path}: the bundle lacks {error.args[0]!r}; was it written by this package?"
        ) from None
    except ConfigError as error:
        raise BundleError(f"{path}: {error}") from None
    return module.eval()


def load_inference_bundle_torch(directory: Path) -> tuple[TrainedModel, dict[str, Any]]:
    """(model with `.predict`, configuration under legacy names) of a bundle; params.cfg follows it."""
    from ptycho import params

    model = TrainedModel(load_module(directory))
    legacy = dataclass_to_legacy_dict(model.module.config)
    legacy["intensity_scale"] = model.intensity_scale
    params.cfg.update(legacy)
    return model, legacy


def infer_scan(
    model: Path | TrainedModel,
    raw: RawData,
    *,
    config: InferenceConfig | None = None,
    execution_config: PyTorchExecutionConfig | None = None,
    M: int | None = None,
    canvas_shape: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Any, Any, dict[str, Any]]:
    """Reconstruct a scan with a trained model: (amplitude, phase, results), as `_reassemble_cdi_image_torch`.

    The normalisation is the training set's; an object in the scan gives the canvas its shape. Results also
    hold `r_factor` and `r_per_pattern`: the stitched object re-diffracted at every position with the model's
    probe. Time linear in positions; memory: the scan once as float32, the canvas, one batch.
    """
    from ptycho_torch.training import resolve_accelerator
    from ptycho_torch.workflows.components import as_outputs

    config, execution = config or InferenceConfig(), execution_config or PyTorchExecutionConfig()
    module = (model if isinstance(model, TrainedModel) else TrainedModel(load_module(model))).module
    trained = module.config
    if raw.N != trained.model.N:
        raise DataError(
            f"the patterns are {raw.N} x {raw.N} px, the model was trained on {trained.model.N}: "
            "train one for this size"
        )
    seed = config.subsample_seed or 0
    container = PtychoDataContainer.from_raw(
        raw.subsample(config.n_subsample, seed),
        trained.model.gridsize,
        n_groups=resolve_n_groups(config),
        n_neighbors=max(config.neighbor_count, trained.model.gridsize**2 - 1),
        seed=seed,
        enable_oversampling=config.enable_oversampling,
        neighbor_pool_size=config.neighbor_pool_size,
        x_scale=module.x_scale,
        nphotons=float(module.gauge[1]),
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
        canvas_shape=canvas_shape,
        batch_size=execution.inference_batch_size,
        progress=progress,
    )
    amplitude, phase, results = as_outputs(made, container)
    agreement = r_factor(
        made.image.object,
        made.probe,
        container.positions_px[:, 0],
        container.positions_px[:, 1],
        container.patterns,
        origin_xy=made.image.frame.origin_xy,
        bad_pixels=container.bad_pixels,
    )
    results.update(r_factor=agreement.whole, r_per_pattern=agreement.per_pattern)
    return amplitude, phase, results
