"""How a map of misfits becomes a belief: by the formula of decode.py, or by a small network.

The network sees the same map and corrects the formula: it scales the formula's logits and adds a map of its
own. It is convolutional, so a grid may have any side, and it works on maps divided by their own spread, so it
serves every dose and size of pattern. What it was trained on: `docs/model_card_positions.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ptycho.errors import BundleError
from ptycho.io.tensors import read_tensors
from ptycho.models.shipped import WEIGHTS
from ptycho_torch import undrawn
from ptycho_torch.refine.decode import Belief, Grid, log_likelihood

#: the built-in weights
SHIPPED = WEIGHTS.with_name("positions.safetensors")
#: pictures of a map that the network sees; the last one tells which shifts lie on the canvas
FEATURES = 9
CHANNELS = 16
NUMBERS = 30.0  # number of independent errors of a pattern caused by a wrong object


@dataclass(frozen=True)
class Maps:
    """Misfit maps of B patterns on one grid.

    index (B,); around_xy (B, 2) float64 px, where shift zero is; home_xy (B, 2), where the scan says; misfits
    (B, G) float64, infinite off the canvas; prior (B, G), log weights of the shifts; noise (B,), the misfit
    that counts alone would have.
    """

    index: Tensor
    around_xy: Tensor
    home_xy: Tensor
    misfits: Tensor
    grid: Grid
    prior: Tensor
    noise: Tensor


Believe = Callable[[Maps], Belief]


def by_formula(maps: Maps) -> Belief:
    """The softmax whose temperature is the misfit's own (`Belief.of`)."""
    return Belief.of(maps.misfits, maps.grid, NUMBERS, maps.prior)


def pictures(
    misfits: Tensor, prior: Tensor, noise: Tensor, step_px: Tensor, radius_px: Tensor
) -> tuple[Tensor, Tensor]:
    """What the network sees of maps, (B, 9, S, S) float32, and the formula's two parts (B, 2, S, S) float32:
    logits of the data and of the prior.

    misfits (B, S^2), infinite off the canvas; prior (B, S^2); noise, step_px, radius_px (B,). Zero for shifts
    off the canvas. Differentiable in the misfits.
    """
    side = round(misfits.shape[1] ** 0.5)
    lit = misfits.isfinite()
    found = misfits.masked_fill(~lit, 0.0)
    data = log_likelihood(misfits, NUMBERS).masked_fill(~lit, 0.0)
    count = lit.sum(1, keepdim=True).clamp_min(1)
    away = (found - found.sum(1, keepdim=True) / count) * lit
    spread = (away.square().sum(1, keepdim=True) / count).sqrt().clamp_min(1e-6)
    least = misfits.detach().amin(1, keepdim=True).nan_to_num(posinf=0.0)
    excess = torch.log(least.clamp_min(1e-6) / noise[:, None].clamp_min(1e-6)).clamp(-1, 5)
    ones = torch.ones_like(found)
    seen = [
        torch.log1p(-data) / 3,
        torch.log1p(2 * (found - least).clamp_min(0)) / 6,
        (away / spread).clamp(-4, 4) / 2,
        prior.clamp_min(-20) / 4,
        excess / 2 * ones,
        torch.log1p(2 * spread) / 6 * ones,
        torch.log2(step_px)[:, None] * ones,
        torch.log(radius_px / 4)[:, None] * ones,
        ones,
    ]
    stack = torch.stack(seen, 1) * lit[:, None]
    parts = torch.stack([data, prior], 1) * lit[:, None]
    return stack.reshape(-1, FEATURES, side, side).float(), parts.reshape(-1, 2, side, side).float()


class BeliefNetwork(nn.Module):
    """Pictures (B, 9, S, S) and the formula's parts (B, 2, S, S) to logits (B, S, S); any side S.

    About 9,000 weights. Shifts off the canvas are zero after every layer, so a map may be padded with them
    without effect. The last layers are zero before training, when the logits are those of the formula.
    """

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        wide = channels
        self.enter = undrawn.Conv2d(FEATURES, wide, 5, padding=2)
        self.second = undrawn.Conv2d(wide, wide, 3, padding=1)
        self.whole = undrawn.Linear(2 * wide, wide)
        self.third = undrawn.Conv2d(wide, wide, 3, padding=2, dilation=2)
        self.sharpness = undrawn.Linear(wide, 2)
        self.leave = undrawn.Conv2d(wide, 1, 3, padding=1)

    def forward(self, seen: Tensor, parts: Tensor) -> Tensor:
        lit = seen[:, -1:]
        x = nn.functional.gelu(self.enter(seen)) * lit
        x = (x + nn.functional.gelu(self.second(x))) * lit
        count = lit.sum((2, 3)).clamp_min(1)
        pooled = torch.cat([x.sum((2, 3)) / count, x.amax((2, 3)).clamp_min(0)], 1)
        known = nn.functional.gelu(self.whole(pooled))
        x = (x + nn.functional.gelu(self.third(x) + known[:, :, None, None])) * lit
        scale = torch.exp(3 * torch.tanh(self.sharpness(known) / 3))
        logits = (scale[:, :, None, None] * parts).sum(1)
        return logits + self.leave(x)[:, 0]


def network_belief(network: BeliefNetwork, maps: Maps) -> Belief:
    """The network's belief (B, G); a pattern without any shift on the canvas gets equal weights."""
    sizes = (torch.full_like(maps.noise, value) for value in (maps.grid.step_px, maps.grid.radius_px))
    seen, parts = pictures(maps.misfits, maps.prior, maps.noise, *sizes)
    logits = network(seen, parts).flatten(1).to(maps.misfits.dtype)
    dark = maps.misfits.isinf()
    logits = logits.masked_fill(dark, float("-inf")).masked_fill(dark.all(1, keepdim=True), 0.0)
    return Belief(maps.grid, maps.grid.shifts(logits.device), logits)


@lru_cache(maxsize=4)
def load_network(path: Path = SHIPPED) -> BeliefNetwork:
    """The network of a file of `ptycho sweep model=positions`, on the CPU; the weights determine its width.

    Raises MissingFileError, DataError for a damaged file, BundleError for weights of another network.
    """
    arrays, _ = read_tensors(path)
    try:
        network = BeliefNetwork(int(arrays["leave.weight"].shape[1]))
        network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    except (KeyError, IndexError, RuntimeError):
        raise BundleError(
            f"{path} holds no weights of the positions network; train one by sweep model=positions"
        ) from None
    return network.eval().requires_grad_(False)


def by_network(maps: Maps) -> Belief:
    """The belief of the network that ships. Float32 inside."""
    return network_belief(load_network().to(maps.misfits.device), maps)


#: names as in the option `position_belief`
BELIEFS: dict[str, Believe] = {"formula": by_formula, "network": by_network}
