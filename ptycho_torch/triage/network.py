"""The network of triage: three convolutions over six pictures of 32 x 32, numbers, one sigmoid per fault."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from ptycho.triage.features import NUMBERS, SIDE
from ptycho.triage.labels import FAULTS
from ptycho_torch import undrawn

PICTURES = 6
CHANNELS = (12, 24, 40)
HIDDEN = 64
#: rings about the centre; the network gets the mean differences from neighbours and scan over each ring
RINGS = 16
#: normalised numbers are clipped here, so that an unusual scan counts as one at the limit of the training
#: data
CUT = 8.0


class TriageNetwork(nn.Module):
    """Logits (B, faults) of pooled counts, independent for each fault: a frame without a fault is good.

    It includes variance stabilisation, normalisation and clipping of the counts. Weights are drawn from
    `seed` alone. mean, scale (numbers,): of the normalisation, kept with the weights.
    """

    about: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        widths = (PICTURES, *CHANNELS)
        self.convolutions = nn.ModuleList(
            undrawn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths)
        )
        flat = CHANNELS[-1] * (SIDE // 8) ** 2
        self.shape = undrawn.Linear(flat, HIDDEN)
        self.beside = undrawn.Linear(len(NUMBERS), HIDDEN)
        self.joined = undrawn.Linear(2 * HIDDEN + HIDDEN // 2, HIDDEN)
        self.last = undrawn.Linear(HIDDEN, len(FAULTS))
        self.rings = undrawn.Linear(2 * RINGS, HIDDEN // 2)
        self.register_buffer("about", ring_means())
        self.register_buffer("mean", torch.zeros(len(NUMBERS)))
        self.register_buffer("scale", torch.ones(len(NUMBERS)))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in [*self.convolutions, self.shape, self.rings, self.beside, self.joined, self.last]:
                assert isinstance(layer.weight, Tensor) and isinstance(layer.bias, Tensor)
                fan = layer.weight[0].numel()
                layer.weight.normal_(0.0, math.sqrt(2.0 / fan), generator=generator)
                layer.bias.zero_()

    def forward(
        self, frames: Tensor, around: Tensor, usual: Tensor, numbers: Tensor, noise: Tensor
    ) -> Tensor:
        """Logits from the fields of `ptycho.triage.features.FrameInputs`.

        frames, around (B,32,32); usual (B or 1,32,32); numbers (B, numbers); noise (B or 1,1,1).
        """
        x = pictures(frames, around, usual, noise)
        about = torch.relu(self.rings((x[:, 4:].flatten(2) @ self.about).flatten(1)))
        for layer in self.convolutions:
            x = torch.relu(layer(x))
        shape = torch.relu(self.shape(x.flatten(1)))
        known = ((numbers - self.mean) / self.scale).clamp(-CUT, CUT)
        beside = torch.relu(self.beside(known))
        logits: Tensor = self.last(torch.relu(self.joined(torch.cat([shape, about, beside], 1))))
        return logits


def ring_means() -> Tensor:
    """The matrix (32^2, RINGS) for means over rings one block wide about the centre, without corners."""
    place = torch.arange(SIDE) - SIDE / 2 + 0.5
    radius = torch.hypot(place[:, None], place[None, :]).flatten()
    member = (radius[:, None] >= torch.arange(RINGS)) & (radius[:, None] < torch.arange(1, RINGS + 1))
    return member / member.sum(0).clamp(min=1)


def pictures(frames: Tensor, around: Tensor, usual: Tensor, noise: Tensor) -> Tensor:
    """The pictures of `ptycho.triage.features.images`, (B,6,32,32)."""
    totals = [x.sum(dim=(1, 2), keepdim=True) + 1.0 for x in (frames, around, usual)]
    own, beside, whole = totals
    root = 2 * torch.sqrt(frames + 0.375)

    def apart(model: Tensor) -> Tensor:
        z = (root - 2 * torch.sqrt(model + 0.375)) / noise
        return torch.sign(z) * torch.log1p(torch.abs(z))

    made = [torch.sqrt(x / t) * SIDE for x, t in zip((frames, around, usual), totals, strict=True)]
    made += [apart(around), apart(around * (own / beside)), apart(usual * (own / whole))]
    return torch.stack([x.expand_as(frames) for x in made], 1)
