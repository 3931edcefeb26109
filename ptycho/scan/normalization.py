"""The gauges of the package: one number for the patterns, one for the photons, one for the probe.

Every factor that is divided out before the network is stored, so that counts and the absolute probe can be
restored.
"""

from __future__ import annotations

import logging
import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.lazy import Patterns
from ptycho.scan.units import Unit

logger = logging.getLogger(__name__)

DEFAULT_NPHOTONS = 1e6
_CHUNK_BYTES = 32 * 2**20
# Above this, a float32 square root is too coarse to show whether its square is whole to 0.01.
_MAX_CHECKED_COUNT = 1e4
_INTEGER_TOLERANCE = 1e-2
_MIN_CHECKED_PIXELS = 16


class Scan(Protocol):
    """What is asked of a scan here; `ptycho.scan.raw_data.RawData` has it."""

    diffraction_unit: Unit
    bad_pixels: NDArray[np.bool_] | None

    def amplitude_by_rows(self) -> Patterns:
        """Amplitude (M,N,N), read in blocks of patterns."""
        ...


def mean_power(amplitude: Patterns, bad_pixels: NDArray[np.bool_] | None = None) -> float:
    """Mean over the patterns of sum_ij X_ij^2, for (M,N,N) amplitude; bad pixels (N,N) are left out.

    Summed in float64 in row-major order whatever the dtype or memory layout, so equal values give equal bits.
    Time O(M N^2), memory one chunk of 32 MiB.

    >>> mean_power(np.array([[[1.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 0.0]]]))
    7.0
    """
    if amplitude.ndim != 3 or amplitude.size == 0:
        raise DataError(f"amplitude has shape {amplitude.shape}; expected (M,N,N) with M >= 1")
    step = max(1, _CHUNK_BYTES // (8 * amplitude[0].size))
    sums = []
    for begin in range(0, len(amplitude), step):
        chunk = np.ascontiguousarray(amplitude[begin : begin + step], dtype=np.float64)
        power = np.square(chunk)
        if bad_pixels is not None:
            power[:, bad_pixels] = 0.0
        sums.append(power.sum(axis=(1, 2)))
    return float(np.concatenate(sums).mean())


def x_scale(amplitude: Patterns, bad_pixels: NDArray[np.bool_] | None = None) -> float:
    """The factor from amplitude X (M,N,N) to network input x = X * x_scale: sqrt((N/2)^2 / <sum_ij X^2>).

    Taken over the training set once, stored, and reused unchanged at inference. Raises DataError when every
    pattern is zero. Time and memory as `mean_power`.

    >>> amplitude = np.full((3, 8, 8), 5.0)
    >>> scaled = amplitude * x_scale(amplitude)
    >>> round(mean_power(scaled), 9)  # (N/2)^2
    16.0
    """
    power = mean_power(amplitude, bad_pixels)
    if not math.isfinite(power) or power <= 0:
        raise DataError("every diffraction pattern is zero (or not finite): there is nothing to normalise by")
    return float(amplitude.shape[-1]) / 2 / math.sqrt(power)


def intensity_scale(nphotons: float, N: int) -> float:
    """s = 2 sqrt(nphotons) / N, so that (s x)^2 has `nphotons` counts in the mean pattern.

    >>> intensity_scale(1e6, 64)
    31.25
    >>> x = np.full((1, 64, 64), 0.5)  # <sum x^2> = (N/2)^2
    >>> mean_power(intensity_scale(1e6, 64) * x)
    1000000.0
    """
    if not (math.isfinite(nphotons) and nphotons > 0):
        raise DataError(f"nphotons is {nphotons}; it must be a positive number of counts per pattern")
    return 2 * math.sqrt(nphotons) / N


def photons_from_data(raw: Scan) -> float:
    """Mean counts per pattern of a scan: of counts, or of amplitude whose squares are whole numbers.

    For amplitude in arbitrary units the dose is unknown: then 1e6, with a warning in the log.
    """
    return photons_from_amplitude(raw.amplitude_by_rows(), raw.diffraction_unit, raw.bad_pixels)


def photons_from_amplitude(
    amplitude: Patterns, unit: Unit, bad_pixels: NDArray[np.bool_] | None = None
) -> float:
    """As `photons_from_data`, for amplitude (M,N,N) and the unit that the data came in."""
    if unit == "counts":
        return mean_power(amplitude, bad_pixels)
    if has_integer_squares(amplitude):
        photons = mean_power(amplitude, bad_pixels)
        logger.info("squared amplitudes are whole numbers: taken as counts, %.4g per pattern", photons)
        return photons
    logger.warning(
        "amplitude does not tell its photon number: nphotons = %.0e is assumed; set nphotons to the mean "
        "counts "
        "per pattern",
        DEFAULT_NPHOTONS,
    )
    return DEFAULT_NPHOTONS


def has_integer_squares(amplitude: Patterns, n_patterns: int = 64) -> bool:
    """Whether X^2 are counts: whole numbers to 0.01 wherever X^2 < 1e4, on evenly spaced patterns.

    Brighter pixels are not checked, because a float32 square root is not exact enough there. At least 16
    pixels must hold a count; otherwise a faint simulation without noise would pass as zeros.

    >>> counts = np.random.default_rng(0).poisson(5.0, (4, 8, 8))
    >>> has_integer_squares(np.sqrt(counts)), has_integer_squares(1.1 * np.sqrt(counts))
    (True, False)
    """
    step = max(1, len(amplitude) // n_patterns)
    squares = np.square(np.asarray(amplitude[::step], dtype=np.float64))
    checked = squares[squares < _MAX_CHECKED_COUNT]
    if np.count_nonzero(checked > 0.5) < _MIN_CHECKED_PIXELS:
        return False
    return bool(np.max(np.abs(checked - np.rint(checked))) < _INTEGER_TOLERANCE)


def normalize_probe(probe: NDArray[Any], probe_scale: float) -> tuple[NDArray[np.complex64], float]:
    """Probe (P,N,N) in the network's gauge and the factor it was multiplied by.

    sum_p sum |probe|^2 = (N/2)^2 (probe_scale/2)^2: at the default probe_scale 4 an object of amplitude 1/2
    in the beam explains the mean pattern. The absolute probe is the returned one divided by the factor.

    >>> probe, factor = normalize_probe(np.ones((1, 8, 8)), probe_scale=4.0)
    >>> round(float(np.sum(np.abs(probe) ** 2)), 4), factor  # (8/2)^2 (4/2)^2
    (64.0, 1.0)
    """
    if not (math.isfinite(probe_scale) and probe_scale > 0):
        raise DataError(f"probe_scale is {probe_scale}; it must be a positive number")
    if probe.ndim != 3 or probe.shape[-1] != probe.shape[-2]:
        raise DataError(
            f"probe has shape {probe.shape}; expected modes (P,N,N), see ptycho.scan.probe.as_modes"
        )
    wide = np.asarray(probe, dtype=np.complex128)
    power = float(np.sum(wide.real**2 + wide.imag**2))
    if not math.isfinite(power) or power <= 0:
        raise DataError("the probe is zero or not finite: it cannot be normalised")
    factor = (probe.shape[-1] / 2) * (probe_scale / 2) / math.sqrt(power)
    return (wide * factor).astype(np.complex64), factor
