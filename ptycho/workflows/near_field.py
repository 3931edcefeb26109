"""Whether a scan was measured in the near field: does a near-field model predict held-out patterns as well?

A short way behind the sample a pattern is the shadow of what the beam lights, and the far-field model
explains shadows too, with an object and a probe of its own: the image is then out of focus and the probe
another one. Both models are tried alike, by the same small solver, from the probe that the scan gives.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.illumination import beam_of, match
from ptycho.workflows.trials import Part, take_part

Floats = NDArray[np.float64]
Waves = NDArray[np.complex64]

_PATTERNS, _SWEEPS = 80, 8
_LARGEST = 256
#: distances lambda z / (object pixel)^2, px^2; with as many px^2 as the window has px the two models are one
_DISTANCES = (3.0, 6.0, 12.0, 24.0, 48.0, 96.0)
_MOST_OF_N = 0.7
_STEP, _SOFT = 0.9, 0.1
#: the mean pattern must be at least as like the propagated beam as like its diffraction
_ALIKE = 0.01


class NearField(NamedTuple):
    """sigma: standard errors by which the best near-field model predicts held-out patterns better than the
    far field; negative where the far field is ahead, -inf where the mean pattern speaks against the near
    field and nothing was tried. near, far: cosine of the mean pattern with the propagated beam and with its
    diffraction. distance_px2: lambda z / (object pixel)^2 of the best one."""

    sigma: float
    near: float
    far: float
    distance_px2: float


def near_field(raw: Any, *, seed: int = 0) -> NearField:
    """Compare both models on a part of the scan. Patterns over 256 px are not tried.

    Time: one propagation for each distance; where the mean pattern looks like the near field, some five
    reconstructions of 80 patterns in 8 sweeps, half a CPU second at N = 64. Memory: these patterns.
    """
    N = raw.N
    tried = [z for z in _DISTANCES if z < _MOST_OF_N * N]
    if N > _LARGEST:
        return NearField(-np.inf, 0.0, 1.0, 0.0)
    part = take_part(raw, _PATTERNS if N <= 128 else _PATTERNS // 2, seed, largest=_LARGEST)
    good = ~part.bad
    mean = np.sqrt(part.counts.mean(axis=0, dtype=np.float64))
    probe = np.asarray(raw.probe_modes, np.complex64)
    far = match(mean, good, np.sqrt(beam_of(probe))).here
    cosines = {z: match(mean, good, _shadow(probe, z)).here for z in tried}
    like = max(cosines.values())
    if like < far + _ALIKE:
        return NearField(-np.inf, like, far, 0.0)
    strongest = probe[int(np.argmax(np.sum(np.abs(probe) ** 2, axis=(1, 2))))]
    missed = _misfit(part, strongest, None, seed)
    others = {z: _misfit(part, strongest, kernel(N, z), seed) for z in tried}
    best = min(others, key=lambda z: float(others[z].sum()))
    lead = missed - others[best]
    spread = float(lead.std(ddof=1)) / np.sqrt(len(lead)) if len(lead) > 2 else 0.0
    return NearField(float(lead.mean()) / spread if spread > 0 else 0.0, like, far, best)


def kernel(N: int, distance_px2: float) -> Waves:
    """What a wave's Fourier transform (N,N) is multiplied with to propagate it (Fresnel)."""
    k = np.fft.fftfreq(N)
    return np.exp(-1j * np.pi * distance_px2 * (k[:, None] ** 2 + k[None, :] ** 2)).astype(np.complex64)


def _shadow(probe: Waves, distance_px2: float) -> Floats:
    waves = np.fft.ifft2(np.fft.fft2(probe) * kernel(probe.shape[-1], distance_px2))
    return np.asarray(np.sqrt(np.sum(np.abs(waves) ** 2, axis=0)), np.float64)


def _misfit(part: Part, probe: Waves, through: Waves | None, seed: int) -> Floats:
    """Misfit (H,) of the held-out patterns after a few sweeps of rPIE over the others; through: the kernel of
    the near field, or None for the far field. The engine (`ptycho_torch.refine`) has no near field, and both
    models must be solved alike. Source: Maiden, Johnson, Li, Optica 4, 736 (2017), eqs. 9 and 11."""
    from scipy import fft

    N = probe.shape[-1]
    axes = (-2, -1)

    def there(wave: Waves) -> Waves:
        made = fft.fft2(wave, norm="ortho") if through is None else fft.ifft2(fft.fft2(wave) * through)
        return np.asarray(made)

    def back(wave: Waves) -> Waves:
        if through is None:
            return np.asarray(fft.ifft2(wave, norm="ortho"))
        return np.asarray(fft.ifft2(fft.fft2(wave) * through.conj()))

    seen, bad = np.sqrt(part.counts), part.bad
    if through is None:
        seen, bad = np.fft.ifftshift(seen, axes), np.fft.ifftshift(bad)
    at = np.round(part.positions - part.positions.min(axis=0)).astype(int)
    obj = np.ones(tuple(at.max(axis=0)[::-1] + N), np.complex64)
    fit = np.flatnonzero(~part.held_out)
    power = float((seen[fit] ** 2).sum(axis=(1, 2)).mean())
    probe = probe * np.float32(np.sqrt(power / max(float((np.abs(probe) ** 2).sum()), 1e-30)))
    rng = np.random.default_rng([seed, 17])
    for sweep in range(_SWEEPS):
        for i in rng.permutation(fit):
            x, y = at[i]
            patch = obj[y : y + N, x : x + N]
            exit_wave = probe * patch
            wave = there(exit_wave)
            size = np.abs(wave)
            change = back(wave * np.where(bad, 1, seen[i] / np.maximum(size, 1e-6))) - exit_wave
            light, clear = np.abs(probe) ** 2, np.abs(patch) ** 2
            step = _STEP * patch.conj() * change / (_SOFT * clear.max() + (1 - _SOFT) * clear + 1e-30)
            patch += _STEP * probe.conj() * change / (_SOFT * light.max() + (1 - _SOFT) * light + 1e-30)
            if sweep:
                probe = probe + step
    held = np.flatnonzero(part.held_out)
    model = np.stack([np.abs(there(probe * obj[y : y + N, x : x + N])) for x, y in at[held]])
    model = model * ~bad
    scale = float((model * seen[held]).sum()) / max(float((model**2).sum()), 1e-30)
    return np.asarray(((scale * model - seen[held]) ** 2).sum(axis=(1, 2)), np.float64)
