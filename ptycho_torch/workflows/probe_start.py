"""The probe a run starts from: the file's, masked and smoothed as configured, or refined first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho.config.config import TrainingConfig
from ptycho.errors import DataError
from ptycho.normalization import normalize_probe
from ptycho.probe import probe_mask
from ptycho.raw_data import RawData

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartingProbe:
    """`modes` (P, N, N) complex64 in the network's gauge; `factor` took the absolute probe there."""

    modes: NDArray[np.complex64]
    factor: float


def starting_probe(
    raw: RawData, config: TrainingConfig, progress: Callable[[int, int], None] | None = None
) -> StartingProbe:
    """Choose modes, refine if asked, mask, smooth, normalise: in this order.

    Time: nothing, or `probe_refine_sweeps` sweeps of the iterative engine (seconds); memory: the scan twice.
    DataError where more modes are asked for than the file has and nothing is there to find them.
    """
    modes = raw.probe_modes
    wanted = config.probe_modes or len(modes)
    if config.probe_from == "refine":
        from ptycho_torch.refine import refine_probe

        refined = refine_probe(
            raw.amplitude(),
            raw.positions_px,
            modes[:wanted],
            unit="amplitude",
            epochs=config.probe_refine_sweeps,
            seed=config.seed,
            bad_pixels=raw.bad_pixels,
            progress=progress,
            modes=wanted,
        )
        modes = np.asarray(refined.probe).reshape(-1, raw.N, raw.N)
        log.info("probe refined in %d sweeps: R %.4f", config.probe_refine_sweeps, refined.history[-1]["r"])
    elif wanted > len(modes):
        raise DataError(
            f"probe_modes = {wanted}, but the file has {len(modes)}: "
            "use --probe_from refine to find the others"
        )
    modes = modes[:wanted].astype(np.complex64)
    model = config.model
    if model.probe_mask:
        modes = modes * probe_mask(raw.N, model.probe_mask_sigma, model.probe_mask_diameter)
    if model.gaussian_smoothing_sigma:
        from scipy.ndimage import gaussian_filter

        sigma = (0, model.gaussian_smoothing_sigma, model.gaussian_smoothing_sigma)
        modes = gaussian_filter(modes.real, sigma) + 1j * gaussian_filter(modes.imag, sigma)
    normalised, factor = normalize_probe(modes, model.probe_scale)
    return StartingProbe(normalised, factor)
