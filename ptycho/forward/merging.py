"""The patches of one group on a common canvas, and what every pattern of the group sees of it.

Letters: B groups, C patterns a group, K = B C patches in a flat list, N patch side, S canvas side. Positions
are [x, y] in pixels, float64, sub-pixel; arrays are [row, column]. Hoidn et al., Sci. Rep. 13, 22789 (2023),
the constraint map; `ptycho.physics.merge` is the same for one group, computed by shifts.
"""

from __future__ import annotations

import numpy as np

from ptycho.ops import Array, Size, ops_of
from ptycho.physics import MERGE_EPSILON


def inverse_or_zero(weights: Array) -> Array:
    """1 / weights, and zero where nothing was reached.

    >>> import numpy as np
    >>> inverse_or_zero(np.array([4.0, 0.0])).tolist()
    [0.25, 0.0]
    """
    ops = ops_of(weights)
    reached = weights > 0
    return ops.where(reached, 1 / ops.where(reached, weights, 1.0), 0.0)


def weighted_mean_on(
    patches: Array, window: Array, corners_xy: Array, canvas: Array, n: Size, shape: tuple[Size, Size]
) -> Array:
    """Mean of patches (K, N, N) with window (N, N), each at its own place: n canvases (n, H, W).

    sum_k T_k[w O_k] / sum_k T_k[w], T_k the splat at corner k (K, 2); zero where no patch reached.
    """
    ops = ops_of(patches)
    total = ops.splat(ops.times(patches, window), corners_xy, canvas, n, shape)
    weights = ops.splat(ops.broadcast_like(window, patches), corners_xy, canvas, n, shape)
    return ops.times(total, inverse_or_zero(weights))


def merge_window(kind: str, illumination: Array) -> Array:
    """The weights w (N, N) of the merge, in the dtype of the illumination (N, N), which is sum |P|^2.

    kind: `central`, one on the central N/2 x N/2 and zero elsewhere; `probe`, the illumination over its
    maximum; `uniform`, one everywhere.

    >>> import numpy as np
    >>> merge_window("central", np.ones((4, 4)))[1].tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    ops = ops_of(illumination)
    if kind == "probe":
        return illumination / ops.max(illumination)
    N = illumination.shape[-1]
    window = np.ones((N, N))
    if kind == "central":
        middle = slice(N // 4, N // 4 + N // 2)
        window = np.zeros((N, N))
        window[middle, middle] = 1
    return ops.constant(window, illumination)


def _reach_px(relative_xy: Array) -> Size:
    """Largest shift in whole pixels over the batch; zero for an empty batch."""
    ops = ops_of(relative_xy)
    largest = ops.max(ops.pad(ops.reshape(ops.abs(relative_xy), (-1,)), ((0, 1),)))
    (reach,) = ops.sizes(ops.reshape(ops.ceil(largest), (1,)))
    return reach


def _flat(relative_xy: Array, margin: Size) -> tuple[Array, Array]:
    """Corners (K, 2) on canvases with a margin around a patch at rest, and the canvas (K,) of each."""
    ops = ops_of(relative_xy)
    B, C = ops.shape(relative_xy)[:2]
    corners = ops.reshape(relative_xy, (-1, 2)) + ops.number(margin, relative_xy)
    return corners, ops.repeat_index(B, C, relative_xy)


def merge(patches: Array, relative_xy: Array, window: Array) -> Array:
    """Lay the C patches of every group on a common canvas: the constraint map.

    canvas = sum_k T_{r_k}[(w + 1e-3) O_k] / sum_k T_{r_k}[w + 1e-3]: a weighted mean, which is the plain mean
    of the overlap where every window is zero.

    Shapes: patches (B, C, N, N) complex, relative_xy (B, C, 2) float64 = position minus group mean, window
    (N, N); returns (B, S, S), S = N + 2 ceil(max |r|) over the batch, pixel (S//2, S//2) at the group mean.
    Pixels that no patch reaches are zero. Time and memory O(B (C N^2 + S^2)).
    """
    ops = ops_of(patches)
    B, _, N, _ = ops.shape(patches)
    reach = _reach_px(relative_xy)
    corners, canvas = _flat(relative_xy, reach)
    # splatting needs one pixel more, for the fraction
    side = N + 2 * reach + 1
    w = ops.cast_like(window, patches) + MERGE_EPSILON
    merged = weighted_mean_on(ops.reshape(patches, (-1, N, N)), w, corners, canvas, B, (side, side))
    return merged[:, :-1, :-1]


def extract_group(canvases: Array, relative_xy: Array, N: Size) -> Array:
    """Cut every pattern's own view out of its group's canvas: (B, S, S) and (B, C, 2) give (B, C, N, N)."""
    ops = ops_of(canvases)
    B, C = ops.shape(relative_xy)[:2]
    corners, canvas = _flat(relative_xy, ops.shape(canvases)[-1] // 2 - N // 2)
    padded = ops.pad(canvases, ((0, 0), (0, 1), (0, 1)))
    return ops.reshape(ops.gather(padded, corners, canvas, N), (B, C, N, N))


def merge_and_extract(patches: Array, relative_xy: Array, window: Array) -> Array:
    """O'_k of the contract: merge the group, cut each pattern's view; the identity for C = 1.

    Shapes as in `merge`; patches (B, 1, N, N) with C > 1 are one patch shared by the group (object_big off):
    its canvas is that patch, zero outside. Returns (B, C, N, N). The number of patches and of patterns a
    group must be known when a TensorFlow function is traced.
    """
    ops = ops_of(patches)
    if patches.shape[1] == 1 and relative_xy.shape[1] == 1:
        return patches
    if patches.shape[1] == 1:
        reach = _reach_px(relative_xy)
        canvases = ops.pad(patches[:, 0], ((0, 0), (reach, reach), (reach, reach)))
    else:
        canvases = merge(patches, relative_xy, window)
    return extract_group(canvases, relative_xy, ops.shape(patches)[-1])


def group_views(patches: Array, positions_xy: Array, kind: str, illumination: Array) -> Array:
    """What each pattern sees of its group: patches (B, C_out, N, N), positions_xy (B, C, 2) -> (B, C, N, N).

    `kind` of the window and illumination (N, N): see `merge_window`.
    """
    relative = positions_xy - ops_of(positions_xy).mean(positions_xy, 1, keepdims=True)
    return merge_and_extract(patches, relative, merge_window(kind, illumination))
