"""Training pairs of the learned prior: an image of the engine, and the true object.

Each scan is simulated with a random object, probe and dose, and reconstructed. The image after some sweeps,
in the gauge of the true object, is the first part of a pair. Chelsea, the coins and straight lines are not
used here: they are kept for judging.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.evaluation.gauge import remove_gauge
from ptycho.io.atomic import atomic_write
from ptycho.simulation.probes import PROBES
from ptycho.simulation.random_objects import random_object
from ptycho.simulation.scenario import diffract_scan
from ptycho_torch.refine import make_scan, reconstruct
from ptycho_torch.refine.learned import expected_error
from ptycho_torch.refine.unknowns import illumination

_MARGIN_PX, _RIM_PX = 4, 8
KEPT_FOR_JUDGING = ("chelsea", "coins", "lines")


@dataclass(frozen=True)
class Pair:
    """image, truth (H, W) complex64; error (H, W) float32, the error to expect of a pixel."""

    image: NDArray[np.complex64]
    truth: NDArray[np.complex64]
    error: NDArray[np.float32]


def draw_pairs(seed: tuple[int, ...], options: dict[str, Any] | None = None) -> list[Pair]:
    """Pairs of one scan: after the third sweep, the seventh and the last."""
    rng = np.random.default_rng(seed)
    step = float(rng.choice([rng.uniform(3.5, 7), rng.uniform(7, 13)], p=[0.6, 0.4]))
    side = int(np.clip(rng.uniform(80, 140) / step, 7, 18))
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) * step
    places = grid + rng.uniform(-0.4, 0.4, grid.shape) * step
    places += 32 + _MARGIN_PX - places.min(0)
    extent = int(np.ceil(places.max())) + 32 + _MARGIN_PX
    truth = random_object(extent, rng, without=KEPT_FOR_JUDGING)
    probe, guess = _probes(rng)
    photons = 10 ** rng.uniform(2.3, 5.3)
    counts = rng.poisson(diffract_scan(truth, probe * np.sqrt(photons), places)).astype(np.int32)
    if options is None:
        options = {"prior": str(rng.choice(["none", "tv"], p=[0.65, 0.35]))}
        options["epochs"] = [10, None][int(rng.random() < 0.3)]
    pairs: list[Pair] = []

    def keep(scan: Any, state: Any) -> None:
        light = illumination(scan, state)
        error = expected_error(state.object, light).numpy()
        x, y = state.canvas.origin_xy
        low, high = np.floor(places.min(0)).astype(int), np.ceil(places.max(0)).astype(int)
        box = (low[1] - _RIM_PX, high[1] + _RIM_PX, low[0] - _RIM_PX, high[0] + _RIM_PX)
        found = remove_gauge(
            state.object.numpy().astype(complex), truth.astype(complex), box, (x, y), allow_twin=False
        )
        if np.linalg.norm(found.recon - found.reference) < 0.7 * np.linalg.norm(found.reference):
            part = error[box[0] - y : box[1] - y, box[2] - x : box[3] - x]
            image, true = (part.astype(np.complex64) for part in (found.recon, found.reference))
            pairs.append(Pair(image, true, part.astype(np.float32)))

    last: list[Any] = []

    def watch(scan: Any, state: Any, done: int) -> None:
        last[:] = [scan, state]
        if done in (3, 7):
            keep(scan, state)

    scan = make_scan(counts, places, guess, unit="counts")
    reconstruct(scan, seed=int(rng.integers(1 << 30)), watch=watch, **options)
    keep(*last)
    return pairs


def _probes(rng: np.random.Generator) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """A probe (N, N) of power 1 and a guess of it, exact or up to 30 % wrong."""
    make = PROBES[str(rng.choice(sorted(PROBES), p=[0.25, 0.2, 0.55]))]
    aperture, defocus = float(rng.uniform(0.7, 1.4)), float(rng.uniform(0.4, 1.8))
    wrong = float(rng.choice([0.0, rng.uniform(-0.3, 0.3)], p=[0.3, 0.7]))
    true = make(64, 1.0, aperture, defocus)
    return true, make(64, 1.0, aperture * (1 - 0.2 * wrong), defocus * (1 + wrong))


def make_pool(
    path: Path, scans: int, seed: int, progress: Callable[[int, int], None] | None = None
) -> list[Pair]:
    """The pairs of so many scans, kept in `path` (NPZ) as they are made; goes on from what is there."""
    pool, done = read_pool(path)
    while done < scans:
        pool += draw_pairs((seed, done))
        done += 1
        if done % 20 == 0 or done == scans:
            _write_pool(path, pool, done)
        if progress is not None:
            progress(done, scans)
    return pool


def read_pool(path: Path) -> tuple[list[Pair], int]:
    """The pairs in `path` and the number of scans that they come from."""
    if not path.is_file():
        return [], 0
    with np.load(path, allow_pickle=False) as held:
        names = ("image", "truth", "error")
        pool = [Pair(*(held[f"{name}{k}"] for name in names)) for k in range(int(held["count"]))]
        return pool, int(held["scans"])


def _write_pool(path: Path, pool: list[Pair], scans: int) -> None:
    named: dict[str, Any] = {"count": len(pool), "scans": scans}
    for number, pair in enumerate(pool):
        named |= {f"{name}{number}": getattr(pair, name) for name in ("image", "truth", "error")}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **named)
