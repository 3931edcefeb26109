"""The probe that training starts from: some sweeps of the engine from a flat object."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptycho.config.config import TrainingConfig
from ptycho.loader import PtychoDataContainer
from ptycho_torch.refine import refine_probe

log = logging.getLogger(__name__)


def refined_modes(
    container: PtychoDataContainer,
    modes: NDArray[np.complex64],
    wanted: int,
    config: TrainingConfig,
    progress: Callable[[int, int], None] | None,
) -> NDArray[np.complex64]:
    """The probe after some sweeps from a flat object, in the gauge of the container's absolute amplitudes."""
    refined = refine_probe(
        container.patterns / np.float32(container.x_scale),
        container.positions_px,
        modes,
        unit="amplitude",
        epochs=config.probe_refine_sweeps,
        seed=config.seed,
        bad_pixels=container.bad_pixels,
        progress=progress,
        modes=wanted,
    )
    log.info("probe refined in %d sweeps: R %.4f", config.probe_refine_sweeps, refined.history[-1]["r"])
    return np.asarray(refined.probe, np.complex64).reshape(-1, container.N, container.N)
