"""Two images on one grid, prepared for registration: the ptychographic gauge is removed, weights are
computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ptycho.errors import InputError
from ptycho.evaluation.gauge import PAD_PX, remove_gauge
from ptycho.evaluation.metrics import pearson
from ptycho.image.cropping import Box, centre_origin, common_box, covered_box
from ptycho.image.registration import hann_window, phase_ramp, register_translation
from ptycho.warp.warp import Warp

Complex = NDArray[np.complex128]
Floats = NDArray[np.float64]

#: least side of the common area of both images, px
SMALLEST = 32
#: pixels below this share of the median coverage are ignored
_DIM = 0.05
#: size of detail by which amplitude or phase is chosen for a micrograph
_DETAIL_PX = 8.0
#: slower variations are removed from a micrograph
_SLOW_PX = 16.0
#: shifts up to this are left to the fit, which asks held-out pixels: where noise hides the object, the best
#: shift of two whole images is wrong by a pixel or two
_NEAR_PX = 2.5


@dataclass(frozen=True)
class Pair:
    """fixed, moving (H, W) complex on one grid, the fixed image's pixels; weights (H, W) in [0, 1], 0: not
    seen.

    box: the grid (y0, y1, x0, x1) in the fixed image. corner_xy: pixel of the moving image under grid pixel
    (0, 0), whole numbers. part: "complex", or which real part of the moving image the fixed one shows,
    "amplitude" or "phase".
    """

    fixed: Complex
    moving: Complex
    fixed_weight: Floats
    moving_weight: Floats
    box: Box
    corner_xy: tuple[int, int]
    part: str = "complex"

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the grid."""
        return self.fixed.shape[0], self.fixed.shape[1]

    def moved_positions(self, positions_xy: ArrayLike, origin_xy: tuple[float, float], warp: Warp) -> Floats:
        """Positions (M, 2) px of the moving image's scan, corrected to the fixed image.

        origin_xy: position of the moving image's pixel (0, 0). A pattern that was measured at p and recorded
        at p + u(p) places its part of the object at p + u(p); so p is the inverse of the warp. The mean move
        is removed, because no pattern depends on a common shift. Positions outside the grid move like its
        edge.
        """
        places = np.asarray(positions_xy, np.float64)
        moves = self.places_on_fixed(places, origin_xy, warp) - places
        return np.asarray(places + moves - moves.mean(0))

    def places_on_fixed(self, positions_xy: ArrayLike, origin_xy: tuple[float, float], warp: Warp) -> Floats:
        """The same positions as pixels (M, 2) [x, y] of the whole fixed image, common shift included."""
        places = np.asarray(positions_xy, np.float64)
        on_grid = places - np.asarray(origin_xy, np.float64) - np.asarray(self.corner_xy, np.float64)
        inside = np.clip(on_grid, 0.0, np.array(self.shape[::-1]) - 1.0)
        moved = on_grid + warp.to_fixed(inside) - inside
        return np.asarray(moved + np.array([self.box[2], self.box[0]], np.float64))


def make_pair(
    fixed: ArrayLike,
    moving: ArrayLike,
    *,
    fixed_coverage: ArrayLike | None = None,
    moving_coverage: ArrayLike | None = None,
    origin_xy: tuple[float, float] | None = None,
    roi: Box | None = None,
) -> Pair:
    """Place a moving image on the grid of a fixed one, in whole px, and remove scale, phase ramp and large
    shift.

    Shapes: fixed (H, W) complex, or real for a micrograph; moving (H', W') complex; coverages of their
    shapes; origin_xy [x, y]: the fixed image's pixel under moving[0, 0], None: centre on centre; roi (y0, y1,
    x0, x1) of the fixed image, None: all that both cover. Raises InputError where too little is shared. Time
    O(H W log(H W)), memory a few copies.
    """
    seen_fixed, seen_moving = (
        relative_coverage(fixed_coverage, np.shape(fixed)),
        relative_coverage(moving_coverage, np.shape(moving)),
    )
    real = np.asarray(fixed).dtype.kind != "c"
    target, source = _filled(fixed, seen_fixed, "fixed"), _filled(moving, seen_moving, "moving")
    origin = centre_origin(source.shape, target.shape) if origin_xy is None else origin_xy
    x, y = (round(float(v)) for v in origin)
    box = _grid(seen_fixed, seen_moving, (x, y), roi)
    if real:
        start, source, part = _start_of_real(target, source, box, (x, y))
        target = _without_slow(target.real).astype(np.complex128)
    else:
        start, source = _start_of_complex(target, source, box, (x, y))
        part = "complex"
    corner = (box[2] - x + start[0], box[0] - y + start[1])
    cut, seen = _cut(source, box, corner), _cut(seen_moving, box, corner, outside=0.0)
    y0, y1, x0, x1 = box
    level = np.median(np.abs(target[y0:y1, x0:x1])), max(float(np.median(np.abs(cut))), 1e-30)
    scale = 1.0 if real else level[0] / level[1]
    return Pair(target[y0:y1, x0:x1], cut * scale, seen_fixed[y0:y1, x0:x1], seen, box, corner, part)


def warp_image(image: ArrayLike, pair: Pair, warp: Warp, order: int = 3) -> NDArray[Any]:
    """A moving image (H', W') on the fixed image's grid (H, W) through the warp; zero where it has no pixel.

    Splines of the given order; real stays real. Time O(H W).
    """
    places = warp.field()[..., ::-1] + np.moveaxis(np.indices(pair.shape), 0, -1)
    places = np.moveaxis(places + np.array(pair.corner_xy[::-1]), -1, 0)
    values = np.asarray(image)
    if values.dtype.kind == "c":
        parts = (ndimage.map_coordinates(p, places, order=order) for p in (values.real, values.imag))
        real, imaginary = parts
        return np.asarray(real + 1j * imaginary)
    return np.asarray(ndimage.map_coordinates(values.astype(np.float64), places, order=order))


def relative_coverage(coverage: ArrayLike | None, shape: tuple[int, ...]) -> Floats:
    """Coverage (H, W) relative to its median, at most 1, 0 below a twentieth: the noise of a reconstruction
    goes as 1 / sqrt(coverage). All 1 without coverage. Raises InputError.

    >>> relative_coverage([[4.0, 2.0], [8.0, 0.01]], (2, 2)).tolist()
    [[1.0, 0.6666666666666666], [1.0, 0.0]]
    """
    if coverage is None:
        return np.ones(shape)
    values = np.asarray(coverage, np.float64)
    if values.shape != tuple(shape):
        raise InputError(f"coverage has shape {values.shape}; expected {tuple(shape)}, as its image")
    lit = values[values > 0]
    if not len(lit):
        raise InputError("coverage is zero everywhere; no patch reached the image")
    relative = np.minimum(values / np.median(lit), 1.0)
    return np.where(relative < _DIM, 0.0, relative)


def _filled(image: ArrayLike, seen: Floats, name: str) -> Complex:
    values = np.asarray(image)
    if values.ndim != 2 or values.dtype.kind not in "fciu":
        raise InputError(
            f"the {name} image is {values.dtype} of shape {values.shape}; expected one image (H, W)"
        )
    made = values.astype(np.complex128)
    made[seen == 0] = made[seen > 0].mean()
    if not np.isfinite(made).all():
        raise InputError(f"the {name} image holds NaN or infinite pixels; mark them by a coverage of 0")
    return made


def _grid(seen_fixed: Floats, seen_moving: Floats, origin_xy: tuple[int, int], roi: Box | None) -> Box:
    if roi is None:
        x, y = origin_xy
        y0, y1, x0, x1 = common_box(seen_moving.shape, seen_fixed.shape, origin_xy)
        both = np.minimum(seen_fixed[y0:y1, x0:x1], seen_moving[y0 - y : y1 - y, x0 - x : x1 - x])
        if not both.any():
            raise InputError("the two images cover nothing in common; check their origins")
        t, b, left, r = covered_box(both, 0.5)
        box = (y0 + t, y0 + b, x0 + left, x0 + r)
    else:
        box = (
            max(roi[0], 0),
            min(roi[1], seen_fixed.shape[0]),
            max(roi[2], 0),
            min(roi[3], seen_fixed.shape[1]),
        )
    if min(box[1] - box[0], box[3] - box[2]) < SMALLEST:
        raise InputError(f"the two images share {box} only; a warp needs {SMALLEST} px of each side")
    return box


def _start_of_complex(
    target: Complex, source: Complex, box: Box, origin_xy: tuple[int, int]
) -> tuple[tuple[int, int], Complex]:
    """The whole-pixel shift [x, y] to start from, and the source without its phase ramp."""
    aligned = remove_gauge(source, target, box, origin_xy, allow_twin=False)
    padded = [
        min(high + PAD_PX, side) - max(low - PAD_PX, 0)
        for low, high, side in zip(box[::2], box[1::2], target.shape, strict=True)
    ]
    cycles = aligned.ramp_cycles[0] / padded[0], aligned.ramp_cycles[1] / padded[1]
    flat = source * phase_ramp(source.shape, cycles).conj() * np.exp(1j * np.angle(aligned.scale))
    dy, dx = (0 if abs(shift) <= _NEAR_PX else round(shift) for shift in aligned.shift_px)
    return (dx, dy), flat


def _start_of_real(
    target: Complex, source: Complex, box: Box, origin_xy: tuple[int, int]
) -> tuple[tuple[int, int], Complex, str]:
    """The same for a micrograph, and the part of the source that it shows, chosen by correlation."""
    y0, y1, x0, x1 = box
    cut = target[y0:y1, x0:x1].real
    wanted = cut - ndimage.gaussian_filter(cut, _DETAIL_PX)
    flat = source * np.exp(-1j * np.angle(source.mean()))
    best: tuple[float, tuple[int, int], Complex, str] | None = None
    for part, values in (("amplitude", np.abs(flat)), ("phase", np.angle(flat))):
        detail = values - ndimage.gaussian_filter(values, _DETAIL_PX)
        for sign in (1, -1):
            corner = (x0 - origin_xy[0], y0 - origin_xy[1])
            dy, dx = register_translation(sign * _cut(detail, box, corner).real, wanted, upsample=1)
            start = (round(dx), round(dy))
            there = _cut(detail, box, (corner[0] + start[0], corner[1] + start[1])).real
            alike = abs(pearson(hann_window(cut.shape) * there, hann_window(cut.shape) * wanted))
            if best is None or alike > best[0]:
                best = (alike, start, _without_slow(values).astype(np.complex128), part)
    assert best is not None
    return best[1:]


def _without_slow(values: Floats) -> Floats:
    """A real image without slow variations: a micrograph has its own offset and shading."""
    return np.asarray(values - ndimage.gaussian_filter(values, _SLOW_PX))


def _cut(values: NDArray[Any], box: Box, corner_xy: tuple[int, int], outside: float | None = None) -> Any:
    """The grid's window of the moving image; beyond it the edge is repeated, or `outside`."""
    rows, columns = np.arange(box[1] - box[0]) + corner_xy[1], np.arange(box[3] - box[2]) + corner_xy[0]
    inside = [np.clip(line, 0, side - 1) for line, side in zip((rows, columns), values.shape, strict=True)]
    made = values[np.ix_(*inside)]
    if outside is None:
        return made
    there = [(line >= 0) & (line < side) for line, side in zip((rows, columns), values.shape, strict=True)]
    return np.where(there[0][:, None] & there[1][None, :], made, outside)
