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


def reconstruction_outputs(made: Reconstruction) -> Outputs:
    """(amplitude, phase, results); `r_factor` and `r_per_pattern` where the image was judged."""
    amplitude, phase = np.abs(made.object), np.angle(made.object)
    results: dict[str, Any] = {
        "obj_tensor_full": made.patches,
        "global_offsets": made.global_offsets,
        "coords_nominal": made.coords_nominal,
        "recon_amp": amplitude,
        "recon_phase": phase,
        "object": made.object,
        "coverage": made.image.coverage,
        "origin_xy": made.origin_xy,
        "probe": made.probe,
        "positions_px": made.positions_px,
        "groups_per_s": made.groups_per_s,
        "to_counts": made.to_counts,
    }
    if made.agreement is not None:
        results |= {"r_factor": made.agreement.whole, "r_per_pattern": made.agreement.per_pattern}
    return amplitude, phase, results


def training_results(made: TrainingResult) -> dict[str, Any]:
    """`history`, `models` (the backend's own under 'diffraction_to_obj', with `predict` under 'autoencoder'),
    `train_container`, `test_container`, `intensity_scale`, `config`, `backend`, `recorder`."""
    return {
        "history": made.history,
        "models": {"diffraction_to_obj": made.model, "autoencoder": TrainedModel(made.model)},
        "train_container": made.train,
        "test_container": made.test,
        "intensity_scale": made.model.intensity_scale,
        "config": made.config,
        "backend": made.model.backend,
        "recorder": made.recorder,
    }


def run_outputs(made: RunResult) -> tuple[Any, Any, dict[str, Any]]:
    """(amplitude or None, phase or None, results) of a whole job."""
    results = {**training_results(made.trained), "execution_config": made.trained.execution}
    if made.bundle is not None:
        results["bundle"] = made.bundle
    if made.image is None:
        return None, None, results
    amplitude, phase, more = reconstruction_outputs(made.image)
    return amplitude, phase, {**results, **more}
