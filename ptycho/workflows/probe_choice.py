"""Chooses a first probe for a scan that has none: the candidate that best predicts held-out patterns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.positions import measure_path
from ptycho.scan.probe_guess import candidates
from ptycho.workflows.trials import attempt, take_part

_PATTERNS, _SWEEPS = 60, 6


class ProbeChoice(NamedTuple):
    """The name of the chosen probe, the probe (1,N,N), and R of held-out patterns of every candidate."""

    name: str
    probe: NDArray[np.complex64]
    r_held: dict[str, float]


def choose_probe(
    raw: Any, *, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> ProbeChoice:
    """Try every candidate of `ptycho.scan.probe_guess` on a part of the scan.

    Time: nine reconstructions of 60 patterns in 6 sweeps, a few CPU seconds at N = 64. Memory: these
    patterns.
    """
    part = take_part(raw, _PATTERNS, seed)
    scale = part.probe.shape[-1] / raw.N
    way = measure_path(part.positions, part.probe.shape[-1], 1.0)
    step = way.area_step_px or 4.0
    mean = part.counts.mean(axis=0, dtype=np.float64)
    found = candidates(mean, step)
    tried = {}
    for done, (name, probe) in enumerate(found.items(), start=1):
        tried[name] = attempt(part, probe=probe, sweeps=_SWEEPS, seed=seed).r_held
        if progress is not None:
            progress(done, len(found))
    best = min(tried, key=lambda name: tried[name])
    probe = found[best]
    if scale != 1.0:
        probe = _finer(probe, raw.N)
    return ProbeChoice(best, probe, tried)


def _finer(probe: NDArray[np.complex64], N: int) -> NDArray[np.complex64]:
    """The probe on finer pixels: its spectrum laid into the middle of N x N."""
    side, axes = probe.shape[-1], (-2, -1)
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe, axes), norm="ortho"), axes)
    wide = np.zeros((len(probe), N, N), np.complex128)
    cut = slice(N // 2 - side // 2, N // 2 - side // 2 + side)
    wide[:, cut, cut] = spectrum
    return np.asarray(
        np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(wide, axes), norm="ortho"), axes), np.complex64
    )
