"""A first probe for a scan without one: disk, Gaussian, zone plate of known optics, or from the mean pattern.

The mean pattern gives the probe's amplitude in Fourier space, blurred by the object. The step of the scan
gives the least width of the beam. The phase is unknown; several values of defocus are tried. Only a
reconstruction shows which candidate is best: `ptycho.workflows.probe_choice`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.scan.probe import Modes, illuminated_diameter_px

Floats = NDArray[np.float64]

#: least number of patterns for making a probe
FEWEST_PATTERNS = 20
#: tried widths of the beam, in steps of the scan
_WIDTHS = (2.5, 5.0)


def mean_pattern_probe(mean_counts: Floats, diameter_px: float, sign: int = 1) -> Modes:
    """The probe (1,N,N) with the mean pattern's amplitude, defocused until it is `diameter_px` wide.

    mean_counts (N,N), zero frequency at (N//2, N//2). sign: of the defocus. A beam that is wider than this in
    focus is not defocused.
    """
    N = len(mean_counts)
    amplitude = np.sqrt(_rounded(mean_counts))
    axis = np.arange(N) - N // 2
    square = axis[:, None] ** 2 + axis[None, :] ** 2

    def made(curvature: float) -> Modes:
        wave = amplitude * np.exp(1j * sign * curvature * square)
        probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(wave), norm="ortho"))
        return probe[None].astype(np.complex64)

    low, high = 0.0, math.pi / N  # beyond, the phase turns by more than half a circle a pixel
    for _ in range(12):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if illuminated_diameter_px(made(middle)) < diameter_px else (low, middle)
    return made(low)


def zone_plate_probe(
    N: int,
    pixel_size_m: float,
    wavelength_m: float,
    diameter_m: float,
    outer_width_m: float,
    stop_m: float = 0.0,
    defocus_m: float = 0.0,
) -> Modes:
    """The probe (1,N,N) of a Fresnel zone plate: its pupil, propagated `defocus_m` beyond the focus.

    pixel_size_m of the object; diameter_m and outer_width_m (the outermost zone) of the plate, stop_m the
    central
    stop; focal length = diameter * outer width / wavelength. Raises DataError for optics that do not fit.
    """
    lengths = (pixel_size_m, wavelength_m, diameter_m, outer_width_m)
    if not all(math.isfinite(one) and one > 0 for one in lengths) or not 0 <= stop_m < diameter_m:
        raise DataError(
            "zone plate: pixel size, wavelength, diameter and outer zone width must be positive, and the stop"
            " smaller than the plate"
        )
    focal_m = diameter_m * outer_width_m / wavelength_m
    k = np.fft.fftshift(np.fft.fftfreq(N, pixel_size_m))
    square = k[:, None] ** 2 + k[None, :] ** 2
    radius = np.sqrt(square) * wavelength_m * focal_m
    width = wavelength_m * focal_m / (N * pixel_size_m)  # one Fourier pixel, in the pupil
    pupil = np.clip((diameter_m / 2 - radius) / width + 0.5, 0, 1)
    pupil = pupil * np.clip((radius - stop_m / 2) / width + 0.5, 0, 1) if stop_m > 0 else pupil
    wave = pupil * np.exp(-1j * np.pi * wavelength_m * defocus_m * square)
    if not np.abs(wave).sum() > 0:
        raise DataError("zone plate: no light reaches the window; check pixel size, wavelength and plate")
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(wave), norm="ortho"))[None].astype(np.complex64)


def candidates(mean_counts: Floats, step_px: float) -> dict[str, Modes]:
    """Probes (1,N,N) by name, each with the counts of the mean pattern as its power; the first is the
    default.

    mean_counts (N,N) counts, 0 in bad pixels; step_px of the scan, which bounds the beam from below.
    """
    N = len(mean_counts)
    power = float(mean_counts.sum())
    if power <= 0:
        raise DataError("the mean pattern is empty: no probe can be made from it; pass probeGuess")
    axis = np.arange(N) - N // 2
    radius = np.hypot(axis[:, None], axis[None, :])
    made: dict[str, Modes] = {}
    widths = [min(max(factor * step_px, 4.0), 0.6 * N) for factor in _WIDTHS]
    for width in reversed(widths):
        for sign, word in ((1, "over"), (-1, "under")):
            made[f"mean pattern, {word} focus, {width:.0f} px"] = mean_pattern_probe(mean_counts, width, sign)
    made["mean pattern, in focus"] = mean_pattern_probe(mean_counts, 0.0)
    for width in widths:
        made[f"disk, {width:.0f} px"] = (1 / (1 + np.exp(np.clip((radius - width / 2) / 0.7, -50, 50))))[
            None
        ].astype(np.complex64)
        made[f"gaussian, {width:.0f} px"] = np.exp(-((radius / (0.47 * width)) ** 2))[None].astype(
            np.complex64
        )
    return {name: (probe * np.sqrt(power / np.sum(np.abs(probe) ** 2))).astype(np.complex64)
            for name, probe in made.items()}  # fmt: skip


def _rounded(mean_counts: Floats) -> Floats:
    """The mean pattern, with bad pixels filled from their surroundings and slightly smoothed noise."""
    from scipy import ndimage

    known = (mean_counts > 0).astype(np.float64)
    near = ndimage.gaussian_filter(mean_counts, 0.7)
    weight = ndimage.gaussian_filter(known, 0.7)
    return np.asarray(np.maximum(np.divide(near, weight, out=np.zeros_like(near), where=weight > 0.05), 0.0))
