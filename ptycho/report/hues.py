"""A complex image in colours: phase as hue, amplitude as lightness."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: lightness of the darkest and the brightest amplitude
_DARK, _BRIGHT = 0.12, 0.92
#: the hue of phase 0: a blue, as in most cyclic maps
_ZERO_RAD = np.deg2rad(250.0)


def complex_colours(values: ArrayLike, limits: tuple[float, float] | None = None) -> NDArray[np.float64]:
    """Colours (..., 4) RGBA in [0, 1] of complex values (...); a value that is not finite is transparent.

    limits: amplitudes of the darkest and the brightest colour, None: 0 and the largest. The hue makes one
    full turn in OKLab (B. Ottosson, 2020, "A perceptual color space for image processing") at one lightness
    and one chroma, the largest that sRGB has for every hue, so that equal steps of phase look equally large.

    >>> colours = complex_colours(np.array([1.0, 1j, -1.0, np.nan]))
    >>> colours.shape, colours[:, 3].tolist()
    ((4, 4), [1.0, 1.0, 1.0, 0.0])
    """
    field = np.asarray(values, np.complex128)
    known = np.isfinite(field)
    amplitude = np.abs(np.where(known, field, 0))
    low, high = (0.0, float(amplitude.max(initial=0.0))) if limits is None else limits
    share = np.clip((amplitude - low) / max(high - low, 1e-300), 0, 1)
    colours = _rgb(_DARK + (_BRIGHT - _DARK) * share, np.angle(np.where(known, field, 1)))
    return np.concatenate([colours, known[..., None]], axis=-1)


def phase_colours(phase_rad: ArrayLike, lightness: float = 0.72) -> NDArray[np.float64]:
    """Colours (..., 3) RGB in [0, 1] of phases (...) rad, all of one lightness: the map's own circle."""
    phase = np.asarray(phase_rad, np.float64)
    return _rgb(np.full(phase.shape, lightness), phase)


def wheel(side_px: int = 64) -> NDArray[np.float64]:
    """The colours (side, side, 4) of the unit disc, phase 0 to the right and counter-clockwise: a legend."""
    axis = np.linspace(-1, 1, side_px)
    disc = axis[None, :] - 1j * axis[:, None]
    return complex_colours(np.where(np.abs(disc) <= 1, disc, np.nan), (0.0, 1.0))


def _rgb(lightness: NDArray[np.float64], phase_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB (..., 3) of OKLCh, with a chroma that all hues of this lightness have in sRGB."""
    chroma = np.minimum(0.168 * lightness, 0.47 * (1 - lightness))
    a, b = chroma * np.cos(phase_rad + _ZERO_RAD), chroma * np.sin(phase_rad + _ZERO_RAD)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        ],
        axis=-1,
    )
    linear = np.clip(linear, 0, 1)
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))
