"""Clean simulated scans of great variety: normal features of a good scan must not cause an alarm."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.probe import illuminated_diameter_px
from ptycho.simulation.detector import dead_pixels
from ptycho.simulation.objects import get_object
from ptycho.simulation.probes import get_probe, with_modes
from ptycho.simulation.scans import SCANS, get_scan
from ptycho.simulation.scenario import diffract_scan

SIDES: tuple[int, ...] = (32, 48, 64, 96, 128, 256)
_MARGIN_PX = 4
_OBJECTS = (
    "cat_and_coins", "flat", "gaussian_random_field", "lines", "siemens_star", "two_photographs",
)  # fmt: skip
_OBJECT_SHARES = (0.15, 0.05, 0.25, 0.2, 0.2, 0.15)


class Ranges(NamedTuple):
    """Ranges of the parameters of clean scans. photons: of a frame, log-uniform. sides: N, px, each with its
    weight; n_frames: approximate number of frames of a scan; read_noise: share of the scans with an
    integrating detector.
    """

    photons: tuple[float, float] = (1e2, 1e7)
    sides: tuple[int, ...] = SIDES
    side_weights: tuple[float, ...] = (0.25, 0.15, 0.3, 0.1, 0.15, 0.05)
    n_frames: tuple[int, int] = (36, 121)
    read_noise: float = 0.2


class CleanScan(NamedTuple):
    """Expected counts (M,N,N) float64 and simulated counts (M,N,N) int64; positions (M,2) [x, y] px; known
    bad pixels (N,N) bool; dark counts of a pixel; standard deviation of the read noise.
    """

    light: NDArray[np.float64]
    counts: NDArray[np.int64]
    positions_px: NDArray[np.float64]
    bad_pixels: NDArray[np.bool_]
    dark: float
    read_noise: float


class Patterns(NamedTuple):
    """Patterns (M,N,N) float64 of one incident photon each; positions (M,2) [x, y] px."""

    patterns: NDArray[np.float64]
    positions_px: NDArray[np.float64]


def draw_scan(ranges: Ranges, rng: np.random.Generator) -> CleanScan:
    """One clean scan; the same generator state gives the same scan. Memory: M N^2 numbers, thrice.

    Random: object, its contrast, an edge of the sample with nothing beyond it, probe, modes, path, step
    (0.08 to 0.6 of the probe's width), dose, a beam that drifts by up to 15 % and flickers by up to 3 %, dead
    pixels and gaps that are known, dark counts, and for some scans read noise.
    """
    return count_scan(draw_patterns(ranges, rng), ranges, rng)


def draw_patterns(ranges: Ranges, rng: np.random.Generator) -> Patterns:
    """Object, probe and path of a scan, and its patterns without noise; most of the time of a scan."""
    weights = np.asarray(ranges.side_weights, np.float64)
    N = int(rng.choice(ranges.sides, p=weights / weights.sum()))
    low, high = ranges.n_frames
    M = int(rng.integers(low, high + 1))
    if N >= 128:
        M = max(low, M // 2)
    probe = _probe(N, rng)
    step = float(rng.uniform(0.08, 0.6)) * illuminated_diameter_px(probe)
    path = list(SCANS)[int(rng.integers(len(SCANS)))]
    seed = int(rng.integers(2**31))
    places = get_scan(path)(M, step, float(np.exp(rng.uniform(-0.5, 0.5))), 0.4 * step, seed)
    places = places - places.min(axis=0) + N // 2 + _MARGIN_PX
    return Patterns(diffract_scan(_object(N, places, rng), probe, places), places)


def count_scan(clean: Patterns, ranges: Ranges, rng: np.random.Generator) -> CleanScan:
    """Patterns counted: dose, beam and detector are drawn."""
    patterns, places = clean
    M, N = patterns.shape[:2]
    photons = float(np.exp(rng.uniform(*np.log(ranges.photons))))
    # the dose is that of the open beam: an absorbing object makes frames darker, as in an experiment
    light = patterns * (photons * _beam(M, rng))[:, None, None]
    bad = _known_pixels(N, rng)
    dark = float(rng.choice([0.0, 0.0, rng.uniform(0, 0.05) * min(photons / N**2, 1.0)]))
    light = np.where(bad, 0.0, light + dark)
    counts = rng.poisson(light).astype(np.int64)
    noise = float(rng.uniform(0.1, 1.5)) if rng.random() < ranges.read_noise and photons > 1e3 else 0.0
    return CleanScan(light, counts, places, bad, dark, noise)


def _probe(N: int, rng: np.random.Generator) -> NDArray[np.complex64]:
    name = ("disk", "gaussian", "zone_plate")[int(rng.integers(3))]
    aperture, defocus = float(np.exp(rng.uniform(-0.5, 0.35))), float(rng.uniform(-2.0, 2.0))
    made = get_probe(name)(N, 1.0, aperture, defocus)
    return with_modes(made, int(rng.choice([1, 1, 1, 2, 3])), float(rng.uniform(0.05, 0.5)))


def _object(N: int, places: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.complex64]:
    """An object that covers all windows; a third of the objects end at a line or a circle."""
    reach = np.ceil(places.max(axis=0)).astype(int) + N - N // 2 + _MARGIN_PX
    width, height = (int(side + side % 2) for side in reach)
    name = _OBJECTS[int(rng.choice(len(_OBJECTS), p=_OBJECT_SHARES))]
    lowest = float(rng.choice([rng.uniform(0.5, 0.95), rng.uniform(0.0, 0.5)], p=[0.7, 0.3]))
    turn = float(np.exp(rng.uniform(np.log(0.1), np.log(2 * np.pi))))
    made = get_object(name)((height, width), int(rng.integers(1, 2**31)), (lowest, 1.0), (0.0, turn))
    if rng.random() < 0.35:
        rows, columns = np.indices(made.shape)
        if rng.random() < 0.5:
            angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
            across = (rows - height / 2) * np.sin(angle) + (columns - width / 2) * np.cos(angle)
            outside = across > share * min(height, width)
        else:
            away = np.hypot(rows - rng.uniform(0, height), columns - rng.uniform(0, width))
            outside = away > rng.uniform(0.2, 0.6) * min(height, width)
        made = np.where(outside, np.complex64(1.0), made)
    return made


def _beam(M: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Intensity of the beam, 1 on average: a slow wave and flicker."""
    wave = rng.uniform(0, 0.15) * np.sin(2 * np.pi * (rng.uniform(0.2, 3) * np.arange(M) / M + rng.random()))
    return np.maximum((1 + wave) * (1 + rng.uniform(0, 0.03) * rng.standard_normal(M)), 0.5)


def _known_pixels(N: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Pixels that the scan's mask names: dead ones, and gaps between modules."""
    bad = np.zeros((N, N), np.bool_)
    if rng.random() < 0.3:
        bad |= dead_pixels(N, float(rng.uniform(0, 0.02)), int(rng.integers(2**31)))
    if rng.random() < 0.25:
        width = max(1, round(N * rng.uniform(0.01, 0.05)))
        at = int(rng.integers(N // 8, N - N // 8 - width))
        bad[at : at + width] = True
        if rng.random() < 0.5:
            at = int(rng.integers(N // 8, N - N // 8 - width))
            bad[:, at : at + width] = True
    return bad
