"""One simulated scan of many, drawn from a seed: object, probe, its wrong guess, path, dose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho.run.reference import coarse_reference
from ptycho.scan.normalization import normalize_probe, x_scale
from ptycho.scan.reference import Reference
from ptycho.simulation.probes import PROBES, with_modes
from ptycho.simulation.random_objects import random_object
from ptycho.simulation.scenario import diffract_scan

_MARGIN_PX = 4


@dataclass(frozen=True)
class Drawn:
    """A scan as the network sees it, and its truth.

    x (M, N, N) float32 and probe (P, N, N) complex64 in the network's gauge; positions_xy (M, 2) object px;
    start: the coarse object; truth (H, W) complex64 on the pixels of the object.
    """

    x: NDArray[np.float32]
    probe: NDArray[np.complex64]
    positions_xy: NDArray[np.float64]
    start: Reference
    truth: NDArray[np.complex64]


def draw_scan(seed: tuple[int, ...], side: int = 14, N: int | None = None) -> Drawn:
    """The scan of a seed: side x side patterns of 64 x 64 px, or in one of five cases 128 x 128."""
    rng = np.random.default_rng(seed)
    N = N or int(rng.choice([64, 128], p=[0.8, 0.2]))
    if N > 64:
        side = max(8, side * 3 // 4)
    step = float(rng.choice([rng.uniform(0.04, 0.10), rng.uniform(0.10, 0.20)], p=[0.75, 0.25])) * N
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) * step
    places = grid + rng.uniform(-0.4, 0.4, grid.shape) * step * rng.uniform(0.2, 1)
    places += N // 2 + _MARGIN_PX - places.min(0)
    extent = int(np.ceil(places.max())) + N - N // 2 + _MARGIN_PX
    truth = random_object(extent, rng)
    modes, guess = _probes(N, rng)
    photons = 10 ** rng.uniform(2, 7)
    expected = diffract_scan(truth, modes * np.sqrt(photons), places)
    amplitude = np.sqrt(rng.poisson(expected)).astype(np.float32)
    x = amplitude * np.float32(x_scale(amplitude))
    probe = normalize_probe(guess, 4.0)[0]
    return Drawn(x, probe, places, coarse_reference(x, places, probe), truth)


def _probes(N: int, rng: np.random.Generator) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Modes (P, N, N) with unit power, and what is known of them: often exact, often some percent wrong."""
    kind = str(rng.choice(sorted(PROBES), p=[0.25, 0.2, 0.55]))
    aperture, defocus = float(rng.uniform(0.65, 1.5)), float(rng.uniform(0.3, 2.0))
    if kind == "disk":
        aperture = float(rng.uniform(0.6, 1.2))
    wrong = float(rng.choice([0.0, rng.uniform(-0.12, 0.12)], p=[0.4, 0.6]))
    modes = int(rng.choice([1, 2], p=[0.75, 0.25]))
    decay = float(rng.uniform(0.05, 0.4))
    pair = [
        with_modes(PROBES[kind](N, 1.0, aperture * (1 - 0.2 * off), defocus * (1 + off)), modes, decay)
        for off in (0.0, wrong)
    ]
    if modes == 2 and rng.random() < 0.3:
        pair[1] = pair[1][:1]
    return pair[0], pair[1]
