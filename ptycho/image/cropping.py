"""Cutting images to a common area, pixel on pixel."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import InputError

Box = tuple[int, int, int, int]


def centre_crop(image: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Central window (h, w) of an image (..., H, W), pixel (H//2, W//2) on pixel (h//2, w//2); a view.

    >>> centre_crop(np.arange(16).reshape(4, 4), (2, 2)).tolist()
    [[5, 6], [9, 10]]
    """
    top, left = (have // 2 - want // 2 for have, want in zip(image.shape[-2:], shape, strict=True))
    if (
        top < 0
        or left < 0
        or any(want < 1 or want > have for have, want in zip(image.shape[-2:], shape, strict=True))
    ):
        raise InputError(
            f"cannot crop an image of {image.shape[-2:]} to {tuple(shape)}; ask for 1 px up to its size"
        )
    return image[..., top : top + shape[0], left : left + shape[1]]


def centre_origin(shape: tuple[int, ...], onto: tuple[int, ...]) -> tuple[int, int]:
    """[x, y] of pixel (0, 0) of an image (H, W) that lies centre on centre on another one.

    >>> centre_origin((4, 6), (10, 10))
    (2, 3)
    """
    return onto[1] // 2 - shape[1] // 2, onto[0] // 2 - shape[0] // 2


def common_box(shape: tuple[int, ...], onto: tuple[int, ...], origin_xy: tuple[float, float]) -> Box:
    """Box (y0, y1, x0, x1), in pixels of `onto`, covered by an image whose pixel (0, 0) lies at `origin_xy`.

    >>> common_box((4, 4), (10, 10), (8, -1))
    (0, 3, 8, 10)
    """
    x, y = (round(float(v)) for v in origin_xy)
    box = (max(y, 0), min(y + shape[0], onto[0]), max(x, 0), min(x + shape[1], onto[1]))
    if box[1] <= box[0] or box[3] <= box[2]:
        raise InputError(
            f"a reconstruction of {tuple(shape)} at origin_xy {(x, y)} does not overlap the truth "
            f"of {tuple(onto)}: check the origin"
        )
    return box


def center_crop_spatial(image: NDArray[Any], height: int, width: int | None = None) -> NDArray[Any]:
    """Central window of an image (H, W), or of images (B, H, W, C) with channels last; a view.

    An older call; `width` None is `height`. `centre_crop` is the same for images (..., H, W). Raises
    InputError for a window larger than the image.

    >>> center_crop_spatial(np.zeros((2, 8, 8, 1)), 4, 6).shape
    (2, 4, 6, 1)
    """
    array = np.asarray(image)
    shape = (height, height if width is None else width)
    if array.ndim != 4:
        return centre_crop(array, shape)
    return np.moveaxis(centre_crop(np.moveaxis(array, -1, 1), shape), 1, -1)


@overload
def align_for_evaluation(
    recon: NDArray[Any], truth: NDArray[Any], origin_xy: tuple[float, float] | None = None
) -> tuple[NDArray[Any], NDArray[Any], Box]: ...
@overload
def align_for_evaluation(
    reconstruction_image: NDArray[Any],
    ground_truth_image: NDArray[Any],
    scan_coords_yx: NDArray[Any],
    stitch_patch_size: int,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def align_for_evaluation(*arguments: Any, **named: Any) -> tuple[Any, ...]:
    """Reconstruction and truth cut to the area they share, and that area (y0, y1, x0, x1) of the truth.

    Shapes: recon (H, W), truth (H', W'); origin_xy [x, y] is the truth's pixel under recon[0, 0], rounded
    to whole pixels; None lays the two centre on centre. Views, no copies. Raises InputError when they do
    not overlap. The older call, which says `stitch_patch_size`, is taken as well, see `align_by_positions`.

    >>> ours, truth, box = align_for_evaluation(np.zeros((4, 4)), np.zeros((6, 6)))
    >>> ours.shape, truth.shape, box
    ((4, 4), (4, 4), (1, 5, 1, 5))
    """
    if len(arguments) == 4 or "stitch_patch_size" in named:
        return align_by_positions(*arguments, **named)
    return _align_at_origin(*arguments, **named)


def _align_at_origin(
    recon: NDArray[Any], truth: NDArray[Any], origin_xy: tuple[float, float] | None = None
) -> tuple[NDArray[Any], NDArray[Any], Box]:
    origin = centre_origin(recon.shape, truth.shape) if origin_xy is None else origin_xy
    y0, y1, x0, x1 = common_box(recon.shape, truth.shape, origin)
    x, y = (round(float(v)) for v in origin)
    return recon[y0 - y : y1 - y, x0 - x : x1 - x], truth[y0:y1, x0:x1], (y0, y1, x0, x1)


def align_by_positions(
    reconstruction_image: NDArray[Any],
    ground_truth_image: NDArray[Any],
    scan_coords_yx: NDArray[Any],
    stitch_patch_size: int,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Reconstruction and truth cut to what windows of `stitch_patch_size` px at the positions cover.

    Shapes: two (H, W), axes of length one dropped; scan_coords_yx (M, 2) [y, x], pixels of the truth. A
    reconstruction of the truth's shape lies pixel on pixel on it, any other with its pixel (H//2, W//2) on
    the centroid of the positions, as `ptycho.image.stitching` lays them. Views, no copies. Raises InputError
    for positions of another shape and where nothing overlaps.

    >>> truth = np.arange(100.0).reshape(10, 10)
    >>> ours, cut = align_by_positions(truth, truth, [[4, 5], [6, 5]], 4)
    >>> ours.shape, bool((ours == cut).all()), float(cut[0, 0])
    ((6, 4), True, 23.0)
    """
    recon, truth = np.squeeze(np.asarray(reconstruction_image)), np.squeeze(np.asarray(ground_truth_image))
    places = np.asarray(scan_coords_yx, np.float64)
    if places.ndim != 2 or places.shape[1] != 2 or len(places) == 0 or not np.isfinite(places).all():
        raise InputError(f"scan_coords_yx has shape {places.shape}; expected finite (M, 2), [y, x] in px")
    y, x = (int(v) for v in np.floor(places.mean(0) + 0.5) - np.array(recon.shape) // 2)
    if recon.shape == truth.shape:
        y = x = 0
    low = np.floor(places.min(0)) - stitch_patch_size // 2
    high = np.ceil(places.max(0)) + stitch_patch_size - stitch_patch_size // 2
    first, second, (y0, _, x0, _) = _align_at_origin(recon, truth, (x, y))
    rows, columns = (
        slice(max(int(a) - begin, 0), max(int(b) - begin, 0))
        for a, b, begin in zip(low, high, (y0, x0), strict=True)
    )
    return first[rows, columns], second[rows, columns]


def covered_box(coverage: NDArray[Any], share: float = 0.95) -> Box:
    """The box (y0, y1, x0, x1) whose border rows and columns are each covered over at least `share`.

    Shape: coverage (H, W); a pixel above zero is covered. The least covered border is removed until all reach
    `share`.

    >>> coverage = np.zeros((6, 6))
    >>> coverage[1:5, 2:6] = 1
    >>> covered_box(coverage)
    (1, 5, 2, 6)
    """
    mask = np.asarray(coverage) > 0
    y0, y1, x0, x1 = 0, mask.shape[0], 0, mask.shape[1]
    while y1 - y0 > 1 and x1 - x0 > 1:
        borders = [
            mask[y0, x0:x1].mean(),
            mask[y1 - 1, x0:x1].mean(),
            mask[y0:y1, x0].mean(),
            mask[y0:y1, x1 - 1].mean(),
        ]
        worst = int(np.argmin(borders))
        if borders[worst] >= share:
            break
        y0, y1, x0, x1 = y0 + (worst == 0), y1 - (worst == 1), x0 + (worst == 2), x1 - (worst == 3)
    return y0, y1, x0, x1
