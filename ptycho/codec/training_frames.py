"""Simulated training frames: many objects, probes and doses, prepared as the codec prepares a scan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.codec.settings import CodecData
from ptycho.io.compressed.levels import stabilised
from ptycho.simulation.objects import get_object
from ptycho.simulation.probes import get_probe
from ptycho.simulation.scans import jittered
from ptycho.simulation.scenario import diffract_scan

_MARGIN_PX = 4


class Frames(NamedTuple):
    """Input frames of the network, float32.

    inputs (B, 1, N, N): about the scan's mean and over its spread; light (B, 1, N, N): the mean frame over
    its maximum; scale (B,): the spread, so that `inputs * scale` is on the stabilised axis.
    """

    inputs: NDArray[np.float32]
    light: NDArray[np.float32]
    scale: NDArray[np.float32]


def prepared(
    counts: NDArray[np.integer], mean: NDArray[np.float64], spread: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inputs (B, 1, N, N) and light (1, N, N) of counts (B, N, N) of a scan with this mean frame (N, N) on
    the stabilised axis and this spread about it.

    >>> inputs, light = prepared(np.ones((2, 4, 4), int), np.full((4, 4), 2.0), 1.0)
    >>> inputs.shape, float(light.max())
    ((2, 1, 4, 4), 1.0)
    """
    inputs = (stabilised(counts) - mean) / max(spread, 1e-6)
    light = mean / max(float(mean.max()), 1e-9)
    return inputs[:, None].astype(np.float32), light[None].astype(np.float32)


def draw_counts(data: CodecData, rng: np.random.Generator, photons: float | None = None) -> NDArray[np.int64]:
    """Counts (frames_per_scan, N, N) of one scan of a random object, probe and dose (log-uniform)."""
    N, count = data.N, data.frames_per_scan
    step = rng.uniform(data.step_low_px, data.step_high_px)
    places = jittered(count, step, jitter_px=step / 3, seed=int(rng.integers(2**31)))
    places = places - places.min(0) + N // 2 + _MARGIN_PX
    sides = np.ceil(places.max(0)).astype(int) + N // 2 + _MARGIN_PX
    low = rng.uniform(0.3, 0.9)
    phase = rng.uniform(0.3, 2.5)
    obj = get_object(str(rng.choice(data.objects.split(","))))(
        (int(sides[1]), int(sides[0])), int(rng.integers(2**31)), (low, 1.0), (0.0, phase)
    )
    if photons is None:
        photons = float(np.exp(rng.uniform(np.log(data.photons_low), np.log(data.photons_high))))
    probe = get_probe(str(rng.choice(data.probes.split(","))))(
        N, photons, aperture_factor=rng.uniform(0.7, 1.3), defocus_factor=rng.uniform(0.6, 1.5)
    )
    return rng.poisson(diffract_scan(obj, np.asarray(probe).reshape(-1, N, N), places))


def draw_frames(data: CodecData, scans: int, key: list[int], photons: list[float] | None = None) -> Frames:
    """Frames of several scans, determined by `key`; photons: the dose of each scan, None: random."""
    parts, lights, scales = [], [], []
    for number in range(scans):
        rng = np.random.default_rng([*key, number])
        counts = draw_counts(data, rng, None if photons is None else photons[number])
        values = stabilised(counts)
        mean = values.mean(axis=0)
        spread = float(np.sqrt(np.mean((values - mean) ** 2)))
        inputs, light = prepared(counts, mean, spread)
        parts.append(inputs)
        lights.append(np.broadcast_to(light, inputs.shape))
        scales.append(np.full(len(inputs), spread, np.float32))
    return Frames(np.concatenate(parts), np.concatenate(lights), np.concatenate(scales))
