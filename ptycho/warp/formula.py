"""The global part of a warp in closed form, for NumPy arrays and torch tensors alike: arithmetic only."""

from __future__ import annotations

from typing import Any

#: the numbers of the global part. shift, rotation, scale, shear, lens: displacement at the unit radius (half
#: the longer side), as a share of it; lens_x, lens_y: centre of the lens, in unit radii from the image's
#: centre
NAMES = (
    "shift_x", "shift_y", "rotation", "scale", "shear", "skew", "lens", "lens_high", "lens_x", "lens_y",
)  # fmt: skip
#: bounds of the absolute values; a fit stays within them
BOUNDS = (0.25, 0.25, 0.2, 0.2, 0.15, 0.15, 0.15, 0.1, 0.5, 0.5)
#: which numbers each kind of warp has
PARTS = {
    "none": (),
    "shift": (0, 1),
    "affine": (0, 1, 2, 3, 4, 5),
    "lens": tuple(range(10)),
    "flow": tuple(range(10)),
}


def global_displacement(values: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Displacement (x, y) at x, y, all in unit radii; values: ten numbers in the order of NAMES.

    The affine part is linear: rotation and scale as their generators. The lens is radial about its own
    centre, r (k r^2 + K r^4): the first terms of D. Brown, Photogrammetric Engineering 37, 855 (1971).

    >>> global_displacement([0.1, 0, 0, 0.2, 0, 0, 0, 0, 0, 0], 1.0, -1.0)
    (0.30000000000000004, -0.2)
    """
    shift_x, shift_y, turn, scale, shear, skew, lens, high, lens_x, lens_y = values
    across, down = x - lens_x, y - lens_y
    square = across * across + down * down
    radial = lens * square + high * square * square
    dx = shift_x + (scale + shear) * x + (skew - turn) * y + radial * across
    dy = shift_y + (skew + turn) * x + (scale - shear) * y + radial * down
    return dx, dy
