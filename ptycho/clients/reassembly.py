"""The stitching call of older programs, which hand over more shapes and index the image by a last axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.image import stitching


def reassemble_position(obj: ArrayLike, global_offsets: ArrayLike, M: int = 20) -> NDArray[Any]:
    """The image (H, W, 1) of `ptycho.image.stitching.reassemble_position`: `np.squeeze` and `[..., 0]` give
    (H, W).

    Takes offsets (n,1,1,2), [x, y] px, beside the shapes of that function. Errors, time and memory are its.
    """
    places = global_offsets
    if np.ndim(places) == 4 and np.shape(places)[1:] == (1, 1, 2):
        places = np.swapaxes(np.asarray(places), 2, 3)
    return stitching.reassemble_position(obj, places, M)[..., None]
