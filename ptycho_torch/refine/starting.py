"""The first probe of a training: from some sweeps of the engine on a flat object."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import TrainingConfig
from ptycho.io.lazy import Patterns, as_lazy
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.pattern_store import is_on_disk
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
    to_amplitude = np.float32(container.x_scale)
    amplitude: Patterns = (
        as_lazy(container.patterns).map(lambda part: part / to_amplitude, np.float32)
        if is_on_disk(container.patterns)
        else container.patterns / to_amplitude
    )
    refined = refine_probe(
        amplitude,
        container.positions_px,
        modes,
        unit="amplitude",
        epochs=config.probe_refine_sweeps,
        seed=config.seed,
        bad_pixels=container.bad_pixels,
        progress=progress,
        modes=wanted,
        scratch_folder=container.scratch_folder,
        # the loop with one level: with two, a network that was trained afterwards had the poorer image
        start="flat",
        levels=1,
        prior="none",
    )
    log.info("probe refined in %d sweeps: R %.4f", config.probe_refine_sweeps, refined.history[-1]["r"])
    return np.asarray(refined.probe, np.complex64).reshape(-1, container.N, container.N)
