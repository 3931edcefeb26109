"""The learned prior in the loop: halfway and at the end the object moves towards the network's output.

    O <- O + w (D(O) - O) ,
D is the network of learned.py; it is trained to return the mean of the objects that have this noisy image.
The share w, possibly 0, is chosen by held-out patterns that no earlier sweep has used. More than two steps
make the image smoother than the training images, and worse. (Plug-and-play: S. Venkatakrishnan, C. Bouman, B.
Wohlberg,
IEEE GlobalSIP 2013.)
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from ptycho.models.shipped import PRIOR, shipped_weights
from ptycho_torch.refine.held_out import verdict
from ptycho_torch.refine.learned import Denoiser, denoised, expected_error
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.state import RefineState

SHARES = (0.25, 0.5, 0.75, 1.0)
_BLOCK_PX = 16
_DARK = 1 / 64  # pixels with less than this share of the peak's light stay as they are


@lru_cache(maxsize=1)
def shipped_denoiser() -> Denoiser:
    """The built-in network, on the CPU. BundleError where its file is missing or damaged."""
    network = Denoiser()
    weights = {name: torch.from_numpy(value) for name, value in shipped_weights(PRIOR).items()}
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def answer(image: Tensor, light: Tensor) -> Tensor:
    """D(image) for an object (H, W) complex under light (H, W); poorly lit pixels stay unchanged.

    Time and memory: linear in the canvas, about 0.6 us and 0.5 kB a pixel. Float32 inside.
    """
    error = expected_error(image, light)
    lit = (light > _DARK * light.max()).cpu()
    rows, columns = (_blocks(torch.where(lit.any(axis))[0], lit.shape[1 - axis]) for axis in (1, 0))
    out = image.clone()
    seen = image[rows, columns].to(torch.complex64)
    if seen.numel():
        network = shipped_denoiser().to(image.device)
        found = denoised(network, seen[None], error[rows, columns][None].float())[0]
        known = lit[rows, columns].to(image.device)
        out[rows, columns] = torch.where(known, found.to(image.dtype), image[rows, columns])
    return out


def _blocks(lit: Tensor, side: int) -> slice:
    """The span of lit indices, widened to whole blocks where the canvas allows, else cut to whole blocks."""
    low, high = int(lit[0]), int(lit[-1]) + 1
    length = min(-(-(high - low) // _BLOCK_PX), side // _BLOCK_PX) * _BLOCK_PX
    start = max(0, min((low + high - length) // 2, side - length))
    return slice(start, start + length)


def choose_share(scan: RefineScan, state: RefineState, light: Tensor, judges: Tensor) -> None:
    """Move the object by the share with the best likelihood for `judges` (H,), in place. One prediction per
    share.
    """
    found = answer(state.object, light)
    tried = [(verdict(scan, state, judges), 0.0, state.object)]
    for share in SHARES:
        mixed = torch.lerp(state.object, found, share)
        tried.append((verdict(scan, replace(state, object=mixed), judges), share, mixed))
    _, share, mixed = min(tried, key=lambda one: one[0])
    state.learned = torch.tensor([share], dtype=torch.float64)
    _move(state, mixed)


def keep_share(state: RefineState, light: Tensor) -> None:
    """Move the object by the chosen share, in place."""
    if state.learned is not None and float(state.learned[0]) > 0:
        _move(state, torch.lerp(state.object, answer(state.object, light), float(state.learned[0])))


def _move(state: RefineState, image: Tensor) -> None:
    """Replace the object by `image`; the momentum keeps the move of the last sweep."""
    if state.earlier_object is not None:
        state.earlier_object = state.earlier_object + (image - state.object)
    state.object = image
