"""Consistency of patterns and probe: centre, corner, probe of another scan, near field.

In the far field the mean pattern looks like the probe's own diffraction, blurred by the object. Both are
compared on the good pixels, for all shifts together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.findings import Finding
from ptycho.scan.probe import as_modes

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: phase gradients of the object may move the zero frequency; beyond this share of N the centre is wrong
_MAX_SHIFT = 1 / 16
#: least gain of another centre (cosine), and the cosine below which the probe belongs to another scan
_BETTER, _ALIKE, _UNLIKE = 0.12, 0.6, 0.5
#: least share of the beam on good pixels for a comparison of its shape
_VISIBLE = 0.4
_MAX_POWER_RATIO = 4.0


def beam_of(probe: NDArray[Any]) -> Floats:
    """Intensity (N,N) that modes (P,N,N) alone would give, zero frequency at (N//2, N//2)."""
    modes = as_modes(probe).astype(np.complex128)
    waves = np.fft.fftshift(np.fft.fft2(modes, norm="ortho"), axes=(-2, -1))
    return np.asarray(np.sum(np.abs(waves) ** 2, axis=0))


class Match(NamedTuple):
    """Cosine of two images without shift, the best of all shifts, and that shift (rows, columns) px."""

    here: float
    best: float
    shift: tuple[int, int]


def match(image: Floats, good: Mask, model: Floats) -> Match:
    """Compare an image on its good pixels with a model at every cyclic shift. Time O(N^2 log N)."""
    seen = np.where(good, image, 0.0)
    power = float((seen**2).sum())

    def correlate(a: Floats, b: Floats) -> Floats:
        return np.fft.ifft2(np.fft.fft2(a) * np.fft.fft2(b).conj()).real

    cross = correlate(seen, model)
    under = np.maximum(correlate(good.astype(np.float64), model**2), 0.0)
    # if a shift moves the model behind the mask, nothing remains to compare
    known = under > 0.3 * (model**2).sum()
    cosine = np.where(known, cross / np.sqrt(np.maximum(power * under, 1e-300)), -1.0)
    if power <= 0:
        return Match(0.0, 0.0, (0, 0))
    row, column = np.unravel_index(int(cosine.argmax()), cosine.shape)
    N = len(image)
    shift = ((int(row) + N // 2) % N - N // 2, (int(column) + N // 2) % N - N // 2)
    here = float(cross[0, 0] / np.sqrt(max(power * float(under[0, 0]), 1e-300)))
    return Match(here, float(cosine.max()), shift)


def probe_findings(
    probe: NDArray[Any], mean_pattern: Floats, good: Mask, counts_mean: float, counts_known: bool
) -> list[Finding]:
    """Findings about probe and patterns together.

    mean_pattern (N,N) counts, 0 where not good. Time O(P N^2 log N).
    """
    found = _corner(probe)
    beam = beam_of(probe)
    if not good.any() or mean_pattern.sum() <= 0:
        return found
    N = len(beam)
    amplitude, model = np.sqrt(mean_pattern), np.sqrt(beam)
    together = match(amplitude, good, model)
    row, column = together.shift
    away = float(np.hypot(row, column))
    if away > max(N * _MAX_SHIFT, 2.0) and together.best - together.here > _BETTER and together.best > _ALIKE:
        corner = min(N / 2 - abs(row), N / 2 - abs(column)) <= N * _MAX_SHIFT
        how = "np.fft.fftshift the patterns over their last two axes" if corner and abs(row) > N / 4 else (
            "move the crop, or shift the patterns by as much"
        )  # fmt: skip
        found.append(
            Finding(
                "pattern_centre", "problem", "diff3d",
                f"the zero frequency is not at ({N // 2}, {N // 2}): the light is centred on row"
                f" {(N // 2 + row) % N}, column {(N // 2 + column) % N}", how,
            )
        )  # fmt: skip
    elif together.best < 0.65 and (beam * good).sum() > _VISIBLE * beam.sum():
        near = _near_field(probe, amplitude, good, together)
        if near is not None:
            found.append(near)
        elif together.best < _UNLIKE or (together.here < _UNLIKE and together.best < _ALIKE):
            found.append(_unlike(together))
    if counts_known and counts_mean > 0:
        found += _power(probe, counts_mean)
    return found


def _near_field(probe: NDArray[Any], amplitude: Floats, good: Mask, together: Match) -> Finding | None:
    """A mean pattern that resembles the illumination itself or is lit everywhere, unlike the far field."""
    if together.best > 0.65:
        return None
    field = np.sqrt(np.sum(np.abs(as_modes(probe)).astype(np.float64) ** 2, axis=0))
    itself = max(match(amplitude, good, image).best for image in (field, _blurred(field)))
    even = match(amplitude, good, np.ones_like(field)).here
    if max(itself, even) < max(0.9, together.best + 0.15):
        return None
    looks = "the illumination itself" if itself >= even else "a field that is lit all over"
    return Finding(
        "near_field", "problem", "diff3d",
        f"the mean pattern looks more like {looks} (cosine {max(itself, even):.2f}) than like its far-field"
        f" diffraction ({together.best:.2f}): near-field data, or another scan's probe",
        "this package models the far field only; use a near-field code, or check the probe",
    )  # fmt: skip


def _unlike(together: Match) -> Finding:
    return Finding(
        "probe_of_another_scan", "problem", "probeGuess",
        f"the probe's own diffraction does not look like the mean pattern (cosine {together.best:.2f}; right"
        " ones reach 0.9): it is another scan's, or of other optics",
        "give this scan's probe, or leave probeGuess out and let one be made",
    )  # fmt: skip


def _blurred(image: Floats) -> Floats:
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter(image, max(1.0, len(image) / 24)))


def _corner(probe: NDArray[Any]) -> list[Finding]:
    """A probe that lies around [0, 0] instead of the middle."""
    power = np.sum(np.abs(as_modes(probe)).astype(np.float64) ** 2, axis=0)
    N = len(power)
    turn = np.exp(2j * np.pi * np.arange(N) / N)
    total = max(float(power.sum()), 1e-300)
    sums = [complex(power.sum(axis=axis) @ turn) / total for axis in (1, 0)]
    centre = [float(np.angle(one) * N / (2 * np.pi) % N) for one in sums]
    off = [min(abs(c - N // 2), N - abs(c - N // 2)) for c in centre]
    sure = min(abs(one) for one in sums) > 0.2
    if sure and min(off) > N / 3:
        return [
            Finding(
                "probe_corner", "problem", "probeGuess",
                "the probe lies in the corners of its array, not in the middle",
                "np.fft.fftshift it over its last two axes",
            )
        ]  # fmt: skip
    if any(abs(one) > 0.2 and far > N / 5 for one, far in zip(sums, off, strict=True)):
        return [
            Finding(
                "probe_off_centre", "problem", "probeGuess",
                f"the probe is centred on row {centre[0]:.1f}, column {centre[1]:.1f}, not on ({N // 2},"
                f" {N // 2})",
                "move it with np.roll, or all positions are off by as much",
            )
        ]  # fmt: skip
    return []


def _power(probe: NDArray[Any], counts_mean: float) -> list[Finding]:
    """By Parseval, an object of amplitude at most one cannot scatter more power than the probe has."""
    ratio = float(np.sum(np.abs(as_modes(probe)).astype(np.float64) ** 2)) / counts_mean
    if 1 / _MAX_POWER_RATIO <= ratio <= _MAX_POWER_RATIO:
        return []
    return [
        Finding(
            "probe_power", "note", "probeGuess",
            f"the probe power is {ratio:.3g} times the mean counts of a pattern",
            "nothing to do: training and refinement scale the probe; absolute amplitudes of the object"
            " follow it",
        )
    ]  # fmt: skip
