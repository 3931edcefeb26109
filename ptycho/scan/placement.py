"""Group centres together with the shape of the client's object.

ptychodus passes `container.global_offsets` to `reassemble_position` and nothing else, but expects the image
in the frame of its own object.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class PlacedOffsets(np.ndarray[Any, np.dtype[np.float64]]):
    """Centres (B,1,2,1) float64 px [x, y]; an ordinary array with one attribute more.

    canvas_shape: (H, W) of the object in whose pixels the positions are given, or None. An array computed
    from this one, also a slice, has None.
    """

    canvas_shape: tuple[int, int] | None

    def __array_finalize__(self, source: Any) -> None:
        self.canvas_shape = None


def with_canvas_shape(centres: NDArray[np.float64], canvas_shape: tuple[int, ...] | None) -> PlacedOffsets:
    """Centres (B,1,2,1) in pixels of an object of shape (H, W), or of none."""
    made = np.array(centres, np.float64).view(PlacedOffsets)
    made.canvas_shape = None if canvas_shape is None else (int(canvas_shape[0]), int(canvas_shape[1]))
    return made
