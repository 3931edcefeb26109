"""What is asked of object and probe beside the data: smoothness, agreement of overlapping patches, the probe.

Pure functions of arrays. Letters: B groups, C patches a group, P probe modes, N side.
"""

from __future__ import annotations

from ptycho.forward.fields import squared, weighted_mean
from ptycho.ops import Array, ops_of


def smoothness(patches: Array) -> Array:
    """Mean |d2O/dy2|^2 + mean |d2O/dx2|^2: second differences of complex patches (..., N, N).

    The discrete bending of a field (Reinsch, Numer. Math. 10, 177 (1967), in one dimension). A plane costs
    nothing:

    >>> import numpy as np
    >>> y, x = np.mgrid[:8, :8]
    >>> float(smoothness(2 * x + 3j * y)), float(smoothness(x**2 + 0j))
    (0.0, 4.0)
    """
    ops = ops_of(patches)
    rows = patches[..., 2:, :] - 2 * patches[..., 1:-1, :] + patches[..., :-2, :]
    columns = patches[..., :, 2:] - 2 * patches[..., :, 1:-1] + patches[..., :, :-2]
    return ops.mean(squared(rows)) + ops.mean(squared(columns))


def overlap_consistency(patches: Array, views: Array, weight: Array) -> Array:
    """Weighted mean of |O - O'|^2: every patch against its view of the merged canvas.

    Zero where patches agree wherever they overlap. Shapes: patches and views (B, C, N, N) complex, weight
    (N, N), the illumination.
    """
    return weighted_mean(squared(patches - views), weight)


def probe_power(probe: Array, power: float) -> Array:
    """(sum |P|^2 / power - 1)^2 for probe (P, N, N) complex: the probe keeps the power it started with."""
    ops = ops_of(probe)
    return ops.square(ops.sum(squared(probe)) / power - 1)


def probe_support(probe: Array, inside: Array) -> Array:
    """Share of the power of probe (P, N, N) outside a support `inside` (N, N) in [0, 1].

    >>> import numpy as np
    >>> float(probe_support(np.array([[[1.0, 1j], [1.0, 1.0]]]), np.array([[1, 1], [1, 0.0]])))
    0.25
    """
    ops = ops_of(probe)
    lit = squared(probe)
    return ops.sum(lit * (1 - inside)) / ops.sum(lit)
