"""What is asked of object and probe beside the data: smoothness, agreement of overlapping patches, the probe.

Pure functions of tensors. Letters: B groups, C patches a group, P probe modes, N side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def smoothness(patches: Tensor) -> Tensor:
    """Mean square of the second differences along rows and columns, of complex patches (..., N, N).

    The discrete bending of a field: sum |d2O/dx2|^2 + |d2O/dy2|^2 (Reinsch 1967 in one dimension).
    """
    rows = torch.diff(patches, n=2, dim=-2)
    columns = torch.diff(patches, n=2, dim=-1)
    return (rows.real**2 + rows.imag**2).mean() + (columns.real**2 + columns.imag**2).mean()


def overlap_consistency(patches: Tensor, views: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean square difference of every patch from its view of the merged canvas.

    Zero where patches agree wherever they overlap. Shapes: patches and views (B, C, N, N) complex, weight
    (N, N), the illumination.
    """
    difference = patches - views
    squared = difference.real**2 + difference.imag**2
    return (squared * weight).sum() / weight.expand(squared.shape).sum()


def probe_power(probe: Tensor, power: float) -> Tensor:
    """(sum |P|^2 / power - 1)^2 for probe (P, N, N): the probe keeps the power it started with."""
    return (probe.abs().square().sum() / power - 1).square()


def probe_support(probe: Tensor, inside: Tensor) -> Tensor:
    """Share of the probe's power (P, N, N) outside a support `inside` (N, N) in [0, 1]."""
    lit = probe.real.square() + probe.imag.square()
    return (lit * (1 - inside)).sum() / lit.sum()
