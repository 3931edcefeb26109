"""Smooth fields on a coarse periodic grid: a prior for images, and how scattered places read them.

A field is the spectrum of its values on the grid; a cubic spline joins the values. Everything is linear in
the area of the canvas and in the number of places.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.typing import NDArray

Real = NDArray[np.float64]
#: fields (F, Gy, Gx // 2 + 1), the half plane of a real transform
Spectra = NDArray[np.complex128]

_POWER = 2.5  # S(q) ~ q^-2.5: between photographs and random fields


class CoarseGrid:
    """A grid of step `step_px` over a canvas `shape` (H, W) and `margin_px` beyond it, wrapped around.

    grid: (Gy, Gx) points, the first on canvas pixel [0, 0]; frequency: cycles a px of its rows and of the
    half of its columns; prefilter: from values to spline weights, in Fourier space; prior: the root of S(q),
    so that white noise times it is a field of variance one.
    """

    def __init__(self, shape: tuple[int, int], step_px: float, margin_px: float) -> None:
        self.shape, self.step = shape, step_px
        rows, columns = (
            int(scipy.fft.next_fast_len(math.ceil((side + margin_px) / step_px), real=True)) for side in shape
        )
        self.grid = (rows, columns)
        down, across = np.fft.fftfreq(rows), np.fft.rfftfreq(columns)
        self.frequency: tuple[Real, Real] = (np.asarray(down / step_px), np.asarray(across / step_px))
        self.prefilter = 9 / np.outer(2 + np.cos(2 * np.pi * down), 2 + np.cos(2 * np.pi * across))
        self.prior = _prior(self.frequency, shape, self.grid)

    def images(self, spectra: Spectra) -> Real:
        """Values on the grid (F, Gy, Gx)."""
        return np.asarray(scipy.fft.irfft2(spectra, self.grid))

    def spectra(self, images: Real) -> Spectra:
        """The inverse of `images`."""
        return np.asarray(scipy.fft.rfft2(images))

    def reader(self, places_xy: Real, along: tuple[int, int] = (0, 0)) -> scipy.sparse.csr_matrix:
        """Spline values at places (M, 2) [x, y] canvas px from spline weights: sparse (M, Gy Gx).

        along: order (0 or 1) of the derivative by x and by y, per px.
        """
        across = _spline(places_xy[:, 0] / self.step, self.grid[1], along[0], self.step)
        down = _spline(places_xy[:, 1] / self.step, self.grid[0], along[1], self.step)
        return _outer(down, across)

    def canvas(self, spectra: Spectra) -> Real:
        """Fields (F, H, W) on the canvas."""
        coarse = self.images(spectra * self.prefilter)
        down, across = (
            _spline(np.arange(side) / self.step, grid, 0, self.step)
            for side, grid in zip(self.shape, self.grid, strict=True)
        )
        return np.ascontiguousarray(np.stack([(across @ (down @ field).T).T for field in coarse]))


def conjugate_gradients(
    normal: Callable[[Real], Real], right: Real, iterations: int, tolerance: float
) -> Real:
    """x with (normal + 1) x = right, `normal` symmetric and not negative."""
    solution, rest = np.zeros_like(right), right
    along, size = rest, float(np.vdot(rest, rest))
    enough = tolerance**2 * size
    for _ in range(iterations):
        if size <= enough:
            break
        image = normal(along) + along
        step = size / float(np.vdot(along, image))
        solution, rest = solution + step * along, rest - step * image
        before, size = size, float(np.vdot(rest, rest))
        along = rest + size / before * along
    return solution


def _spline(at: Real, size: int, order: int, step: float) -> scipy.sparse.csr_matrix:
    """Cubic B-spline weights (len(at), size) of places in grid steps, periodic, or their first derivative."""
    whole = np.floor(at).astype(np.int64)
    t = at - whole
    if order == 0:
        parts = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
        weights = np.stack(parts, 1) / 6
    else:
        parts = [-((1 - t) ** 2), 3 * t**2 - 4 * t, -3 * t**2 + 2 * t + 1, t**2]
        weights = np.stack(parts, 1) / (2 * step)
    columns = (whole[:, None] + np.arange(-1, 3)) % size
    starts = 4 * np.arange(len(at) + 1)
    return scipy.sparse.csr_matrix((weights.ravel(), columns.ravel(), starts), (len(at), size))


def _outer(down: scipy.sparse.csr_matrix, across: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """Row by row product of two sparse matrices with 4 entries a row: (M, Gy Gx) with 16."""
    rows, size = down.shape[0], across.shape[1]
    weights = down.data.reshape(rows, 4, 1) * across.data.reshape(rows, 1, 4)
    columns = down.indices.reshape(rows, 4, 1) * size + across.indices.reshape(rows, 1, 4)
    starts = 16 * np.arange(rows + 1)
    return scipy.sparse.csr_matrix((weights.ravel(), columns.ravel(), starts), (rows, down.shape[1] * size))


def _prior(frequency: tuple[Real, Real], shape: tuple[int, int], grid: tuple[int, int]) -> Real:
    """Root of S on the half plane; the mean and the highest frequency of an even grid are left out."""
    q2 = frequency[0][:, None] ** 2 + frequency[1] ** 2
    root = (q2 + 1 / max(shape) ** 2) ** (-_POWER / 4)
    root[0, 0] = 0.0
    if grid[0] % 2 == 0:
        root[grid[0] // 2] = 0.0
    if grid[1] % 2 == 0:
        root[:, -1] = 0.0
    power = np.sum(root**2, 0)
    mean = (power[0] + 2 * power[1:].sum()) / (grid[0] * grid[1])
    return np.asarray(root / math.sqrt(mean))
