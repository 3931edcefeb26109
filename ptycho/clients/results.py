"""Typed results as the mappings that clients know, made at their door."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.clients.trained_model import TrainedModel
from ptycho.run.reconstruction import Reconstruction
from ptycho.workflows.run import RunResult
from ptycho.workflows.train import TrainingResult

#: (amplitude (H, W), phase (H, W) rad, results by name)
Outputs = tuple[NDArray[np.float32], NDArray[np.float32], dict[str, Any]]


def reconstruction_outputs(reconstruction: Reconstruction) -> Outputs:
    """(amplitude, phase, results); `r_factor` and `r_per_pattern` where the image was judged."""
    amplitude, phase = np.abs(reconstruction.object), np.angle(reconstruction.object)
    results: dict[str, Any] = {
        "obj_tensor_full": reconstruction.patches,
        "global_offsets": reconstruction.global_offsets,
        "coords_nominal": reconstruction.coords_nominal,
        "recon_amp": amplitude,
        "recon_phase": phase,
        "object": reconstruction.object,
        "coverage": reconstruction.image.coverage,
        "origin_xy": reconstruction.origin_xy,
        "probe": reconstruction.probe,
        "positions_px": reconstruction.positions_px,
        "groups_per_s": reconstruction.groups_per_s,
        "to_counts": reconstruction.to_counts,
    }
    if reconstruction.agreement is not None:
        results |= {
            "r_factor": reconstruction.agreement.whole,
            "r_per_pattern": reconstruction.agreement.per_pattern,
        }
    return amplitude, phase, results


def training_results(training: TrainingResult) -> dict[str, Any]:
    """`history`, `models` (the backend's own under 'diffraction_to_obj', with `predict` under 'autoencoder'),
    `train_container`, `test_container`, `intensity_scale`, `config`, `backend`, `recorder`."""
    return {
        "history": training.history,
        "models": {"diffraction_to_obj": training.model, "autoencoder": TrainedModel(training.model)},
        "train_container": training.train,
        "test_container": training.test,
        "intensity_scale": training.model.intensity_scale,
        "config": training.config,
        "backend": training.model.backend,
        "recorder": training.recorder,
    }


def run_outputs(run: RunResult) -> tuple[Any, Any, dict[str, Any]]:
    """(amplitude or None, phase or None, results) of a whole job."""
    results = {**training_results(run.trained), "execution_config": run.trained.execution}
    if run.bundle is not None:
        results["bundle"] = run.bundle
    if run.image is None:
        return None, None, results
    amplitude, phase, more = reconstruction_outputs(run.image)
    return amplitude, phase, {**results, **more}
