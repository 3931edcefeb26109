"""The forward model of far-field ptychography in NumPy float64: slow, plain, the oracle for both backends.

Letters: M positions, N patch side, P probe modes, B groups, C patterns a group, (H, W) object or canvas.
Arrays are [row, column]; positions and shifts are [x, y] = [column, row], in object pixels, sub-pixel exact.
The position of a patch is the object pixel under patch pixel (N//2, N//2).

Source: Hoidn et al., Sci. Rep. 13, 22789 (2023), eqs. 1-5; the contract of this project (specs/physics.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]

#: floor of every merge weight, so that the merge is the plain overlap mean outside all windows
MERGE_EPSILON = 1e-3
#: counts added to every predicted rate, so that log(rate) is finite
RATE_EPSILON = 1e-6


def _axis_weights(size: int, shift: float) -> tuple[int, float]:
    """Split a shift into whole pixels and the fraction in [0, 1) that bilinear interpolation blends."""
    whole = int(np.floor(shift))
    return whole, shift - whole


def _shift_rows(image: Complex, shift: float) -> Complex:
    """Move rows (second last axis) by +shift pixels with linear interpolation and zero fill."""
    size = image.shape[-2]
    whole, fraction = _axis_weights(size, shift)
    out = np.zeros_like(image)
    for step, weight in ((whole, 1.0 - fraction), (whole + 1, fraction)):
        if weight == 0.0 or abs(step) >= size:
            continue
        if step >= 0:
            out[..., step:, :] += weight * image[..., : size - step, :]
        else:
            out[..., :step, :] += weight * image[..., -step:, :]
    return out


def shift_bilinear(image: ArrayLike, shift_xy: ArrayLike) -> Complex:
    """Move the content of one image by +shift: the operator T_t of the contract.

    Shapes: image (..., H, W) real or complex, shift_xy (2,) [x, y] in pixels; returns (..., H, W) complex128.
    Bilinear interpolation, zeros from outside. Its adjoint is the shift by -t.

    >>> image = np.zeros((3, 4))
    >>> image[1, 1] = 1
    >>> shift_bilinear(image, (0.25, 0)).real.tolist()[1]  # a quarter of a pixel to the right
    [0.0, 0.75, 0.25, 0.0]
    """
    x, y = np.asarray(shift_xy, np.float64)
    rows = _shift_rows(np.asarray(image, np.complex128), float(y))
    return np.swapaxes(_shift_rows(np.swapaxes(rows, -1, -2), float(x)), -1, -2)


def shift_fourier(image: ArrayLike, shift_xy: ArrayLike) -> Complex:
    """Move the content of one image by +shift exactly, for periodic band-limited content.

    Shapes as in `shift_bilinear`. Unitary up to the Nyquist row of an even side; adjoint: the shift by -t.

    >>> image = np.zeros((4, 4))
    >>> image[1, 1] = 1
    >>> moved = shift_fourier(image, (1, 2))  # one column to the right, two rows down
    >>> int(np.argmax(moved.real)) == 3 * 4 + 2
    True
    """
    data = np.asarray(image, np.complex128)
    x, y = np.asarray(shift_xy, np.float64)
    ky = np.fft.fftfreq(data.shape[-2])[:, None]
    kx = np.fft.fftfreq(data.shape[-1])[None, :]
    return np.asarray(np.fft.ifft2(np.fft.fft2(data) * np.exp(-2j * np.pi * (ky * y + kx * x))))


def crop_centre(image: Complex, N: int) -> Complex:
    """Central N x N window, pixel (N//2, N//2) on pixel (H//2, W//2); shapes (..., H, W) -> (..., N, N).

    >>> crop_centre(np.arange(16).reshape(4, 4), 2).tolist()
    [[5, 6], [9, 10]]
    """
    top, left = image.shape[-2] // 2 - N // 2, image.shape[-1] // 2 - N // 2
    return image[..., top : top + N, left : left + N]


def pad_centre(image: NDArray[Any], size: int) -> Complex:
    """Zero-pad N x N to size x size, centre pixel on centre pixel: the adjoint of `crop_centre`.

    >>> pad_centre(np.ones((1, 1)), 3).tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    N = image.shape[-1]
    before = size // 2 - N // 2
    widths = [(0, 0)] * (image.ndim - 2) + [(before, size - N - before)] * 2
    return np.pad(image, widths)


def extract(obj: ArrayLike, xcoords: ArrayLike, ycoords: ArrayLike, N: int) -> Complex:
    """Cut the patch under every position out of one object, bilinear at sub-pixel positions.

    Shapes: obj (H, W) complex, xcoords and ycoords (M,) float64 object pixels; returns (M, N, N) complex128.
    Pixels outside the object read as zero. Time and memory O(M N^2).

    >>> obj = np.arange(64).reshape(8, 8)
    >>> patch = extract(obj, [4.0], [3.0], 4)[0]
    >>> float(patch[2, 2].real), int(obj[3, 4])  # patch pixel (N//2, N//2) lies on object pixel [y, x]
    (28.0, 28)
    >>> float(extract(obj, [4.5], [3.0], 4)[0, 2, 2].real)  # halfway to the next column
    28.5
    """
    source = np.asarray(obj, np.complex128)
    xs, ys = np.asarray(xcoords, np.float64), np.asarray(ycoords, np.float64)
    padded = np.pad(source, N + 1)
    patches = np.empty((len(xs), N, N), np.complex128)
    for m, (x, y) in enumerate(zip(xs, ys, strict=True)):
        column, fx = _axis_weights(N, float(np.clip(x, -N, source.shape[1] + N)) - N // 2)
        row, fy = _axis_weights(N, float(np.clip(y, -N, source.shape[0] + N)) - N // 2)
        top = int(np.clip(row + N + 1, 0, padded.shape[0] - N - 1))
        left = int(np.clip(column + N + 1, 0, padded.shape[1] - N - 1))
        window = padded[top : top + N + 1, left : left + N + 1]
        rows = (1 - fy) * window[:-1] + fy * window[1:]
        patches[m] = (1 - fx) * rows[:, :-1] + fx * rows[:, 1:]
    return patches


def central_window(N: int) -> Real:
    """(N, N) float64 window that is one on the well-posed central N/2 x N/2 and zero elsewhere.

    >>> central_window(4).tolist()[1]
    [0.0, 1.0, 1.0, 0.0]
    """
    window = np.zeros((N, N))
    window[N // 4 : N // 4 + N // 2, N // 4 : N // 4 + N // 2] = 1.0
    return window


def canvas_side(N: int, relative_xy: ArrayLike) -> int:
    """Side in pixels of the square canvas that holds every shifted patch: nothing is clipped.

    >>> canvas_side(64, [[-1.5, 0.0], [1.5, 0.0]])
    68
    """
    reach = float(np.max(np.abs(np.asarray(relative_xy, np.float64)), initial=0.0))
    return N + 2 * int(np.ceil(reach))


def merge(patches: ArrayLike, relative_xy: ArrayLike, window: ArrayLike) -> Complex:
    """Lay the C patches of one group on a common canvas: the constraint map.

    canvas = sum_k T_{+r_k}[(w + eps) O_k] / sum_k T_{+r_k}[w + eps]: a weighted mean, so consistent patches
    merge without bias, and where every window is zero it is exactly the plain overlap mean.

    Shapes: patches (C, N, N) complex, relative_xy (C, 2) [x, y] = position minus group mean, window (N, N);
    returns (S, S) complex128 with S = `canvas_side`. Pixels that no patch reaches are zero.

    >>> patches, places = np.full((2, 4, 4), 3 + 1j), [[-1, 0], [1, 0]]
    >>> canvas = merge(patches, places, central_window(4))
    >>> canvas.shape, complex(np.round(canvas[3, 3], 9))  # equal patches merge to the same value
    ((6, 6), (3+1j))
    """
    stack = np.asarray(patches, np.complex128)
    offsets = np.asarray(relative_xy, np.float64)
    w = np.asarray(window, np.float64) + MERGE_EPSILON
    side = canvas_side(stack.shape[-1], offsets)
    total, weights = np.zeros((side, side), np.complex128), np.zeros((side, side))
    for patch, r in zip(stack, offsets, strict=True):
        total += shift_bilinear(pad_centre(w * patch, side), r)
        weights += shift_bilinear(pad_centre(w + 0j, side), r).real
    reached = weights > 0
    return np.where(reached, total / np.where(reached, weights, 1.0), 0.0)


def extract_group(canvas: ArrayLike, relative_xy: ArrayLike, N: int) -> Complex:
    """Cut every pattern's own view O'_k = crop_N[T_{-r_k} canvas] out of a group's canvas.

    Shapes: canvas (S, S), relative_xy (C, 2); returns (C, N, N) complex128.

    >>> patches, places = np.full((2, 4, 4), 3 + 1j), [[-1, 0], [1, 0]]
    >>> views = extract_group(merge(patches, places, np.ones((4, 4))), places, 4)
    >>> bool(np.allclose(views, patches))
    True
    """
    source = np.asarray(canvas, np.complex128)
    offsets = np.asarray(relative_xy, np.float64)
    return np.stack([crop_centre(shift_bilinear(source, -r), N) for r in offsets])


def exit_waves(patches: ArrayLike, probe: ArrayLike) -> Complex:
    """P_p O_k for every mode: patches (..., N, N) and probe (P, N, N) give (..., P, N, N).

    >>> exit_waves(np.ones((5, 8, 8)), np.ones((2, 8, 8))).shape
    (5, 2, 8, 8)
    """
    return np.asarray(np.asarray(patches, np.complex128)[..., None, :, :] * np.asarray(probe, np.complex128))


def propagate(waves: ArrayLike) -> Complex:
    """Unitary far-field propagation, zero frequency at (N//2, N//2); keeps sum |psi|^2 (Parseval).

    >>> wave = np.random.default_rng(0).standard_normal((8, 8))
    >>> bool(np.isclose(np.sum(np.abs(propagate(wave)) ** 2), np.sum(wave**2)))  # Parseval
    True
    >>> round(float(propagate(np.ones((8, 8)))[4, 4].real), 9)  # a flat wave goes to the centre
    8.0
    """
    return np.fft.fftshift(np.fft.fft2(np.asarray(waves, np.complex128), norm="ortho"), axes=(-2, -1))


def diffract(patches: ArrayLike, probe: ArrayLike) -> Real:
    """Far-field intensity A_k^2 = sum_p |FFT2_ortho(P_p O_k)|^2, modes added incoherently.

    Shapes: patches (..., N, N) complex, probe (N, N) or (P, N, N) complex; returns (..., N, N) float64.

    >>> patch, probe = np.ones((4, 4)), np.stack([np.ones((4, 4)), 2 * np.ones((4, 4))])
    >>> pattern = diffract(patch, probe)
    >>> round(float(pattern.sum()), 9)  # the power of both modes: 16 + 64
    80.0
    """
    modes = np.asarray(probe, np.complex128)
    waves = propagate(exit_waves(patches, modes.reshape(-1, *modes.shape[-2:])))
    return np.asarray(np.sum(np.abs(waves) ** 2, axis=-3))


def rate(intensity: ArrayLike, intensity_scale: float) -> Real:
    """Expected counts a pixel: s^2 A^2 + 1e-6.

    >>> float(rate(4.0, 10.0))
    400.000001
    """
    return intensity_scale**2 * np.asarray(intensity, np.float64) + RATE_EPSILON


def poisson_nll(expected: ArrayLike, counts: ArrayLike, bad_pixels: ArrayLike | None = None) -> float:
    """Mean of rate - N log(rate) over the counted pixels (log N! left out, it does not depend on the object).

    Shapes: expected and counts (..., N, N); bad_pixels (N, N) bool, True = left out.

    >>> round(poisson_nll([[2.0]], [[3.0]]), 6)  # 2 - 3 log 2
    -0.079442
    >>> poisson_nll([[3.0]], [[3.0]]) < poisson_nll([[2.0]], [[3.0]])  # smallest where the rate is the count
    True
    """
    lam, n = np.asarray(expected, np.float64), np.asarray(counts, np.float64)
    terms = lam - n * np.log(lam)
    if bad_pixels is None:
        return float(terms.mean())
    return float(terms[..., ~np.asarray(bad_pixels, bool)].mean())


def poisson_nll_floor(counts: ArrayLike, bad_pixels: ArrayLike | None = None) -> float:
    """Smallest value that `poisson_nll` can take for these counts: rate = N everywhere.

    >>> poisson_nll_floor([[3.0]]) == poisson_nll([[3.0]], [[3.0]])
    True
    """
    n = np.asarray(counts, np.float64)
    return poisson_nll(np.maximum(n, RATE_EPSILON), n, bad_pixels)


def amplitude_mae(intensity: ArrayLike, x: ArrayLike, bad_pixels: ArrayLike | None = None) -> float:
    """Mean absolute difference between predicted and measured amplitude, both in the gauge of x.

    >>> amplitude_mae([[4.0, 9.0]], [[1.0, 3.0]])
    0.5
    >>> amplitude_mae([[4.0, 9.0]], [[1.0, 3.0]], bad_pixels=[[True, False]])
    0.0
    """
    terms = np.abs(np.sqrt(np.asarray(intensity, np.float64)) - np.asarray(x, np.float64))
    if bad_pixels is None:
        return float(terms.mean())
    return float(terms[..., ~np.asarray(bad_pixels, bool)].mean())
