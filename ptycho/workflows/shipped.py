"""The network that ships as a scan sees it: its weights, and the probe and the numbers of the scan itself."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ptycho import backends
from ptycho.config.settings import TrainingConfig
from ptycho.models.shipped import shipped_model, shipped_weights
from ptycho.models.trained_state import TrainedState
from ptycho.run.starting_probe import MIN_POSITIONS
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.normalization import normalize_probe
from ptycho.scan.raw_data import RawData
from ptycho.scan.scan_set import KnownScan

#: neighbours from which the probe is refined, and how often each is seen
_PATTERNS, _SWEEPS = 144, 8


def shipped_state(raw: RawData, *, refine: bool = True) -> TrainedState:
    """The network that ships, with the probe, scale and dose of a scan.

    refine: its probe guess is refined in a few sweeps over 144 neighbours (under a second); else it is taken
    as it is. Raises DataError for patterns of a side that the network was not trained on.
    """
    shipped_model(raw.N)
    container = PtychoDataContainer.from_raw(raw, 1)
    model = shipped_model(raw.N, container.nphotons)
    modes = container.probe
    if refine and len(container) >= MIN_POSITIONS:
        modes = refined_by_neighbours(container)
    probe, factor = normalize_probe(modes, model.probe_scale)
    known = dataclasses.replace(KnownScan.of(container, probe, factor), guess=container.probe)
    return TrainedState(TrainingConfig(model=model), shipped_weights(), (known,))


def refined_by_neighbours(
    container: PtychoDataContainer, patterns: int = _PATTERNS, sweeps: int = _SWEEPS
) -> NDArray[np.complex64]:
    """The probe (P, N, N) after some sweeps of the engine over the patterns around the scan's middle."""
    places = container.positions_px
    away = np.hypot(*(places - np.median(places, axis=0)).T)
    rows = np.sort(np.argsort(away, kind="stable")[:patterns])
    refined = backends.engine().refine_probe(
        container.patterns[rows] / np.float32(container.x_scale),
        places[rows],
        container.probe,
        unit="amplitude",
        epochs=sweeps,
        bad_pixels=container.bad_pixels,
        modes=len(container.probe),
        prior="none",
    )
    return np.asarray(refined.probe, np.complex64).reshape(-1, container.N, container.N)
