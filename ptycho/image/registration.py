"""Finding and undoing translations and phase ramps between two complex images.

Both are one problem: find the frequency at which the product of one field with the conjugate of the other is
strongest. In real space this gives a ramp, in Fourier space a shift. The maximum is refined by a matrix
Fourier transform. Source: Guizar-Sicairos, Thurman, Fienup, Opt. Lett. 33, 156 (2008).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import InputError

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]
Vector = tuple[float, float]


def register_translation(a: ArrayLike, b: ArrayLike, upsample: int = 100, rounds: int = 2) -> Vector:
    """The shift (dy, dx) px that moves b onto a, to 1/upsample px: a(r) = b(r - d).

    Shapes: two (H, W) real or complex images. Both are windowed and their mean is subtracted, so that neither
    edges nor the mean transmission decide. The window makes a large shift look smaller; each further round
    removes the shift found so far and measures the rest. Time O(rounds H W log(H W)). Raises InputError for
    shapes that differ.

    >>> image = np.random.default_rng(0).standard_normal((32, 32))
    >>> dy, dx = register_translation(np.roll(image, (2, -3), (0, 1)), image)
    >>> round(dy, 1), round(dx, 1)
    (2.0, -3.0)
    """
    first, second = _pair(a, b)
    window = hann_window(first.shape)
    fixed = np.fft.fft2(window * (first - weighted_mean(first, window)))
    dy, dx = 0.0, 0.0
    for done in range(rounds):
        moved = apply_shift_fourier(second, (dy, dx)) if done else second
        spectrum = np.fft.fft2(window * (moved - weighted_mean(moved, window)))
        peak = spectral_peak(np.fft.fftshift(fixed * spectrum.conj()), upsample)
        dy, dx = dy - peak[0], dx - peak[1]
    return dy, dx


def find_translation_offset(image: ArrayLike, reference: ArrayLike, upsample_factor: int = 50) -> Vector:
    """The shift (dy, dx) px that moves `image` onto `reference`; older name of `register_translation`.

    >>> reference = np.random.default_rng(0).random((32, 32))
    >>> moved = np.roll(reference, (0, 1), (0, 1))
    >>> [round(float(side), 1) + 0.0 for side in find_translation_offset(moved, reference)]
    [0.0, -1.0]
    """
    return register_translation(reference, image, upsample_factor)


def apply_shift_and_crop(
    image: ArrayLike, reference: ArrayLike, offset: Vector, border_crop: int = 2
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Image moved by `offset` (dy, dx) px, and reference, both less `border_crop` px on every side.

    Shapes: two (H, W); a real image stays real. The shift is periodic, so a border as wide as the offset
    leaves no pixel from the other side. Raises InputError where nothing would be left.

    >>> image, reference = apply_shift_and_crop(np.ones((8, 8)), np.ones((8, 8)), (1.5, 0.0))
    >>> image.shape, bool(np.allclose(image, reference))
    ((4, 4), True)
    """
    first, second = np.asarray(image), np.asarray(reference)
    _pair(first, second)
    if not 0 <= 2 * border_crop < min(first.shape):
        raise InputError(
            f"border_crop is {border_crop}; it must be from 0 to less than half of {first.shape}"
        )
    moved = apply_shift_fourier(first, offset)
    kept = tuple(slice(border_crop, side - border_crop) for side in first.shape)
    return (moved if np.iscomplexobj(first) else moved.real)[kept], second[kept]


def register_and_align(
    image: ArrayLike, reference: ArrayLike, upsample_factor: int = 50, border_crop: int = 2
) -> tuple[NDArray[Any], NDArray[Any]]:
    """`find_translation_offset`, then `apply_shift_and_crop`."""
    offset = find_translation_offset(image, reference, upsample_factor)
    return apply_shift_and_crop(image, reference, offset, border_crop)


def apply_shift_fourier(image: ArrayLike, shift_yx: Vector) -> Complex:
    """Move the content of an image (H, W) by +(dy, dx) px, periodic and band-limited; returns complex128.

    >>> image = np.zeros((4, 4))
    >>> image[0, 0] = 1
    >>> int(np.argmax(apply_shift_fourier(image, (1, 2)).real)) == 1 * 4 + 2
    True
    """
    data = np.asarray(image, np.complex128)
    ky, kx = np.fft.fftfreq(data.shape[0])[:, None], np.fft.fftfreq(data.shape[1])[None, :]
    ramp = np.exp(-2j * np.pi * (ky * shift_yx[0] + kx * shift_yx[1]))
    return np.asarray(np.fft.ifft2(np.fft.fft2(data) * ramp))


def fit_phase_ramp(a: ArrayLike, b: ArrayLike) -> Vector:
    """The phase ramp (ky, kx), cycles per px, by which a differs from b: a = b exp(2 pi i (ky y + kx x)).

    Shapes: two (H, W) complex images. Raises InputError for shapes that differ.

    >>> image = np.ones((32, 32))
    >>> ky, kx = fit_phase_ramp(image * phase_ramp((32, 32), (0.05, -0.02)), image)
    >>> round(ky, 4), round(kx, 4)
    (0.05, -0.02)
    """
    first, second = _pair(a, b)
    peak = spectral_peak(hann_window(first.shape) * first * second.conj())
    return peak[0] / first.shape[0], peak[1] / first.shape[1]


def phase_ramp(shape: tuple[int, ...], cycles_per_px: Vector) -> Complex:
    """exp(2 pi i (ky y + kx x)) on a grid of (H, W) px, complex128.

    >>> np.round(phase_ramp((1, 3), (0, 0.25)), 9).tolist()  # a quarter of a turn a pixel
    [[(1+0j), 1j, (-1+0j)]]
    """
    rows = np.exp(2j * np.pi * cycles_per_px[0] * np.arange(shape[0]))
    columns = np.exp(2j * np.pi * cycles_per_px[1] * np.arange(shape[1]))
    return np.asarray(rows[:, None] * columns[None, :])


def hann_window(shape: tuple[int, ...]) -> Real:
    """(H, W) window that falls to zero at the edges.

    >>> hann_window((3, 3)).tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    return np.asarray(np.hanning(shape[0])[:, None] * np.hanning(shape[1])[None, :])


def weighted_mean(image: Complex, weights: Real) -> complex:
    """Mean of an image under weights of the same shape.

    >>> weighted_mean(np.array([[1.0 + 0j, 5.0]]), np.array([[3.0, 1.0]]))
    (2+0j)
    """
    total = float(weights.sum())
    return complex((weights * image).sum() / total) if total > 0 else 0j


def spectral_peak(product: NDArray[Any], upsample: int = 1000) -> Vector:
    """Frequency (ky, kx), in cycles per side, where |sum_r product(r) exp(-2 pi i k r)| peaks, to 1/upsample.

    Shape (H, W). The peak of the FFT is refined on ever finer grids around it.
    """
    spectrum = np.abs(np.fft.fft2(product))
    index = np.unravel_index(int(spectrum.argmax()), spectrum.shape)
    centre = [float(i - n) if i > n // 2 else float(i) for i, n in zip(index, spectrum.shape, strict=True)]
    rows, columns = (np.arange(n) / n for n in product.shape)
    span = 1.0
    while True:
        grid = np.linspace(-span, span, 21)
        left = np.exp(-2j * np.pi * np.outer(centre[0] + grid, rows))
        right = np.exp(-2j * np.pi * np.outer(columns, centre[1] + grid))
        best_row, best_column = divmod(int(np.abs(left @ product @ right).argmax()), len(grid))
        centre = [centre[0] + grid[best_row], centre[1] + grid[best_column]]
        if span / 10 <= 1.0 / upsample:
            return float(centre[0]), float(centre[1])
        span /= 8


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[Complex, Complex]:
    first, second = np.asarray(a, np.complex128), np.asarray(b, np.complex128)
    if first.ndim != 2 or first.shape != second.shape or first.size == 0:
        raise InputError(
            f"images of shapes {first.shape} and {second.shape}; registration needs two equal (H, W)"
        )
    return first, second
