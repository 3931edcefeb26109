"""Removing what far-field ptychography does not determine, so that what remains is error.

Not determined are: a complex scale (shared with the probe), a linear phase ramp (a shift of the probe's
spectrum), a common translation, and the conjugate-inverted twin conj(O(-r)). Shift and ramp are fitted in
turns by maximum correlation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho.evaluation.metrics import structure_nrmse
from ptycho.image.cropping import Box, common_box
from ptycho.image.registration import (
    apply_shift_fourier,
    fit_phase_ramp,
    hann_window,
    phase_ramp,
    register_translation,
    weighted_mean,
)

Complex = NDArray[np.complex128]

#: pixels around the judged box that take part in the alignment, so that a shift brings in real pixels
PAD_PX = 16
_ROUNDS = 3
#: a fit this good needs no search for large shifts or the twin
_GOOD_FIT = 0.3
#: another start is taken only if its error is smaller than this factor times the best so far
_PREFER = 0.98


@dataclass(frozen=True)
class Aligned:
    """A reconstruction in the gauge of the truth, on the judged box.

    recon, reference: (h, w) complex128. shift_px (dy, dx): the reconstruction lay that far from the truth.
    ramp_cycles (ky, kx) per side of the padded box; scale: what the reconstruction was multiplied by.
    twin: whether the conjugate-inverted reconstruction fits better, and is what `recon` shows.
    """

    recon: Complex
    reference: Complex
    shift_px: tuple[float, float]
    ramp_cycles: tuple[float, float]
    scale: complex
    twin: bool


def remove_gauge(
    recon: Complex, truth: Complex, roi: Box, origin_xy: tuple[float, float] = (0, 0), allow_twin: bool = True
) -> Aligned:
    """The reconstruction in the gauge of the truth, on the box roi (y0, y1, x0, x1) of the truth's pixels.

    Shapes: recon (H, W) with its pixel (0, 0) on the truth's pixel origin_xy [x, y], truth (H', W'). Starts
    from the given place, then from large shifts found by correlation, then from the twin; the best fit is
    taken. Time O(H W log(H W)), memory a few copies of the arrays.
    """
    best, best_misfit = None, np.inf
    for twin, source, start in _starts(recon, truth, origin_xy, allow_twin):
        aligned = _settle(source, truth, roi, origin_xy, start, twin)
        misfit = structure_nrmse(aligned.recon, aligned.reference)
        if best is None or misfit < _PREFER * best_misfit:
            best, best_misfit = aligned, misfit
        if best_misfit < _GOOD_FIT:
            break
    assert best is not None
    return best


def least_squares_scale(recon: Complex, truth: Complex) -> complex:
    """The complex number c that minimises ||c r - t||; 1 for a reconstruction of zeros.

    >>> least_squares_scale(np.array([1.0, 1j]), np.array([2j, -2.0]))
    2j
    """
    power = np.vdot(recon, recon).real
    return complex(np.vdot(recon, truth) / power) if power > 0 else 1 + 0j


def _starts(
    recon: Complex, truth: Complex, origin_xy: tuple[float, float], allow_twin: bool
) -> Iterator[tuple[bool, Complex, tuple[int, int]]]:
    """(twin?, image, whole-pixel shift (dy, dx)) to start from, the likeliest first."""
    for twin in (False, True) if allow_twin else (False,):
        image = recon[::-1, ::-1].conj() if twin else recon
        tried = set()
        for start in _large_shifts(image, truth, origin_xy):
            if start not in tried:
                tried.add(start)
                yield twin, image, start


def _large_shifts(
    recon: Complex, truth: Complex, origin_xy: tuple[float, float]
) -> Iterator[tuple[int, int]]:
    yield 0, 0
    y0, y1, x0, x1 = common_box(recon.shape, truth.shape, origin_xy)
    a, b = _window(recon, (y0, y1, x0, x1), origin_xy), truth[y0:y1, x0:x1]
    flat = a * phase_ramp(a.shape, fit_phase_ramp(a, b)).conj()
    # The complex field holds most information; the amplitude alone does not depend on a wrong first ramp.
    for first, second in ((flat * least_squares_scale(flat, b), b), (np.abs(a), np.abs(b))):
        dy, dx = register_translation(first, second, upsample=1, rounds=1)
        yield round(dy), round(dx)


def _settle(
    recon: Complex,
    truth: Complex,
    roi: Box,
    origin_xy: tuple[float, float],
    start: tuple[int, int],
    twin: bool,
) -> Aligned:
    """Ramp and shift in turns from a whole-pixel start, then the scale by least squares on the box."""
    y0, y1, x0, x1 = roi
    top, left = max(y0 - PAD_PX, 0), max(x0 - PAD_PX, 0)
    bottom, right = min(y1 + PAD_PX, truth.shape[0]), min(x1 + PAD_PX, truth.shape[1])
    t = truth[top:bottom, left:right]
    moved = (top + start[0], bottom + start[0], left + start[1], right + start[1])
    r = _window(recon, moved, origin_xy)
    window = hann_window(t.shape)
    ramp, shift = np.zeros(2), np.asarray(start, np.float64)
    for _ in range(_ROUNDS):
        step = fit_phase_ramp(r, t)
        r = r * phase_ramp(r.shape, step).conj()
        ramp += np.asarray(step) * r.shape
        # The phase of the scale is removed before the means are subtracted.
        scale = weighted_mean(r.conj() * t, window)
        dy, dx = register_translation(r * np.exp(1j * np.angle(scale)), t, upsample=1000, rounds=1)
        if np.hypot(dy, dx) <= PAD_PX / 2:
            r = apply_shift_fourier(r, (-dy, -dx))
            shift += (dy, dx)
    crop = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    r, t = r[crop], t[crop]
    scale = least_squares_scale(r, t)
    found, cycles = (float(shift[0]), float(shift[1])), (float(ramp[0]), float(ramp[1]))
    return Aligned(scale * r, t, found, cycles, scale, twin)


def _window(image: Complex, box: Box, origin_xy: tuple[float, float]) -> Complex:
    """The image's pixels on a box of the truth's frame; beyond the image its edge is repeated."""
    x, y = (round(float(v)) for v in origin_xy)
    rows = np.clip(np.arange(box[0], box[1]) - y, 0, image.shape[0] - 1)
    columns = np.clip(np.arange(box[2], box[3]) - x, 0, image.shape[1] - 1)
    return image[np.ix_(rows, columns)]
