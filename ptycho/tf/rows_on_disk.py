"""Gathers batches from patterns and labels that do not fit in memory: NumPy reads the rows.

A tensor would hold all of them. Inside tf.data the graph therefore calls Python once for each batch. The
rows, their order and their bits are those of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.pattern_store import is_on_disk

Tensor = Any


@dataclass(frozen=True)
class RowsOnDisk:
    """`read` gives rows of an array `shape` for members (B, C) as `kind`, and hands them on as
    `dtype`."""

    read: Callable[[NDArray[np.int64]], NDArray[Any]]
    shape: tuple[int, ...]
    kind: Any
    dtype: Any

    def rows(self, members: Tensor) -> Tensor:
        """(B, C, N, N); runs in the graph."""
        found = tf.numpy_function(self.read, [members], self.kind, stateful=False)
        return tf.cast(tf.ensure_shape(found, [*members.shape, *self.shape[1:]]), self.dtype)


def pattern_rows(container: PtychoDataContainer, real: Any) -> Tensor | RowsOnDisk:
    """The patterns (M, N, N): one tensor, or read by rows where the container has them on disk."""
    patterns = container.patterns
    if not is_on_disk(patterns):
        return tf.cast(tf.convert_to_tensor(patterns), real)
    return RowsOnDisk(lambda members: patterns[members], patterns.shape, tf.float32, real)


def labels_by_rows(container: PtychoDataContainer, label_scale: float, real: Any) -> RowsOnDisk:
    """The labels (M, N, N) times `label_scale`, cut when they are asked for."""
    wide = tf.complex128 if real == tf.float64 else tf.complex64
    read = partial(container.pattern_labels, scale=label_scale)
    return RowsOnDisk(read, container.patterns.shape, tf.complex64, wide)


def references_by_rows(container: PtychoDataContainer, real: Any) -> RowsOnDisk:
    """The reference around each pattern (M, N, N), cut when it is asked for."""
    wide = tf.complex128 if real == tf.float64 else tf.complex64
    return RowsOnDisk(container.pattern_references, container.patterns.shape, tf.complex64, wide)


def gathered(rows: Tensor | RowsOnDisk, members: Tensor) -> Tensor:
    """Rows (B, C, N, N) of a tensor or of an array on disk; runs in the graph."""
    return rows.rows(members) if isinstance(rows, RowsOnDisk) else tf.gather(rows, members)
