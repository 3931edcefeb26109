"""Simulated scans with faults as network inputs; seed and numbers determine them completely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.triage.features import Array, FrameStatistics, look, measure
from ptycho.triage.labels import FAULTS
from ptycho.triage.sampling import SHARES, asked_faults, damage
from ptycho.triage.scans import Ranges, count_scan, draw_patterns

#: requested shares of bad frames; each training scan has one of them
BAD_SHARES = (0.0, 0.05, 0.15, 0.3)
#: share of training scans whose numbers are not counts: multiplied by a gain of 0.1 to 30
_GAINS = 0.1


class Frames(NamedTuple):
    """Frames of several scans, (B, ...) float32 as `ptycho.triage.features.FrameInputs`, with usual and noise
    for each frame; labels (B, faults) bool; scan (B,) int64, the number of the scan.
    """

    frames: Array
    around: Array
    usual: Array
    numbers: Array
    noise: Array
    labels: NDArray[np.bool_]
    scan: NDArray[np.int64]


class SimulatedScan(NamedTuple):
    """One simulated scan: its statistics, positions (M,2) [x, y] px, the truth (M, faults) bool, and the gain
    for its counts.
    """

    measured: FrameStatistics
    positions_px: NDArray[np.float64]
    labels: NDArray[np.bool_]
    gain: float


def draw_scans(
    seeds: Sequence[Sequence[int]], ranges: Ranges, bad_shares: Sequence[float], *, repeats: int = 1,
    gains: bool = True,
) -> Iterator[SimulatedScan]:  # fmt: skip
    """Scans with faults, `repeats` of each seed (any whole numbers); the same seeds give the same scans.

    Repeats share object, probe and path; dose, detector and faults are drawn anew. bad_shares: one of them is
    drawn for each scan. Memory: one scan.
    """
    for seed in seeds:
        rng = np.random.default_rng([int(word) for word in seed])
        clean = draw_patterns(ranges, rng)
        for _ in range(repeats):
            scan = count_scan(clean, ranges, rng)
            asked = asked_faults(len(scan.counts), float(rng.choice(bad_shares)), rng)
            made = damage(
                scan.counts, asked, rng, light=scan.light, dark=scan.dark, live=~scan.bad_pixels,
                read_noise=scan.read_noise,
            )  # fmt: skip
            is_gain = rng.random() < _GAINS and gains
            gain = float(np.exp(rng.uniform(np.log(0.1), np.log(30.0)))) if is_gain else 1.0
            measured = measure(made.counts, "counts", scan.bad_pixels)
            yield SimulatedScan(measured, scan.positions_px, made.labels, gain)


def draw_frames(
    seeds: Sequence[Sequence[int]], ranges: Ranges, bad_shares: Sequence[float], *, repeats: int = 1,
    gains: bool = True,
) -> Frames:  # fmt: skip
    """The frames of `draw_scans` as network inputs. Memory: 12 kB a frame and one scan."""
    parts = []
    drawn = draw_scans(seeds, ranges, bad_shares, repeats=repeats, gains=gains)
    for number, scan in enumerate(drawn):
        seen = look(scan.measured, scan.positions_px, scan.gain)
        M = len(scan.labels)
        usual = np.broadcast_to(seen.usual, seen.frames.shape)
        noise = np.full((M, 1, 1), seen.noise, np.float32)
        parts.append(
            Frames(
                seen.frames,
                seen.around,
                usual,
                seen.numbers,
                noise,
                scan.labels,
                np.full(M, number, np.int64),
            )
        )
    return Frames(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def class_weights(bad_share: float) -> NDArray[np.float32]:
    """Weight of a frame with a fault relative to one without, (faults,): the mean share of a fault over its
    own share (`SHARES`), from 1 to 4.
    """
    share = np.array([SHARES[name] for name in FAULTS]) * max(bad_share, 1e-3)
    return np.clip(0.1 / share, 1.0, 4.0).astype(np.float32)
