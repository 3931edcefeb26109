"""The probe a run starts from: refined in sweeps or the file's own, then masked and smoothed if asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import TrainingConfig
from ptycho.errors import DataError
from ptycho.run.preparation import Grouped
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.normalization import normalize_probe
from ptycho.scan.probe import probe_mask
from ptycho.scan.scan_set import KnownScan, ScanSet

log = logging.getLogger(__name__)

#: (container, modes, wanted number of modes, configuration, progress) -> modes
Refinement = Callable[
    [PtychoDataContainer, NDArray[Any], int, TrainingConfig, Callable[[int, int], None] | None], NDArray[Any]
]

#: with fewer positions, probe and object cannot be told apart
MIN_POSITIONS = 9


@dataclass(frozen=True)
class StartingProbe:
    """`modes` (P, N, N) complex64 in the network's gauge; `factor` took the absolute probe there."""

    modes: NDArray[np.complex64]
    factor: float

    def known(self, container: PtychoDataContainer) -> KnownScan:
        """What a model knows of a training scan that starts from this probe."""
        return KnownScan.of(container, self.modes, self.factor)


#: the probes of all scans of a run, in their order
Starts = tuple[StartingProbe, ...]


def starting_probes(
    scans: Grouped,
    config: TrainingConfig,
    refine: Refinement,
    progress: Callable[[int, int], None] | None = None,
) -> Starts:
    """`starting_probe` of every training scan, from its own file and its own patterns."""
    containers = ScanSet.of(scans).containers
    made = []
    for number, one in enumerate(containers):
        if len(containers) > 1:
            log.info("training scan %d of %d: %d patterns", number, len(containers), len(one.patterns))
        made.append(starting_probe(one, config, refine, progress))
    return tuple(made)


def starting_probe(
    container: PtychoDataContainer,
    config: TrainingConfig,
    refine: Refinement,
    progress: Callable[[int, int], None] | None = None,
) -> StartingProbe:
    """Choose modes, refine if asked, mask, smooth, normalise: in this order.

    `refine` runs the sweeps of the iterative engine, the same one for both backends:
    `ptycho_torch.refine.starting.refined_modes`. Time: nothing, or `probe_refine_sweeps` sweeps (seconds);
    memory: the scan twice. DataError where more modes are asked for than the file has and nothing is there to
    find them. Scans of fewer than nine positions keep the file's probe.
    """
    modes = container.probe
    wanted = config.probe_modes or len(modes)
    sweeps = config.probe_from == "refine"
    if sweeps and len(container.patterns) < MIN_POSITIONS:
        log.info("%d positions do not tell probe from object: the file's is kept", len(container.patterns))
        sweeps = False
    if wanted > len(modes) and not sweeps:
        raise DataError(
            f"probe_modes = {wanted}, but the file has {len(modes)}: "
            "use --probe_from refine to find the others"
        )
    modes = modes[:wanted]
    if sweeps:
        modes = refine(container, modes, wanted, config, progress)
    model = config.model
    if model.probe_mask:
        modes = modes * probe_mask(container.N, model.probe_mask_sigma, model.probe_mask_diameter)
    if model.gaussian_smoothing_sigma:
        from scipy.ndimage import gaussian_filter

        sigma = (0, model.gaussian_smoothing_sigma, model.gaussian_smoothing_sigma)
        modes = gaussian_filter(modes.real, sigma) + 1j * gaussian_filter(modes.imag, sigma)
    normalised, factor = normalize_probe(modes, model.probe_scale)
    return StartingProbe(normalised, factor)
