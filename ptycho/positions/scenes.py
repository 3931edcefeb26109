"""Scans with wrong positions, and what a belief should have been: NumPy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.positions.settings import PositionsData
from ptycho.simulation.detector import count_photons
from ptycho.simulation.probes import PROBES
from ptycho.simulation.random_objects import random_object
from ptycho.simulation.scenario import diffract_scan

#: photographs that scenes never show: benchmarks and their tables use them
KEPT = ("chelsea", "coins")
_SIDE = 64  # side to which the sizes of errors and steps refer, px
_MARGIN_PX = 4


class Scene(NamedTuple):
    """A scan with wrong positions.

    counts (M, N, N) int32; probe (N, N) complex64, a guess; true_xy, given_xy (M, 2) float64, px; size_px:
    the size of the errors that a search is asked for; help_px: deviation of a hint about the truth, inf for
    none.
    """

    counts: NDArray[np.int32]
    probe: NDArray[np.complex64]
    true_xy: NDArray[np.float64]
    given_xy: NDArray[np.float64]
    size_px: float
    help_px: float


def draw_scene(data: PositionsData, seed: tuple[int, ...]) -> Scene:
    """The scene of a seed. Memory: the patterns, thrice.

    Random: object, probe, its wrong guess, path, step, dose, errors and their size, and whether the search
    gets a hint.
    """
    rng = np.random.default_rng(seed)
    N = int(rng.choice(data.sides))
    scale = N / _SIDE
    low, high = data.n_positions
    across = int(np.sqrt(rng.integers(low, high + 1)))
    true = _path(across, scale * rng.uniform(4.0, 7.0), rng)
    size = scale * rng.uniform(data.errors_px[0], data.errors_px[-1])
    given = true + _errors(len(true), size, bool(rng.random() < data.drifts), rng)
    true += N // 2 + _MARGIN_PX - true.min(0)
    given += N // 2 + _MARGIN_PX - given.min(0)
    extent = int(np.ceil(true.max())) + N - N // 2 + _MARGIN_PX
    probe, guess = _probes(N, rng)
    photons = float(np.exp(rng.uniform(*np.log(data.photons))))
    counts = count_photons(
        diffract_scan(random_object(extent, rng, KEPT), probe * np.sqrt(photons), true), rng
    )
    helped = float(scale * rng.uniform(1.0, 5.0)) if rng.random() < data.helped else np.inf
    return Scene(counts, guess, true, given, size * rng.uniform(1.0, 1.6), helped)


def _path(across: int, step_px: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A jittered raster of across x across positions (M, 2), px."""
    grid = np.stack(np.meshgrid(np.arange(across), np.arange(across)), -1).reshape(-1, 2) * step_px
    return np.asarray(grid + rng.uniform(-0.4, 0.4, grid.shape) * step_px)


def _errors(count: int, rms_px: float, drift: bool, rng: np.random.Generator) -> NDArray[np.float64]:
    """Errors (count, 2) px of this rms distance: each for itself, or a smooth walk."""
    if not drift:
        return rng.normal(0, rms_px / np.sqrt(2), (count, 2))
    walk = np.cumsum(rng.normal(size=(count, 2)), 0)
    smooth = np.stack([np.convolve(line, np.ones(9) / 9, "same") for line in walk.T], -1)
    smooth -= smooth.mean(0)
    return np.asarray(smooth * rms_px / np.sqrt(np.mean((smooth**2).sum(1))))


def _probes(N: int, rng: np.random.Generator) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """A probe (N, N) of unit power, and a guess with wrong aperture and defocus."""
    kind = str(rng.choice(sorted(PROBES), p=[0.25, 0.25, 0.5]))
    aperture, defocus = float(rng.uniform(0.7, 1.3)), float(rng.uniform(0.5, 1.5))
    wrong = float(rng.uniform(-0.25, 0.25))
    true, guess = (
        PROBES[kind](N, 1.0, aperture * (1 - 0.2 * off), defocus * (1 + off)) for off in (0.0, wrong)
    )
    return true, guess


def targets(
    true_px: NDArray[np.float64], shifts_px: NDArray[np.float64], step_px: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights (B, G) of the shifts, each row of sum 1, whose mean is the true shift.

    true_px (B, 2), shifts_px (B, G, 2), step_px (B,): the four shifts around the true one share the weight,
    by their distance from it (bilinear). A true shift beyond the grid counts as the nearest one on it.

    >>> line = np.array([-1.0, 0.0, 1.0])
    >>> grid = np.stack(np.meshgrid(line, line), -1).reshape(1, 9, 2)
    >>> targets(np.array([[0.25, 0.0]]), grid, np.ones(1)).reshape(3, 3)[1].tolist()
    [0.0, 0.75, 0.25]
    """
    inside = np.clip(true_px, shifts_px.min(1), shifts_px.max(1))
    away = np.abs(shifts_px - inside[:, None]) / step_px[:, None, None]
    weights = np.clip(1 - away, 0, 1).prod(-1)
    return np.asarray(weights / weights.sum(1, keepdims=True))
