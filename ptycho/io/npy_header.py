"""The header of an array in an NPZ file: what it is, before any of its values is read."""

from __future__ import annotations

from typing import Any

import numpy as np

_NPY = b"\x93NUMPY"


def array_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]] | None:
    """(shape, whether in Fortran order, dtype) at the beginning of an NPY stream; None for another format.

    The stream stands at the first value then. Raises what numpy raises on a damaged header.
    """
    if stream.read(len(_NPY)) != _NPY:
        return None
    version = tuple(stream.read(2))
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    return None
