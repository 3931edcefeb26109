"""The displayed part of a complex image: the well lit part, without global phase and ramp."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import InputError
from ptycho.image.cropping import covered_box
from ptycho.image.registration import fit_phase_ramp, phase_ramp

#: limits of light, relative to the best tenth of the pixels: for the colour range, and for display
_WELL_LIT, _SHOWN = 0.2, 0.05
#: pixels on a side above which a picture shows means of blocks
MOST_PX = 1024


def complex_image(obj: ArrayLike) -> NDArray[np.complex128]:
    """One image (H, W) complex128; InputError for any other shape."""
    image = np.asarray(obj)
    if image.ndim != 2 or image.size == 0 or image.dtype.kind not in "buifc":
        raise InputError(
            f"cannot draw an object of shape {image.shape}, dtype {image.dtype}; expected (H, W)"
        )
    return image.astype(np.complex128)


def without_ramp(
    image: NDArray[np.complex128], coverage: ArrayLike | None
) -> tuple[NDArray[np.complex128], NDArray[np.bool_]]:
    """The covered box without global phase and ramp, uncovered pixels NaN; and its well lit pixels: at least
    a fifth of the coverage of the best tenth.
    """
    seen = np.isfinite(image) if coverage is None else (np.asarray(coverage) > 0) & np.isfinite(image)
    y0, y1, x0, x1 = covered_box(seen, share=0.5)
    cut, mask = image[y0:y1, x0:x1], seen[y0:y1, x0:x1]
    filled = np.where(mask, cut, 0)
    flat = cut * phase_ramp(cut.shape, fit_phase_ramp(filled, np.ones_like(filled))).conj()
    flat = flat * np.exp(-1j * np.angle(flat[mask].sum()))
    return np.asarray(np.where(mask, flat, np.nan)), _lit(mask, coverage, (y0, y1, x0, x1), _WELL_LIT)


def _lit(
    mask: NDArray[np.bool_], coverage: ArrayLike | None, box: tuple[int, int, int, int], share: float
) -> NDArray[np.bool_]:
    """Pixels of a box with at least this share of the light of the best tenth."""
    y0, y1, x0, x1 = box
    light = np.where(mask, 1.0 if coverage is None else np.asarray(coverage, np.float64)[y0:y1, x0:x1], 0.0)
    return np.asarray(mask & (light >= share * np.percentile(light[mask], 90)))


def colour_limits(values: NDArray[np.float64], where: NDArray[np.bool_]) -> tuple[float, float]:
    """Colour limits of an image (H, W); a few outliers and pixels outside `where` have no effect."""
    return range_of(values[where])


def range_of(values: NDArray[np.float64], percent: float = 0.2) -> tuple[float, float]:
    """Colour limits without the effect of a few outliers; +-0.5 for an image that is constant except for
    rounding.

    >>> range_of(np.array([1.0, 1.0 + 6e-8, 1.0]))[0]
    0.5
    """
    low, high = np.nanpercentile(values, (percent, 100 - percent))
    least = max(1e-9, 1e-6 * max(abs(low), abs(high)))
    return (float(low), float(high)) if high - low > least else (float(low) - 0.5, float(high) + 0.5)


def thinned(
    obj: ArrayLike, coverage: ArrayLike | None, most_px: int = MOST_PX
) -> tuple[NDArray[Any], NDArray[Any] | None, int]:
    """An image (H, W) and its coverage with at most `most_px` on a side, by means of blocks, and their side.

    For pictures only: at full size, the image of a long scan would be copied many times.

    >>> image, _, side = thinned(np.arange(16.0).reshape(4, 4), None, most_px=2)
    >>> image.tolist(), side
    ([[2.5, 4.5], [10.5, 12.5]], 2)
    """
    image = np.asarray(obj)
    side = -(-max(image.shape) // most_px) if image.ndim == 2 else 1
    if side <= 1 or min(image.shape) < side:
        return image, None if coverage is None else np.asarray(coverage), 1

    def means(values: NDArray[Any]) -> NDArray[Any]:
        rows, columns = (n // side for n in values.shape)
        cut = values[: rows * side, : columns * side]
        return np.asarray(cut.reshape(rows, side, columns, side).mean(axis=(1, 3)))

    return means(image), None if coverage is None else means(np.asarray(coverage)), side


def lit_field(
    obj: ArrayLike, coverage: ArrayLike | None
) -> tuple[NDArray[np.complex128], NDArray[np.bool_], tuple[int, int]]:
    """The well lit part of an image for display: the field without phase and ramp, NaN in dim pixels; the
    well lit pixels, for the colours; and the corner (row, column) of the box in the image.

    Shapes: obj (H, W) complex, coverage (H, W), lit above zero; without it every finite pixel is lit. At the
    border of a scan few patterns overlap, so the object there is noisy: pixels below 5 % of the light of the
    best tenth are left out, and the box is the smallest that holds the rest.

    >>> coverage = np.zeros((8, 8)); coverage[1:7, 1:7] = 0.01; coverage[2:6, 2:6] = 1.0
    >>> field, lit, corner = lit_field(np.ones((8, 8), complex), coverage)
    >>> field.shape, bool(lit.all()), corner
    ((4, 4), True, (2, 2))
    """
    image = complex_image(obj)
    seen = np.isfinite(image) if coverage is None else (np.asarray(coverage) > 0) & np.isfinite(image)
    y0, y1, x0, x1 = covered_box(seen, share=0.5)
    field, lit = without_ramp(image, coverage)
    shown = _lit(np.isfinite(field), coverage, (y0, y1, x0, x1), _SHOWN)
    top, bottom, left, right = covered_box(shown, share=0.3)
    part = (slice(top, bottom), slice(left, right))
    return np.where(shown[part], field[part], np.nan), lit[part], (y0 + top, x0 + left)
