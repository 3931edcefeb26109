"""The eight possible orientations of the position axes relative to the detector axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import InputError

Floats = NDArray[np.float64]

#: name: (x and y swapped, x negated, y negated), in this order: swapped first
ORIENTATIONS: dict[str, tuple[bool, bool, bool]] = {
    "as_given": (False, False, False),
    "both_negated": (False, True, True),
    "x_negated": (False, True, False),
    "y_negated": (False, False, True),
    "swapped": (True, False, False),
    "swapped_both_negated": (True, True, True),
    "swapped_x_negated": (True, True, False),
    "swapped_y_negated": (True, False, True),
}


def reorient(positions: Floats, name: str) -> Floats:
    """Positions (M,2) [x, y] under one of the orientations, shifted so that none lies lower than before.

    Raises InputError for an unknown name.
    """
    if name not in ORIENTATIONS:
        raise InputError(f"orientation {name!r} is not known; known: {', '.join(ORIENTATIONS)}")
    swap, negate_x, negate_y = ORIENTATIONS[name]
    made = positions[:, ::-1].copy() if swap else positions.copy()
    made *= np.array([-1.0 if negate_x else 1.0, -1.0 if negate_y else 1.0])
    return np.asarray(made + (positions.min(0) - made.min(0)))
