"""Positions of ptychodus in metres to object pixels of this package and back; the two differ by half a pixel.

ptychodus 1.6 and later puts the origin of its coordinates at pixel (W - 1) / 2 of the object, and a probe
position under the middle (N - 1) / 2 of the patch (`ObjectGeometry.map_coordinates_probe_to_object`,
`ProbeGeometry.resolve_patch_bounds`). Here a position is the object pixel under patch pixel N // 2. For even
N the same place therefore has a number that is half a pixel larger here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.geometry import HC_EV_M


def centre_offset_px(N: int) -> float:
    """What is added to a position of ptychodus, in pixels, to get ours: N // 2 - (N - 1) / 2."""
    return N // 2 - (N - 1) / 2


@dataclass(frozen=True)
class ObjectFrame:
    """Where the pixels of an object (H, W) lie: size `pixel_xy_m` and middle `center_xy_m`, both [x, y]."""

    shape: tuple[int, int]
    pixel_xy_m: tuple[float, float]
    center_xy_m: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not all(np.isfinite(size) and size > 0 for size in self.pixel_xy_m):
            raise DataError(f"object pixel size is {self.pixel_xy_m} m; it must be two positive numbers")
        if not all(np.isfinite(place) for place in self.center_xy_m):
            raise DataError(f"object centre is {self.center_xy_m} m; it must be two finite numbers")

    def to_pixels(self, x_m: NDArray[Any], y_m: NDArray[Any], N: int) -> NDArray[np.float64]:
        """Positions (M,2) float64 px [x, y] under patch pixel (N//2, N//2), of positions in metres."""
        places = np.stack([np.asarray(x_m, np.float64), np.asarray(y_m, np.float64)], axis=1)
        return (places - self.center_xy_m) / self.pixel_xy_m + self._middle() + centre_offset_px(N)

    def to_metres(self, positions_px: NDArray[Any], N: int) -> NDArray[np.float64]:
        """The inverse of `to_pixels`: (M,2) float64 m [x, y]."""
        places = np.asarray(positions_px, np.float64)
        return (places - centre_offset_px(N) - self._middle()) * self.pixel_xy_m + self.center_xy_m

    def placed(self, shape: tuple[int, int], origin_xy: tuple[float, float]) -> ObjectFrame:
        """The frame of another canvas (H, W) whose pixel [0, 0] is pixel `origin_xy` of this one."""
        middle = np.array([shape[1] - 1, shape[0] - 1]) / 2 + origin_xy
        centre = np.asarray(self.center_xy_m) + (middle - self._middle()) * self.pixel_xy_m
        return ObjectFrame(shape, self.pixel_xy_m, (float(centre[0]), float(centre[1])))

    def _middle(self) -> NDArray[np.float64]:
        return np.array([self.shape[1] - 1, self.shape[0] - 1]) / 2


def far_field_pixel_m(energy_ev: float, distance_m: float, N: int, detector_pixel_m: float) -> float:
    """Object pixel in metres, lambda z / (N d), of N detector pixels of d metres at distance z."""
    return HC_EV_M / energy_ev * distance_m / (N * detector_pixel_m)


def detector_pixel_m(energy_ev: float, distance_m: float, N: int, object_pixel_m: float) -> float:
    """The inverse of `far_field_pixel_m`: the two sizes are reciprocal."""
    return far_field_pixel_m(energy_ev, distance_m, N, object_pixel_m)
