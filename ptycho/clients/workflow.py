"""The workflow as clients call it: legacy names, mappings as results, `params.cfg` that follows.

Every function takes the backend; `ptycho.workflows.components`, `ptycho_torch.workflows.components` and
`ptycho.workflows.backend_selector` give them the names that clients import.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

from ptycho import backends
from ptycho.backends import Network
from ptycho.clients import model_manager, params
from ptycho.clients.legacy import dataclass_to_legacy_dict, update_legacy_dict
from ptycho.clients.model_names import OpenedBundle
from ptycho.clients.results import Outputs, reconstruction_outputs, run_outputs, training_results
from ptycho.clients.trained_model import TrainedModel, network_of
from ptycho.config.settings import (
    InferenceConfig,
    PyTorchExecutionConfig,
    TrainingConfig,
)
from ptycho.errors import ConfigError
from ptycho.models.bundle import load_bundle
from ptycho.run.preparation import Scan, Scans
from ptycho.scan.raw_data import RawData
from ptycho.workflows import infer as inference
from ptycho.workflows import run as whole
from ptycho.workflows import train as training
from ptycho.workflows import trained

log = logging.getLogger(__name__)
#: makes the model of a run, where a client's is another than the backend's own
Build = Callable[[TrainingConfig, PyTorchExecutionConfig], Network]


def _trained(
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    execution_config: PyTorchExecutionConfig | None,
    build: Build | None,
    **options: Unpack[training.Options],
) -> training.TrainingResult:
    job = training.prepare(train_data, test_data, config, execution_config, **options)
    update_legacy_dict(params.cfg, config)
    made = training.fit(job, None if build is None else build(job.config, job.execution))
    params.cfg["intensity_scale"] = made.model.intensity_scale
    model_manager.remember(lambda folder: trained.save_trained(made.model, folder))
    return made


def train_cdi_model(
    backend: str,
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    execution_config: PyTorchExecutionConfig | None = None,
    *,
    build: Build | None = None,
    **options: Unpack[training.Options],
) -> dict[str, Any]:
    """`ptycho.workflows.train.train` with the results of `training_results`; the model is remembered for
    `model_manager.save`. Options: `resume`, `progress`, `probe_progress`."""
    config = dataclasses.replace(config, backend=backend)
    return training_results(_trained(train_data, test_data, config, execution_config, build, **options))


def run_cdi_example(
    backend: str,
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int | None = 20,
    do_stitching: bool = False,
    execution_config: PyTorchExecutionConfig | None = None,
    *,
    build: Build | None = None,
    **options: Unpack[training.Options],
) -> tuple[Any, Any, dict[str, Any]]:
    """Train, save the bundle where an output directory is set, and stitch if asked: `ptycho.workflows.run`.

    Returns (amplitude or None, phase or None, results).
    """
    config = dataclasses.replace(config, backend=backend)
    made = _trained(train_data, test_data, config, execution_config, build, **options)
    stitch = inference.Placing(flip_x, flip_y, transpose, M=M) if do_stitching else None
    amplitude, phase, results = run_outputs(whole.finish(made, train_data, test_data, config, stitch=stitch))
    return amplitude, phase, {**results, "execution_config": execution_config}


def reassemble_cdi_image(
    test_data: Scan,
    config: TrainingConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int | None = 20,
    coord_scale: float = 1.0,
    *,
    train_results: dict[str, Any] | None = None,
    canvas_shape: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outputs:
    """Predict every group and stitch: (amplitude (H, W), phase (H, W), results).

    See `ptycho.workflows.infer.Placing` for the flags. Results: `obj_tensor_full` (K, N, N) patches,
    `global_offsets`, `coords_nominal`, `recon_amp`, `recon_phase`, `coverage`, `origin_xy`, `object`.
    """
    if train_results is None or "models" not in train_results:
        raise ConfigError("no trained model: pass train_results, as train_cdi_model returns it")
    made = inference.reassemble(
        network_of(train_results["models"]["diffraction_to_obj"]),
        test_data,
        config,
        train_results.get("execution_config"),
        inference.Placing(flip_x, flip_y, transpose, coord_scale, M, canvas_shape),
        progress=progress,
    )
    return reconstruction_outputs(made)


def infer_scan(
    model: Path | TrainedModel | Network,
    raw: RawData,
    *,
    backend: str = "pytorch",
    config: InferenceConfig | None = None,
    execution_config: PyTorchExecutionConfig | None = None,
    **options: Any,
) -> Outputs:
    """Reconstruct a scan: (amplitude, phase, results) of `ptycho.workflows.infer.infer`.

    Options: `M`, `canvas_shape`, `weighting`, `progress`.
    """
    given = Path(model) if isinstance(model, (str, Path)) else network_of(model)
    made = inference.infer(given, raw, config, execution_config, backend=backend, **options)
    return reconstruction_outputs(made)


def load_inference_bundle(directory: Path, backend: str) -> tuple[TrainedModel, dict[str, Any]]:
    """(model with `.predict`, configuration under legacy names) of a bundle; params.cfg follows it."""
    model = TrainedModel(trained.open_bundle(Path(directory), backend))
    legacy = dataclass_to_legacy_dict(model.module.config)
    legacy["intensity_scale"] = model.intensity_scale
    params.cfg.update(legacy)
    return OpenedBundle((model, legacy))


def backend_of_bundle(directory: Path, wanted: str | None = None) -> str:
    """The backend asked for, or else the one that wrote the bundle; a TensorFlow bundle where TensorFlow is
    not installed opens in PyTorch, with a warning in the log, because both compute the same."""
    chosen = wanted or load_bundle(Path(directory)).backend
    if wanted is None and chosen == "tensorflow" and not backends.is_installed(chosen):
        log.warning("%s: trained in TensorFlow, which is not installed: opened in PyTorch", directory)
        return "pytorch"
    return chosen
