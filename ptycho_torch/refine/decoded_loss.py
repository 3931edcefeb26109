"""A training objective with free positions: each pattern is compared at the position decoded from its
neighbours.

A network that trains on wrong positions learns to blur: the canvas of a block averages patches that do not
fit together. Here the position of every pattern is first decoded on the canvas, on a grid around its nominal
position (decode.py); patch and window are then placed there. Nothing is stored: positions are decoded again
in each step, and the scan keeps the nominal ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ptycho.forward.diffraction import amplitude, diffract, rate
from ptycho.forward.losses import poisson_deviance
from ptycho.forward.region import region_views
from ptycho.forward.seen import Seen
from ptycho.objectives.terms import DecodedPositions
from ptycho_torch.refine.decode import Belief, Grid


def decoded_shifts(seen: Seen, settings: DecodedPositions) -> Tensor:
    """Shift (B, C, 2) float64 px, [x, y], decoded for every pattern of a block.

    Differentiable in patches and probe. Time and memory: one forward pass of the block for each shift of
    the grid, (2 radius / step + 1)^2 of them; independent of the scan.
    """
    grid = Grid(settings.radius_px, settings.step_px)
    positions, x = seen.batch["positions_xy"], seen.batch["x"]
    places = positions
    if seen.patches.shape[1] != positions.shape[1]:
        places = positions.mean(1, keepdim=True)
    scale = seen.model.intensity_scale_of(seen.scan)
    maps = []
    for shift in grid.shifts(positions.device):
        views = region_views(seen.patches, places, positions + shift, seen.illumination)
        away = scale * (seen.scale * amplitude(diffract(views, seen.probe)) - x)
        maps.append((away.square() * seen.counted).sum((-2, -1)).to(torch.float64))
    every = torch.stack(maps, -1)
    prior = -grid.shifts(every.device).square().sum(1) / (2 * settings.deviation_px**2)
    belief = Belief.of(every.flatten(0, 1), grid, settings.numbers, prior)
    return belief.decoded(settings.kind).reshape(positions.shape)


def decoded_deviance(seen: Seen, settings: Any) -> Tensor:
    """Poisson deviance with every pattern of a block at its decoded place; without a block `poisson_nll`."""
    expected = seen.expected
    if bool(seen.batch["region"]) and len(seen.patches) > 1:
        positions = seen.batch["positions_xy"] + decoded_shifts(seen, settings)
        views = seen.model.views(seen.patches, {**seen.batch, "positions_xy": positions})
        expected = rate(diffract(views, seen.probe), seen.model.intensity_scale_of(seen.scan) * seen.scale)
    return poisson_deviance(expected, seen.counts, seen.counted)
