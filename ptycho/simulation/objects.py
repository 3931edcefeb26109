"""Objects for simulation. Amplitude and phase differ, so that leakage from one into the other is visible."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho.simulation.registry import lookup

Object = NDArray[np.complex64]
Image = NDArray[np.float64]
Range = tuple[float, float]


class ObjectMaker(Protocol):
    """Draws one object: shape (H, W) px, seed, range of the amplitude, range of the phase in rad."""

    def __call__(
        self,
        shape: tuple[int, int],
        seed: int = 0,
        amp_range: Range = (0.7, 1.0),
        phase_range_rad: Range = (0.0, 1.0),
    ) -> Object:
        """(H, W) complex64."""
        ...


def flat(
    shape: tuple[int, int], seed: int = 0, amp_range: Range = (0.7, 1.0), phase_range_rad: Range = (0.0, 1.0)
) -> Object:
    """No structure: (H, W) complex64 of the highest amplitude and the lowest phase; the seed is unused."""
    value = amp_range[1] * np.exp(1j * phase_range_rad[0])
    return np.full(shape, value, np.complex64)


def lines(
    shape: tuple[int, int], seed: int = 0, amp_range: Range = (0.7, 1.0), phase_range_rad: Range = (0.0, 1.0)
) -> Object:
    """Straight lines of random place, angle, width (1-5 px) and strength; the phase has other lines than the
    amplitude.

    Returns (H, W) complex64. Time O(lines * H * W), about one line for every 10 px of side.
    """
    rng = np.random.default_rng(seed)
    return _complex(1.0 - _line_image(shape, rng), _line_image(shape, rng), amp_range, phase_range_rad)


def gaussian_random_field(
    shape: tuple[int, int], seed: int = 0, amp_range: Range = (0.7, 1.0), phase_range_rad: Range = (0.0, 1.0)
) -> Object:
    """Two independent Gaussian random fields with power spectrum k^-3, like clouds: detail on every scale.

    Returns (H, W) complex64.
    """
    rng = np.random.default_rng(seed)
    return _complex(_field(shape, rng), _field(shape, rng), amp_range, phase_range_rad)


def siemens_star(
    shape: tuple[int, int], seed: int = 0, amp_range: Range = (0.7, 1.0), phase_range_rad: Range = (0.0, 1.0)
) -> Object:
    """A Siemens star of 36 spokes cut by rings; the spokes absorb and shift the phase, as etched metal does.

    Returns (H, W) complex64; the seed turns the star. Edges are smoothed over one pixel against aliasing.
    """
    spokes, rng = 36, np.random.default_rng(seed)
    turn = rng.uniform(0, 2 * np.pi)
    y, x = np.indices(shape, dtype=np.float64)
    y, x = y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2
    radius = np.hypot(y, x)
    # arcsin(sin) is the angle to the nearest spoke edge; times the radius it is a distance in pixels.
    edge_px = radius * np.arcsin(np.sin(spokes * (np.arctan2(y, x) + turn))) / spokes
    star = np.clip(edge_px + 0.5, 0, 1)
    outer = 0.48 * min(shape)
    star *= np.clip(outer - radius + 0.5, 0, 1)
    for share in (0.28, 0.52, 0.76):
        star *= np.clip(np.abs(radius - share * outer) - 0.012 * outer - 0.5, 0, 1)
    return _complex(1.0 - star, star, amp_range, phase_range_rad)


def two_photographs(
    shape: tuple[int, int], seed: int = 0, amp_range: Range = (0.7, 1.0), phase_range_rad: Range = (0.0, 1.0)
) -> Object:
    """The camera man as amplitude, the astronaut as phase; see `_pair`."""
    return _pair(("camera", "astronaut"), shape, seed, amp_range, phase_range_rad)


def cat_and_coins(
    shape: tuple[int, int], seed: int = 0, amp_range: Range = (0.7, 1.0), phase_range_rad: Range = (0.0, 1.0)
) -> Object:
    """Coins as amplitude, a cat as phase: two more photographs for a network that saw the others."""
    return _pair(("coins", "chelsea"), shape, seed, amp_range, phase_range_rad)


def _pair(
    names: tuple[str, str], shape: tuple[int, int], seed: int, amp_range: Range, phase_range_rad: Range
) -> Object:
    """Two pictures that ship with scikit-image (nothing is fetched): amplitude and phase, (H, W) complex64.

    The central square of each is resized to the longer side and cropped. Seed 0 shows them upright; other
    seeds turn and mirror each picture by one of the eight symmetries of the square.
    """
    from skimage import color, data, transform

    # scikit-image is annotated in part only.
    resize: Any = transform.resize
    pictures: list[Any] = [getattr(data, name)() / 255.0 for name in names]
    pictures = [color.rgb2gray(picture) if picture.ndim == 3 else picture for picture in pictures]
    pictures = [_central_square(picture) for picture in pictures]
    if seed != 0:
        rng = np.random.default_rng(seed)
        turns = rng.choice(8, size=2, replace=False)
        pictures = [_dihedral(picture, int(turn)) for picture, turn in zip(pictures, turns, strict=True)]
    side = max(shape)
    resized = [resize(picture, (side, side), anti_aliasing=True) for picture in pictures]
    amplitude, phase = (picture[: shape[0], : shape[1]] for picture in resized)
    return _complex(amplitude, phase, amp_range, phase_range_rad)


def _central_square(image: Image) -> Image:
    side = min(image.shape)
    top, left = ((length - side) // 2 for length in image.shape)
    return image[top : top + side, left : left + side]


OBJECTS: dict[str, ObjectMaker] = {
    "cat_and_coins": cat_and_coins,
    "flat": flat,
    "gaussian_random_field": gaussian_random_field,
    "lines": lines,
    "siemens_star": siemens_star,
    "two_photographs": two_photographs,
}


def get_object(name: str) -> ObjectMaker:
    """The recipe of an object by its name; raises ConfigError naming the nearest one."""
    return lookup(OBJECTS, name, "object")


def _complex(amplitude: Image, phase: Image, amp_range: Range, phase_range_rad: Range) -> Object:
    amp = amp_range[0] + (amp_range[1] - amp_range[0]) * _unit(amplitude)
    pha = phase_range_rad[0] + (phase_range_rad[1] - phase_range_rad[0]) * _unit(phase)
    return np.asarray(amp * np.exp(1j * pha), np.complex64)


def _unit(image: Image) -> Image:
    """The image stretched to [0, 1]; a constant image becomes zero."""
    low, span = image.min(), np.ptp(image)
    return (image - low) / span if span > 0 else np.zeros_like(image)


def _line_image(shape: tuple[int, int], rng: np.random.Generator) -> Image:
    y, x = np.indices(shape, dtype=np.float64)
    clear = np.ones(shape)
    for _ in range(max(6, (shape[0] + shape[1]) // 20)):
        angle, half_width = rng.uniform(0, np.pi), rng.uniform(0.5, 2.5)
        through_y, through_x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        distance = np.abs((x - through_x) * np.sin(angle) - (y - through_y) * np.cos(angle))
        clear *= 1.0 - rng.uniform(0.3, 1.0) * np.clip(half_width - distance + 0.5, 0, 1)
    return 1.0 - clear


def _field(shape: tuple[int, int], rng: np.random.Generator) -> Image:
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :])
    k[0, 0] = np.inf
    # A power spectrum k^-3 is an amplitude spectrum k^-1.5.
    spectrum = np.fft.fft2(rng.standard_normal(shape)) * k**-1.5
    return np.asarray(np.fft.ifft2(spectrum).real)


def _dihedral(image: Image, turn: int) -> Image:
    turned = np.rot90(image, turn % 4)
    return turned[:, ::-1] if turn >= 4 else turned
