"""The low frequencies of an object in closed form, from total counts and centres of mass alone.

One pattern says little of periods longer than its probe, and a sweep spreads what it says by one window. All
patterns together say it at once: log counts and centre of mass are, around a flat object, the log amplitude a
and the phase phi of the object under known kernels (moments.py). Both fields are found by one ridge least
squares on a coarse grid,
    minimise  sum_j |y_j - (K a)(x_j) - (L phi)(x_j) - c|^2 / var_j + |a|^2_S / s_a^2 + |phi|^2_S / s_phi^2 ,
with S the power law of images, c free (scale of the probe, centre of the beam), kernels as products in
Fourier space and positions x_j read off by cubic splines. The strengths s_a and s_phi and the variances
follow from the fields and what they leave, so no scale of counts is taken for granted. The centre of mass as
a phase gradient under the probe: differential phase contrast, H. Rose, Ultramicroscopy 2, 251 (1977). The
probe's own current lets amplitude move it too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import DataError
from ptycho.io.lazy import Patterns
from ptycho.run.coarse_grid import CoarseGrid, Real, Spectra, conjugate_gradients
from ptycho.run.moments import Moments, moment_responses, pattern_moments

_STEP = 0.9  # of the coarse grid, in standard deviations of the probe's light
_ITERATIONS = 40
_TOLERANCE = 1e-2
_DARK = 0.05  # of the median counts: a pattern under this is left out
_MODEL_ERROR = 0.01  # variance beside the photons' noise, in parts of the variance of the data
_FIRST_STRENGTHS = (0.15, 0.5)  # of log amplitude and phase, rad: rms
_LEAST_STRENGTHS = (0.02, 0.05)
_FIRST_NOISE = 0.3  # variance of the noise in parts of that of the data, before anything is known
_ROUNDS = 3
_HELD_OUT = 6  # one pattern in so many tells the noise


@dataclass(frozen=True)
class CoarseStart:
    """A coarse object.

    object (H, W) complex64, mean log amplitude and mean phase zero; origin_xy: the object pixel [x, y] of its
    [0, 0]; explained: shares of the variance of log counts and of centres of mass that it explains.
    """

    object: NDArray[np.complex64]
    origin_xy: tuple[int, int]
    explained: tuple[float, float]


def coarse_start(
    patterns: Patterns,
    positions_xy: NDArray[np.float64],
    probe: ArrayLike,
    *,
    unit: str = "counts",
    bad_pixels: ArrayLike | None = None,
    shape: tuple[int, int] | None = None,
    origin_xy: tuple[int, int] | None = None,
) -> CoarseStart:
    """The low frequencies of the object under a scan.

    patterns (M, N, N), counts or amplitude (`unit`), zero frequency at [N//2, N//2], in memory or read row by
    row; positions_xy (M, 2) float64 px [x, y] of patch pixel [N//2, N//2]; probe (N, N) or (P, N, N), any
    scale; bad_pixels (N, N) bool. shape, origin_xy: the canvas, else what the windows need. Time and memory:
    one pass over the patterns, 256 at a time, and grids linear in the canvas. DataError where nothing can be
    read.
    """
    moments = pattern_moments(patterns, unit=unit, bad_pixels=bad_pixels)
    return coarse_from_moments(
        moments, positions_xy, probe, bad_pixels=bad_pixels, shape=shape, origin_xy=origin_xy
    )


def coarse_from_moments(
    moments: Moments,
    positions_xy: NDArray[np.float64],
    probe: ArrayLike,
    *,
    bad_pixels: ArrayLike | None = None,
    shape: tuple[int, int] | None = None,
    origin_xy: tuple[int, int] | None = None,
) -> CoarseStart:
    """`coarse_start` from sums that are known already. Memory: grids linear in the canvas."""
    places = np.asarray(positions_xy, np.float64)
    n = int(np.shape(probe)[-1])
    if places.shape != (len(moments.counts), 2) or not np.isfinite(places).all():
        raise DataError(f"positions have shape {places.shape}; give ({len(moments.counts)}, 2) finite px")
    if shape is None or origin_xy is None:
        low = np.floor(places.min(0)).astype(int) - n // 2
        high = np.ceil(places.max(0)).astype(int) - n // 2 + n
        origin_xy, shape = (int(low[0]), int(low[1])), (int(high[1] - low[1]), int(high[0] - low[0]))
    problem = _Problem(moments, places, probe, bad_pixels, shape, origin_xy)
    strengths = _FIRST_STRENGTHS
    for _ in range(_ROUNDS):
        spectra = problem.solve(strengths, problem.taught)
        strengths = problem.strengths(spectra)
        problem.learn_noise(spectra)
    spectra = problem.solve(strengths)
    log_amplitude, turn = problem.grid.canvas(spectra)
    image = np.exp(log_amplitude - log_amplitude.mean() + 1j * (turn - turn.mean()))
    return CoarseStart(image.astype(np.complex64), origin_xy, problem.explained(spectra))


class _Problem:
    """The least squares of the module docstring; fields are spectra (2, Gy, Gx // 2 + 1) of the grid."""

    def __init__(
        self,
        moments: Moments,
        places: Real,
        probe: ArrayLike,
        bad_pixels: ArrayLike | None,
        shape: tuple[int, int],
        origin_xy: tuple[int, int],
    ) -> None:
        responses = moment_responses(probe, bad_pixels)
        # a margin of half a window keeps the two sides of the periodic grid apart
        n = responses.kernels.shape[-1]
        self.grid = CoarseGrid(shape, grid_step_px(responses.kernels[0, 0]), n // 2)
        self.transfer = _transfer(responses.kernels, self.grid.frequency)
        self.read = self.grid.reader(places - origin_xy)
        lit = moments.counts > _DARK * np.median(moments.counts)
        counts = np.where(lit, moments.counts, 1.0)
        self.data = np.stack([np.log(counts), *moments.centre_xy.T])
        spread = self.data[:, lit].var(1, keepdims=True)
        photons = responses.noise[:, None] / counts
        self.lit, self.model_error = lit, _MODEL_ERROR * spread + 1e-30
        self.photons = photons / photons[:, lit].mean(1, keepdims=True)
        self.weights = self._weights(_FIRST_NOISE * spread)
        self.taught = np.ones(len(places), bool)
        self.taught[np.random.default_rng(0).permutation(len(places))[: len(places) // _HELD_OUT]] = False

    def _weights(self, noise: Real) -> Real:
        """1 / variance (3, M), 0 for dark patterns; noise (3, 1): mean variance of each datum."""
        return np.where(self.lit, 1 / (noise * self.photons + self.model_error), 0.0)

    def learn_noise(self, spectra: Spectra) -> None:
        """Weights from what two fields leave unexplained in patterns that they were not fitted to."""
        rest = self._centred(self.data - self._forward(spectra), self.weights * self.taught)
        judged = self.lit & ~self.taught if (self.lit & ~self.taught).any() else self.lit
        self.weights = self._weights((rest[:, judged] ** 2).mean(1, keepdims=True))

    def _forward(self, spectra: Spectra) -> Real:
        """Data (3, M) of two fields."""
        waves = np.einsum("cfyx,fyx->cyx", self.transfer, spectra) * self.grid.prefilter
        return np.asarray((self.read @ self.grid.images(waves).reshape(3, -1).T).T)

    def _adjoint(self, data: Real) -> Spectra:
        """Spectra of what data (3, M) put on the grid, before the transpose of the inverse transform."""
        waves = self.grid.spectra((self.read.T @ data.T).T.reshape(3, *self.grid.grid))
        return np.asarray(np.einsum("cfyx,cyx->fyx", self.transfer.conj(), waves * self.grid.prefilter))

    def solve(self, strengths: tuple[float, float], rows: NDArray[np.bool_] | None = None) -> Spectra:
        """Both fields for prior strengths (s_a, s_phi), from the patterns `rows` (M,) or all of them."""
        weights = self.weights if rows is None else self.weights * rows
        root = np.asarray(strengths)[:, None, None] * self.grid.prior

        def pull(data: Real) -> Real:
            return self.grid.images(root * self._adjoint(weights * self._centred(data, weights)))

        def normal(move: Real) -> Real:
            return pull(self._forward(root * self.grid.spectra(move)))

        move = conjugate_gradients(normal, pull(self.data), _ITERATIONS, _TOLERANCE)
        return np.asarray(root * self.grid.spectra(move))

    def _centred(self, data: Real, weights: Real) -> Real:
        """Data (3, M) without what the free constants explain."""
        mean = (weights * data).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
        return np.asarray(data - mean)

    def strengths(self, spectra: Spectra) -> tuple[float, float]:
        """Prior strengths that two fields suggest: twice their rms at the positions, as a fit falls short."""
        images = self.grid.images(spectra * self.grid.prefilter).reshape(2, -1)
        found = 2 * (self.read @ images.T).std(0)
        return tuple(np.maximum(found, _LEAST_STRENGTHS).tolist())

    def explained(self, spectra: Spectra) -> tuple[float, float]:
        """Shares of the weighted variance of log counts and of the centres that two fields explain."""
        data = self._centred(self.data, self.weights)
        rest = (self.weights * self._centred(self.data - self._forward(spectra), self.weights) ** 2).sum(1)
        whole = np.maximum((self.weights * data**2).sum(1), 1e-30)
        return float(1 - rest[0] / whole[0]), float(1 - rest[1:].sum() / whole[1:].sum())


def grid_step_px(light: Real) -> float:
    """Step of the coarse grid, px: a share of the width of the probe's light (N, N), at least 1.5."""
    share = np.abs(light) / np.abs(light).sum()
    spread = []
    for axis in (0, 1):
        line, at = share.sum(axis), np.arange(light.shape[1 - axis])
        spread.append(float(np.sqrt(line @ at**2 - (line @ at) ** 2)))
    return max(1.5, _STEP * min(spread))


def _transfer(kernels: Real, frequency: tuple[Real, Real]) -> NDArray[np.complex128]:
    """What a window reads of a wave exp(2 pi i q r) around its centre, (3, 2, Gy, Gx // 2 + 1)."""
    at = np.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    down, across = (np.exp(2j * np.pi * np.outer(k, at)) for k in frequency)
    return np.asarray(down @ kernels @ across.T)
