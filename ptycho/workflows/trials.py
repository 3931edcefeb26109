"""Short reconstructions of a part of a scan, judged on patterns that they did not see.

What is fitted can be fitted wrongly; what was held out can only be predicted. A wrong axis, a wrong scale
or a
wrong probe may explain the patterns it was fitted to, above all with several modes, but not those beside
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho import backends
from ptycho.errors import PtychoError
from ptycho.evaluation.anchors import mean_pattern_r, poisson_noise_r
from ptycho.evaluation.dispersion import measure_dispersion, quanta_per_count
from ptycho.evaluation.rfactor import predicted_amplitudes

Floats = NDArray[np.float64]

_PATTERNS, _HELD = 80, 0.2
_LARGEST = 128
_BATCH = 4


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a scan: counts (K,N,N) float32, zero frequency at (N//2, N//2), 0 in bad pixels; positions
    (K,2) [x, y] px; held (K,) bool, True = not to be fitted; probe (P,N,N); bad (N,N) bool; rows (K,) of the
    scan; scale: these positions over the scan's."""

    counts: NDArray[np.float32]
    positions: Floats
    held: NDArray[np.bool_]
    probe: NDArray[np.complex64]
    bad: NDArray[np.bool_]
    rows: NDArray[np.int64]
    scale: float


@dataclass(frozen=True, eq=False)
class Attempt:
    """R of the fitted and of the held-out patterns, and the misfit of each held-out one (H,), float64.

    flat, flat_misfit: the same where each is taken as the mean of the fitted ones; noise: R that Poisson
    noise alone leaves there, None where the dose is not known.
    """

    r_fit: float
    r_held: float
    misfit: Floats
    flat: float
    noise: float | None
    flat_misfit: Floats

    @property
    def explained(self) -> float:
        """Share of the structure in the held-out patterns, beyond noise, that was predicted; can be
        negative."""
        floor = 0.0 if self.noise is None else min(self.noise, 0.98 * self.flat)
        return (self.flat**2 - self.r_held**2) / max(self.flat**2 - floor**2, 1e-30)


def take_part(raw: Any, n_patterns: int = _PATTERNS, seed: int = 0, *, largest: int = _LARGEST) -> Part:
    """The patterns around the middle of a scan, a fifth of them held out, inner ones.

    Patterns over `largest` px are cropped to their central part, which makes the object's pixels larger. Time
    and memory: these patterns.
    """
    places = raw.positions_px
    centre = np.median(places, axis=0)
    order = np.argsort(np.hypot(*(places - centre).T), kind="stable")[:n_patterns]
    rng = np.random.default_rng([seed, 11])
    inner = order[: max(1, int(0.7 * len(order)))]
    n_held = max(1, round(_HELD * len(order)))
    out = rng.choice(inner, min(n_held, len(inner)), replace=False)
    rows = np.sort(order)
    counts = np.square(np.asarray(raw.amplitude_by_rows()[rows], np.float32))
    N = raw.N
    bad = np.zeros((N, N), np.bool_) if raw.bad_pixels is None else raw.bad_pixels
    probe, scale = raw.probe_modes, 1.0
    if largest < N:
        side = largest
        scale = side / N
        cut = slice(N // 2 - side // 2, N // 2 - side // 2 + side)
        counts, bad = counts[:, cut, cut].copy(), bad[cut, cut]
        probe = _coarser(probe, side)
    return Part(counts, places[rows] * scale, np.isin(rows, out), probe, bad, rows, scale)


def attempt(
    part: Part,
    positions: Floats | None = None,
    probe: NDArray[Any] | None = None,
    *,
    sweeps: int = 6,
    modes: int | None = None,
    counts_known: bool = True,
    intensity: bool = False,
    seed: int = 0,
) -> Attempt:
    """Reconstruct the patterns that are not held out, from a flat object, and predict those that are.

    positions (K,2) and probe (N,N) or (P,N,N) instead of the part's own. Time: sweeps of the fitted patterns.
    A run that diverges has R 1.
    """
    engine = backends.engine()

    places = part.positions if positions is None else positions
    start = part.probe if probe is None else probe
    fit, held = ~part.held, part.held
    seen = np.sqrt(part.counts[held]).astype(np.float64)
    usual = np.sqrt(part.counts[fit].mean(axis=0, dtype=np.float64))
    flat = mean_pattern_r(seen, usual)
    own = float((seen * usual).sum()) / max(len(seen) * float((usual**2).sum()), 1e-300)
    flat_misfit = ((own * usual - seen) ** 2).sum(axis=(1, 2)) / max(float((seen**2).sum()), 1e-300)
    try:
        scan = engine.make_scan(part.counts[fit], places[fit], start, unit="counts", bad_pixels=part.bad)
        made = engine.reconstruct(
            scan, epochs=sweeps, seed=seed, modes=modes, batch_size=_BATCH, intensity=intensity
        )
        x, y = places[held].T
        model = predicted_amplitudes(made.object, made.probe, x, y, made.origin_xy).astype(np.float64)
    except PtychoError:
        return Attempt(1.0, 1.0, np.ones(int(held.sum())), flat, None, flat_misfit)
    model *= ~part.bad
    if intensity:
        each = (model * seen).sum((1, 2)) / np.maximum((model**2).sum((1, 2)), 1e-300)
        model *= each[:, None, None]
    scale = float((model * seen).sum() / max(float((model**2).sum()), 1e-300))
    total = max(float((seen**2).sum()), 1e-300)
    misfit = ((scale * model - seen) ** 2).sum(axis=(1, 2))
    # the noise is that of the patterns themselves, whatever the model says of their mean
    per_count = quanta_per_count(measure_dispersion(part.counts, part.bad), counts_known)
    noise = None
    if per_count is not None:
        noise = poisson_noise_r(model**2 * (total / per_count / max(float((model**2).sum()), 1e-300)))
    return Attempt(made.r, float(np.sqrt(misfit.sum() / total)), misfit / total, flat, noise, flat_misfit)


def _coarser(probe: NDArray[np.complex64], side: int) -> NDArray[np.complex64]:
    """The probe on coarser pixels: its spectrum cut to the central `side` px, power kept."""
    N = probe.shape[-1]
    cut = slice(N // 2 - side // 2, N // 2 - side // 2 + side)
    axes = (-2, -1)
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe, axes), norm="ortho"), axes)
    small = np.fft.ifft2(np.fft.ifftshift(spectrum[..., cut, cut], axes), norm="ortho")
    return np.asarray(np.fft.fftshift(small, axes), np.complex64)
