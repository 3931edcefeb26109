"""The array operations that differ between NumPy, PyTorch and TensorFlow, behind one set of names.

What is computed is written once over these names (`ptycho.forward`). `ops_of(array)` is the one place that
chooses: an array brings its own table along, so a formula takes arrays and nothing else:

>>> import numpy as np
>>> x = np.array([3 + 4j, 0j])
>>> ops = ops_of(x)
>>> ops.square(ops.abs(x)).tolist()
[25.0, 0.0]

The tables are `ptycho.ops.numpy`, `ptycho.ops.torch` and `ptycho.ops.tf`. A table is loaded when the first
array of its kind arrives; whoever made that array has loaded the backend already. The manner is that of the
backend folders of Keras 3 and of `array_namespace` in the Python array API standard.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, cast

from ptycho.ops.table import Array, Ops, Size

__all__ = ["Array", "Ops", "Size", "ops_of"]


def ops_of(array: Array) -> Ops:
    """The operations for the kind of this array: NumPy, PyTorch or TensorFlow.

    Raises TypeError for anything else, a Python number included.
    """
    return _table_of(cast(Hashable, type(array)))


@cache
def _table_of(kind: Any) -> Ops:
    packages = {base.__module__.partition(".")[0] for base in kind.__mro__}
    if "torch" in packages:
        from ptycho.ops import torch

        return cast(Ops, torch)
    if "tensorflow" in packages:
        from ptycho.ops import tf

        return cast(Ops, tf)
    if "numpy" in packages:
        from ptycho.ops import numpy

        return cast(Ops, numpy)
    raise TypeError(f"{kind.__name__}: no array of NumPy, PyTorch or TensorFlow")
