"""Total variation of the object, its weight chosen by patterns that the sweeps do not see.

After a sweep the object is the data's plus noise of variance 1 / light, so it is replaced by
    argmin_O  1/2 sum_r light(r) |O - O_sweep|^2 + weight sum_r |grad O| ,
light relative to its mean over the lit canvas, |grad O| the length of the complex gradient: edges of
amplitude and phase alike. (L. Rudin, S. Osher, E. Fatemi, Physica D 60, 259 (1992); solved by the primal-dual
method of A. Chambolle, T. Pock, J. Math. Imaging Vis. 40, 120 (2011), algorithm 2.) As sweep after sweep
pulls towards the data and this towards few edges, the object ends near the maximum a posteriori.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ptycho_torch.refine.held_out import verdict
from ptycho_torch.refine.operators import power
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.state import RefineState
from ptycho_torch.refine.unknowns import illumination

_ITERATIONS = 15
_FEW_PHOTONS = 1000.0  # an object pixel, over the whole scan: above this the prior is not asked for
_FIRST = tuple(0.005 * 2.0**k for k in range(8))
_NEXT = (0.5, 1.0, 2.0)
_AGAIN = (0.005, 0.02)


def relative_light(light: Tensor) -> Tensor:
    """Illumination (H, W) over its mean where it is more than 1 % of its peak, at least 1e-3."""
    lit = light > 0.01 * light.max()
    return (light / light[lit].mean()).clamp_min(1e-3)


def smoothed_by_variation(
    image: Tensor, light: Tensor, weight: float, iterations: int = _ITERATIONS
) -> Tensor:
    """The minimiser of the module docstring for `image` (H, W) complex and relative light (H, W).

    Time: 4 passes over the canvas an iteration. Memory: six canvases.
    """
    if weight <= 0:
        return image
    found = ahead = image
    across, down = torch.zeros_like(image), torch.zeros_like(image)
    primal, dual = 0.25 / weight, 0.5 * weight
    convex = float(light.min())
    for _ in range(iterations):
        across[:, :-1] += dual / weight * (ahead[:, 1:] - ahead[:, :-1])
        down[:-1] += dual / weight * (ahead[1:] - ahead[:-1])
        size = (power(across) + power(down)).sqrt_().clamp_min_(1)
        across, down = across / size, down / size
        shrunk = torch.zeros_like(image)
        shrunk[:, :-1] += across[:, :-1]
        shrunk[:, 1:] -= across[:, :-1]
        shrunk[:-1] += down[:-1]
        shrunk[1:] -= down[:-1]
        pulled = primal * light
        before, found = found, (found + primal * weight * shrunk + pulled * image) / (1 + pulled)
        rate = 1 / (1 + 2 * convex * primal) ** 0.5
        primal, dual = rate * primal, dual / rate
        ahead = found + rate * (found - before)
    return found


def photons_a_pixel(scan: RefineScan, state: RefineState) -> float:
    """Photons that a lit pixel of the object gets from the whole scan (its own probe and positions)."""
    light = illumination(scan, replace(state, probe=scan.probe, positions_xy=scan.positions_xy))
    lit = int((light > 0.01 * light.max()).sum())
    return scan.mean_counts * scan.size / max(lit, 1)


def asked_for(scan: RefineScan, state: RefineState, options: RefineOptions) -> bool:
    """Whether this reconstruction tries the prior at all."""
    if options.prior == "auto":
        return photons_a_pixel(scan, state) < _FEW_PHOTONS
    return options.prior == "tv"


def choose_weight(
    scan: RefineScan, state: RefineState, light: Tensor, strength: float, judges: Tensor
) -> None:
    """Smooth the object with the weight that `judges` (H,) like best, in place; 0 is one of them.

    The first time eight weights are tried, then half, the same and twice the last. Time: 15 passes over the
    canvas and one prediction of the judges for each.
    """
    last = None if state.variation is None else float(state.variation[0])
    tried = _FIRST if last is None else tuple(last * factor for factor in _NEXT) if last > 0 else _AGAIN
    found = [(verdict(scan, state, judges), 0.0, state.object)]
    for weight in tried:
        smooth = smoothed_by_variation(state.object, light, weight)
        found.append((verdict(scan, replace(state, object=smooth), judges), weight, smooth))
    _, weight, state.object = min(found, key=lambda one: one[0])
    state.variation = torch.tensor([weight, strength], dtype=torch.float64)


def keep_weight(state: RefineState, light: Tensor, strength: float) -> None:
    """Smooth the object in place with the last weight, in proportion to the step factor."""
    if state.variation is not None and float(state.variation[0]) > 0:
        weight = float(state.variation[0] / state.variation[1]) * strength
        state.object = smoothed_by_variation(state.object, light, weight)
