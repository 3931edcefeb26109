"""Objects of great variety for trainings: those registered, textures, binaries, cells and photographs.

The two photographs of the benchmark (the camera man, the astronaut) are never among them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptycho.simulation.objects import lines, siemens_star

Image = NDArray[np.float64]
Rng = np.random.Generator

#: pictures that ship inside scikit-image; nothing is fetched
PHOTOGRAPHS = (
    "brick", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field", "immunohistochemistry",
    "moon", "page", "retina", "rocket", "text",
)  # fmt: skip


def random_object(side: int, rng: Rng, without: tuple[str, ...] = ()) -> NDArray[np.complex64]:
    """An object (side, side) complex64 of random kinds, contrast and phase range; amplitude at most 1.

    without: kinds and photographs that are kept for judging.
    """
    kinds = [kind for kind in _KINDS if kind not in without]
    share = np.array([_SHARES[kind] for kind in kinds])
    first, second = rng.choice(kinds, 2, p=share / share.sum())
    absorbed = _unit(_draw(first, side, rng, without))
    turned = absorbed if rng.random() < 0.25 else _unit(_draw(second, side, rng, without))
    depth = float(rng.choice([rng.uniform(0.02, 0.5), rng.uniform(0.3, 0.9)], p=[0.7, 0.3]))
    reach = float(rng.choice([rng.uniform(0.2, 1.5), rng.uniform(1.0, 2.5)], p=[0.8, 0.2]))
    if rng.random() < 0.5:
        turned = 1 - turned
    return np.asarray(((1 - depth * absorbed) * np.exp(1j * reach * turned)).astype(np.complex64))


def _draw(kind: str, side: int, rng: Rng, without: tuple[str, ...]) -> Image:
    return _photo(side, rng, without) if kind == "photo" else _KINDS[kind](side, rng)


def _field(side: int, rng: Rng) -> Image:
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    k = np.maximum(k, 1 / rng.uniform(20, side))
    spectrum = np.fft.fft2(rng.standard_normal((side, side))) * k ** -rng.uniform(0.9, 2.2)
    return np.asarray(np.fft.ifft2(spectrum).real)


def _binary(side: int, rng: Rng) -> Image:
    field = _field(side, rng)
    sharp = (field > np.quantile(field, rng.uniform(0.2, 0.8))).astype(np.float64)
    return np.asarray(ndimage.gaussian_filter(sharp, rng.uniform(0.0, 0.8)))


def _cells(side: int, rng: Rng) -> Image:
    seeds = rng.uniform(0, side, (int(rng.integers(20, 200)), 2))
    from scipy.spatial import cKDTree

    grid = np.moveaxis(np.indices((side, side)), 0, -1).reshape(-1, 2)
    nearest = cKDTree(seeds).query(grid)[1].reshape(side, side)
    return np.asarray(ndimage.gaussian_filter(rng.random(len(seeds))[nearest], rng.uniform(0.0, 0.8)))


def _blobs(side: int, rng: Rng) -> Image:
    image = np.zeros((side, side))
    for _ in range(int(rng.integers(20, 120))):
        radius = rng.uniform(1.5, side / 12)
        y, x = rng.uniform(0, side, 2)
        top, left = (max(0, int(v - radius - 2)) for v in (y, x))
        rows, columns = (slice(at, min(side, at + int(2 * radius + 5))) for at in (top, left))
        yy, xx = np.mgrid[rows, columns]
        inside = np.clip(radius - np.hypot(yy - y, xx - x) + 0.5, 0, 1)
        image[rows, columns] += rng.uniform(0.3, 1) * inside
    return image


def _lines(side: int, rng: Rng) -> Image:
    return np.asarray(np.abs(lines((side, side), int(rng.integers(1 << 30)), (0.0, 1.0))), np.float64)


def _star(side: int, rng: Rng) -> Image:
    return np.asarray(np.abs(siemens_star((side, side), int(rng.integers(1 << 30)), (0.0, 1.0))), np.float64)


@lru_cache(maxsize=len(PHOTOGRAPHS))
def _photograph(name: str) -> Image:
    from skimage import color, data

    picture: Any = getattr(data, name)()
    grey: Any = color.rgb2gray(picture) if picture.ndim == 3 else picture
    return np.asarray(grey, np.float64)


def _photo(side: int, rng: Rng, without: tuple[str, ...] = ()) -> Image:
    picture = _photograph(str(rng.choice([name for name in PHOTOGRAPHS if name not in without])))
    size = int(min(min(picture.shape), side * rng.uniform(0.7, 2.0)))
    top, left = (int(rng.integers(0, length - size + 1)) for length in picture.shape)
    cut = picture[top : top + size, left : left + size]
    smooth = ndimage.gaussian_filter(cut, max(0.0, 0.5 * (size / side - 1)))
    at = (np.arange(side) + 0.5) * size / side - 0.5
    image = ndimage.map_coordinates(smooth, np.meshgrid(at, at, indexing="ij"), order=1, mode="nearest")
    image = np.rot90(image, int(rng.integers(4)))
    return np.asarray(image[:, ::-1] if rng.random() < 0.5 else image)


_KINDS: dict[str, Callable[[int, Rng], Image]] = {
    "photo": _photo, "field": _field, "binary": _binary, "cells": _cells, "blobs": _blobs, "lines": _lines,
    "star": _star,
}  # fmt: skip
_SHARES = {"photo": 4, "field": 3, "binary": 2, "cells": 1, "blobs": 1, "lines": 1, "star": 1.5}


def _unit(image: Image) -> Image:
    low, high = np.quantile(image, [0.001, 0.999])
    return np.asarray(np.clip((image - low) / max(high - low, 1e-9), 0, 1))
