"""The region context: a block of neighbouring groups on one canvas, as it will be stitched.

A single far-field pattern does not fix its patch: the global phase is free, the dark tails of the probe are
almost free, and amplitude may pass for phase. Neighbours that look at the same pixels settle all three. So a
block of neighbouring groups is predicted, laid on one canvas, and every pattern is explained by that canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ptycho.physics import MERGE_EPSILON
from ptycho.tf.physics import gather, inverse_weights, splat

Tensor = Any


@dataclass(frozen=True)
class Canvas:
    """A region's frame: where object pixel (0, 0) lies and how large it is, scalar int32 tensors."""

    origin_xy: Tensor
    shape: tuple[Tensor, Tensor]

    @classmethod
    def around(cls, positions_xy: Tensor, N: Any) -> Canvas:
        """The smallest canvas that holds the patch of every position (K, 2)."""
        dtype = positions_xy.dtype
        lowest = tf.floor(tf.reduce_min(positions_xy, 0)) - tf.cast(N // 2, dtype)
        highest = tf.math.ceil(tf.reduce_max(positions_xy, 0)) + tf.cast(N - N // 2, dtype) + 1
        size = tf.cast(highest - lowest, tf.int32)
        return cls(lowest, (size[1], size[0]))

    def corners(self, positions_xy: Tensor, N: Any) -> Tensor:
        """Canvas pixel under patch pixel (0, 0) for every position."""
        return positions_xy - tf.cast(N // 2, positions_xy.dtype) - self.origin_xy


def region_views(patches: Tensor, places_xy: Tensor, positions_xy: Tensor, window: Tensor) -> Tensor:
    """What every pattern of a block sees of the block's common canvas.

    Shapes: patches (B, C_out, N, N) complex; places_xy (B, C_out, 2) float64, where each patch lies;
    positions_xy (B, C, 2) float64, where each pattern looks; window (N, N), the patch weights (|P|^2).
    Returns (B, C, N, N). Time and memory O(B C N^2).
    """
    N = tf.shape(patches)[-1]
    flat, place = tf.reshape(patches, [-1, N, N]), tf.reshape(places_xy, [-1, 2])
    looks = tf.reshape(positions_xy, [-1, 2])
    canvas = Canvas.around(tf.concat([place, looks], 0), N)
    corners = canvas.corners(place, N)
    one = tf.zeros([tf.shape(flat)[0]], tf.int32)
    w = window / tf.reduce_max(window) + MERGE_EPSILON
    weights = splat(tf.broadcast_to(w, tf.shape(flat)), corners, one, 1, canvas.shape)
    merged = splat(tf.cast(w, flat.dtype) * flat, corners, one, 1, canvas.shape)
    merged *= tf.cast(inverse_weights(weights), flat.dtype)
    which = tf.zeros([tf.shape(looks)[0]], tf.int32)
    views = gather(merged, canvas.corners(looks, N), which, N)
    size = tf.shape(positions_xy)
    return tf.reshape(views, [size[0], size[1], N, N])
