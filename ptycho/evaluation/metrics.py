"""Distances between a reconstruction and the truth, after the gauge is removed: pure functions of two arrays.

Where a data range is needed, it is the range of the truth inside the judged box.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import InputError

Real = NDArray[np.float64]

#: exponents of the five scales, Wang, Simoncelli, Bovik, Asilomar 2003, section 3.2
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5


def complex_nrmse(rec: ArrayLike, true: ArrayLike) -> float:
    """||r - t|| / ||t|| of two complex images of one shape.

    >>> complex_nrmse([3.0, 4.0], [3.0, 0.0])
    1.3333333333333333
    """
    r, t = np.asarray(rec), np.asarray(true)
    return float(np.linalg.norm(r - t) / np.linalg.norm(t))


def structure_nrmse(rec: ArrayLike, true: ArrayLike) -> float:
    """||r - t|| / ||t - mean t||: 1 for a reconstruction that shows the mean and nothing else.

    >>> structure_nrmse([2.0, 2.0], [1.0, 3.0])
    1.0
    """
    r, t = np.asarray(rec), np.asarray(true)
    structure = float(np.linalg.norm(t - t.mean()))
    error = float(np.linalg.norm(r - t))
    if structure == 0:
        return 0.0 if error == 0 else float("inf")
    return error / structure


def psnr(rec: ArrayLike, true: ArrayLike, data_range: float | None = None) -> float:
    """10 log10(range^2 / MSE) in dB of two real images; range None: that of the truth; inf for no error.

    >>> psnr(np.zeros((2, 2)) + 0.1, np.array([[0.0, 0.0], [0.0, 0.0]]), data_range=1.0)
    20.0
    """
    r, t = np.asarray(rec, np.float64), np.asarray(true, np.float64)
    error = float(np.mean((r - t) ** 2))
    span = _range(t, data_range)
    return (
        float("inf") if error == 0 else float(10 * np.log10(span**2 / error)) if span > 0 else float("-inf")
    )


def ssim(rec: ArrayLike, true: ArrayLike, data_range: float | None = None) -> float:
    """Structural similarity of two real images (H, W), both sides at least 7 px; uniform 7 x 7 window.

    Source: Wang et al., IEEE TIP 13, 600 (2004), as in scikit-image.

    >>> image = np.random.default_rng(0).random((16, 16))
    >>> ssim(image, image)
    1.0
    """
    from skimage.metrics import structural_similarity

    r, t = np.asarray(rec, np.float64), np.asarray(true, np.float64)
    if min(r.shape) < 7:
        raise InputError(f"SSIM needs images of at least 7 x 7 px, got {r.shape}: enlarge the box")
    similarity = structural_similarity(t, r, data_range=_range(t, data_range) or 1.0)  # type: ignore[no-untyped-call]
    return float(similarity)


def ms_ssim(rec: ArrayLike, true: ArrayLike, data_range: float | None = None) -> float:
    """Multi-scale structural similarity of two real images (H, W), both sides at least 11 px.

    prod_j cs_j^w_j * ssim_J^w_J over scales halved by 2 x 2 means, 11 x 11 Gaussian window of sigma 1.5,
    valid pixels only, negative terms counted as zero. Below 176 px of side only the scales that hold the
    window are used, with their weights scaled to the same sum. Source: Wang, Simoncelli, Bovik, "Multiscale
    structural similarity", Asilomar 2003, eq. 7.

    >>> image = np.random.default_rng(0).random((32, 32))
    >>> round(ms_ssim(image, image), 9)
    1.0
    """
    r, t = np.asarray(rec, np.float64), np.asarray(true, np.float64)
    if min(r.shape) < _WINDOW:
        raise InputError(f"MS-SSIM needs images of at least 11 x 11 px, got {r.shape}: enlarge the box")
    scales = 1
    while scales < len(MS_SSIM_WEIGHTS) and min(r.shape) >> scales >= _WINDOW:
        scales += 1
    weights = np.array(MS_SSIM_WEIGHTS[:scales])
    weights *= sum(MS_SSIM_WEIGHTS) / weights.sum()
    span = _range(t, data_range) or 1.0
    product = 1.0
    for scale in range(scales):
        full, contrast = _ssim_terms(r, t, span)
        term = full if scale == scales - 1 else contrast
        product *= max(term, 0.0) ** weights[scale]
        r, t = _halved(r), _halved(t)
    return float(product)


def pearson(rec: ArrayLike, true: ArrayLike) -> float:
    """Correlation coefficient of two real images; 0 when either is constant, as for a collapsed network.

    >>> round(pearson([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 9), pearson([1.0, 1.0, 1.0], [2.0, 4.0, 6.0])
    (1.0, 0.0)
    """
    r, t = np.asarray(rec, np.float64), np.asarray(true, np.float64)
    # Rounding leaves a constant image with a spread of about 1e-16 of its size.
    constant = any(np.std(z) <= 1e-12 * np.max(np.abs(z)) for z in (r, t))
    r, t = r - r.mean(), t - t.mean()
    norm = float(np.linalg.norm(r) * np.linalg.norm(t))
    return 0.0 if constant else float((r * t).sum() / norm)


def unwrapped_phases(rec: ArrayLike, true: ArrayLike) -> tuple[Real, Real]:
    """Phases in rad of two complex images without 2 pi jumps: (reconstruction, truth).

    The truth is unwrapped. The phase error angle(r conj(t)) is added to it, so that a wrap never counts as an
    error.

    >>> truth = np.exp(1j * np.linspace(0, 10, 50))[None]
    >>> ours, theirs = unwrapped_phases(truth * np.exp(0.1j), truth)
    >>> round(float(theirs[0, -1]), 6), round(float((ours - theirs).max()), 6)
    (10.0, 0.1)
    """
    r, t = np.asarray(rec), np.asarray(true)
    phase = np.unwrap(np.unwrap(np.angle(t), axis=0), axis=1)
    return phase + np.angle(r * t.conj()), phase


def _range(true: Real, data_range: float | None) -> float:
    return float(np.ptp(true)) if data_range is None else float(data_range)


def _ssim_terms(r: Real, t: Real, span: float) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure term over the pixels whose window lies inside."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    kernel = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    kernel /= kernel.sum()

    def local(image: Real) -> Real:
        rows = np.lib.stride_tricks.sliding_window_view(image, _WINDOW, axis=0) @ kernel
        return np.asarray(np.lib.stride_tricks.sliding_window_view(rows, _WINDOW, axis=1) @ kernel)

    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_r, mean_t = local(r), local(t)
    var_r = np.maximum(local(r * r) - mean_r**2, 0.0)
    var_t = np.maximum(local(t * t) - mean_t**2, 0.0)
    contrast = (2 * (local(r * t) - mean_r * mean_t) + c2) / (var_r + var_t + c2)
    luminance = (2 * mean_r * mean_t + c1) / (mean_r**2 + mean_t**2 + c1)
    return float((luminance * contrast).mean()), float(contrast.mean())


def _halved(image: Real) -> Real:
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2)
    return np.asarray(blocks.mean(axis=(1, 3)))
