"""Total variation of the object and a pull to its start; held-out patterns choose the weights.

After a sweep the object contains noise of variance 1 / light, so it is replaced by
    argmin_O  1/2 sum_r light(r) |O - O_sweep|^2 + weight sum_r |grad O| ,
light is relative to its mean over the lit canvas; |grad O| is the length of the complex gradient, so edges of
amplitude and phase count alike. (L. Rudin, S. Osher, E. Fatemi, Physica D 60, 259 (1992); solved by the
primal-dual method of A. Chambolle, T. Pock, J. Math. Imaging Vis. 40, 120 (2011), algorithm 2.) Each sweep
pulls towards the data, and this step towards few edges; the object converges near the maximum a posteriori.
The pull is a Gaussian prior around the first object O_1, scaled by c to fit:
    (light O + k c O_1) / (light + k) .
If a pixel gets only a few photons, the low frequencies from all patterns are more reliable than a sweep.
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
_FEW_PHOTONS = 1000.0  # photons of an object pixel in the whole scan: above this no prior is used
#: below this the learned prior saw too little in training, and total variation is better
_LEAST_LEARNED = 3.0
_FEWEST_PHOTONS = 200.0  # below this a few sweeps with the learned prior are enough
_FIRST = tuple(0.005 * 2.0**k for k in range(8))
_NEXT = (0.5, 1.0, 2.0)
_AGAIN = (0.005, 0.02)
_FIRST_PULLS = tuple(0.05 * 3.0**k for k in range(7))
_PULL_AGAIN = (0.05,)
_EVERY = 3


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


def pulled_to(image: Tensor, first: Tensor, light: Tensor, weight: float) -> Tensor:
    """`image` (H, W) pulled to `first` with k = `weight`, at relative light (H, W); 0 changes nothing."""
    if weight <= 0:
        return image
    scale = torch.vdot((light * first).flatten(), image.flatten()) / (light * power(first)).sum()
    return (light * image + weight * scale * first) / (light + weight)


def photons_a_pixel(scan: RefineScan, state: RefineState) -> float:
    """Photons that a lit pixel of the object gets from the whole scan (its own probe and positions)."""
    light = illumination(scan, replace(state, probe=scan.probe, positions_xy=scan.positions_xy))
    lit = int((light > 0.01 * light.max()).sum())
    return scan.mean_counts * scan.size / max(lit, 1)


def asked_for(scan: RefineScan, state: RefineState, options: RefineOptions) -> str:
    """The prior of this reconstruction: "learned", "tv" or "none"."""
    if options.prior == "auto":
        if state.variation is not None:  # a state of a version in which "auto" meant "tv"
            return "tv"
        photons = photons_a_pixel(scan, state)
        if photons < _LEAST_LEARNED:
            return "tv"
        return "learned" if photons < _FEW_PHOTONS else "none"
    return options.prior


def noise_is_all(scan: RefineScan, state: RefineState) -> bool:
    """Whether a pixel gets so few photons that further sweeps add only noise."""
    return photons_a_pixel(scan, state) < _FEWEST_PHOTONS


def choose_weight(
    scan: RefineScan, state: RefineState, light: Tensor, strength: float, judges: Tensor
) -> None:
    """Smooth the object and pull it to the first, in place, with the weights of best likelihood for `judges`
    (H,).

    0 is one of them. The first time eight weights and seven pulls are tried, later half, the same and twice
    the last weight; after a weight of 0, small weights in every third sweep. Time: one prediction of the
    judges for each, 15 passes over the canvas for each weight.
    """
    again = state.epoch % _EVERY == 0
    tried = _to_try(state.variation, _FIRST, _AGAIN if again else ())
    found = [(verdict(scan, state, judges), 0.0, state.object)]
    for weight in tried:
        smooth = smoothed_by_variation(state.object, light, weight)
        found.append((verdict(scan, replace(state, object=smooth), judges), weight, smooth))
    best, weight, state.object = min(found, key=lambda one: one[0])
    state.variation = torch.tensor([weight, strength], dtype=torch.float64)
    if state.first is None:
        return
    found = [(best, 0.0, state.object)]
    for weight in _to_try(state.pull, _FIRST_PULLS, _PULL_AGAIN if again else ()):
        drawn = pulled_to(state.object, state.first, light, weight)
        found.append((verdict(scan, replace(state, object=drawn), judges), weight, drawn))
    _, weight, state.object = min(found, key=lambda one: one[0])
    state.pull = torch.tensor([weight, strength], dtype=torch.float64)


def _to_try(last: Tensor | None, first: tuple[float, ...], again: tuple[float, ...]) -> tuple[float, ...]:
    """Weights to try after `last` (2,): the first set, weights near a useful one, or small ones after 0."""
    if last is None:
        return first
    weight = float(last[0])
    return tuple(weight * factor for factor in _NEXT) if weight > 0 else again


def keep_weight(state: RefineState, light: Tensor, strength: float) -> None:
    """Smooth and pull the object in place with the last weights, in proportion to the step factor."""
    if state.variation is not None and float(state.variation[0]) > 0:
        weight = float(state.variation[0] / state.variation[1]) * strength
        state.object = smoothed_by_variation(state.object, light, weight)
    if state.first is not None and state.pull is not None and float(state.pull[0]) > 0:
        weight = float(state.pull[0] / state.pull[1]) * strength
        state.object = pulled_to(state.object, state.first, light, weight)
