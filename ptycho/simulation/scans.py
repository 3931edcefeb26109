"""Scan positions (M, 2) [x, y] in object pixels; each position has an area of step_px^2 on average.

Positions are relative: whoever puts the scan on an object adds the offset.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho.simulation.registry import lookup

Positions = NDArray[np.float64]


class ScanMaker(Protocol):
    """Draws one scan: M positions, step px, width over height, displacement px and seed (jittered only)."""

    def __call__(
        self, n_positions: int, step_px: float, aspect: float = 1.0, jitter_px: float = 0.0, seed: int = 0
    ) -> Positions:
        """(M, 2) float64, [x, y] px."""
        ...


def raster(
    n_positions: int, step_px: float, aspect: float = 1.0, jitter_px: float = 0.0, seed: int = 0
) -> Positions:
    """A regular raster, x fastest: (M, 2) float64 [x, y]; the last row may be short. No jitter, no seed.

    >>> raster(4, step_px=2.0).tolist()
    [[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]]
    """
    rows = max(1, round(float(np.sqrt(n_positions / aspect))))
    columns = -(-n_positions // rows)
    index = np.arange(n_positions)
    return np.stack([index % columns, index // columns], axis=1).astype(np.float64) * step_px


def jittered(
    n_positions: int, step_px: float, aspect: float = 1.0, jitter_px: float = 0.0, seed: int = 0
) -> Positions:
    """A raster whose positions are displaced by up to +-jitter_px in x and y: (M, 2) float64 [x, y].

    Breaks the raster's symmetry, which would otherwise leave a grid in the reconstruction
    (Thibault et al., Ultramicroscopy 109, 338 (2009)).
    """
    regular = raster(n_positions, step_px, aspect)
    return regular + np.random.default_rng(seed).uniform(-jitter_px, jitter_px, regular.shape)


def fermat(
    n_positions: int, step_px: float, aspect: float = 1.0, jitter_px: float = 0.0, seed: int = 0
) -> Positions:
    """The Fermat spiral r = step sqrt(i/pi) at the golden angle: (M, 2) float64 [x, y], even density.

    Source: Huang et al., Opt. Express 22, 12634 (2014). Aspect makes the disk an ellipse of equal area.
    """
    index = np.arange(n_positions) + 0.5
    radius = step_px * np.sqrt(index / np.pi)
    angle = index * np.pi * (3.0 - np.sqrt(5.0))
    return _stretched(radius * np.cos(angle), radius * np.sin(angle), aspect)


def concentric(
    n_positions: int, step_px: float, aspect: float = 1.0, jitter_px: float = 0.0, seed: int = 0
) -> Positions:
    """Rings one step apart, positions one step apart on each: (M, 2) float64 [x, y]; last ring partial.

    Source: Dierolf et al., New J. Phys. 12, 035017 (2010). Each ring is turned by the golden angle.
    """
    radii, angles = [np.zeros(1)], [np.zeros(1)]
    total, ring = 1, 1
    while total < n_positions:
        count = min(round(2 * np.pi * ring), n_positions - total)
        turn = ring * np.pi * (3.0 - np.sqrt(5.0))
        radii.append(np.full(count, ring * float(step_px)))
        angles.append(turn + 2 * np.pi * np.arange(count) / count)
        total, ring = total + count, ring + 1
    radius, angle = np.concatenate(radii), np.concatenate(angles)
    return _stretched(radius * np.cos(angle), radius * np.sin(angle), aspect)


SCANS: dict[str, ScanMaker] = {
    "concentric": concentric,
    "fermat": fermat,
    "jittered": jittered,
    "raster": raster,
}


def get_scan(name: str) -> ScanMaker:
    """The recipe of a scan by its name; raises ConfigError naming the nearest one."""
    return lookup(SCANS, name, "scan")


def _stretched(x: Positions, y: Positions, aspect: float) -> Positions:
    return np.stack([x * np.sqrt(aspect), y / np.sqrt(aspect)], axis=1)
