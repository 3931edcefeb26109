"""The autoencoder of frames: an encoder to whole latents, the decoder of `ptycho.io.compressed.network`.

After Balle, Laparra, Simoncelli, ICLR 2017 (arXiv 1611.01704): during training, uniform noise replaces
rounding. The bits of a latent follow from a distribution learned for each channel, here a Laplace
distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptycho_torch import undrawn
from ptycho_torch.layers import draw_he

#: layers of the decoder whose channels become pixels
_GROWING = (1, 2, 3)


class CodecNetwork(nn.Module):
    """Frames (B, 1, N, N) and light (B, 1, N, N), N a multiple of 8, to latents (B, C, N/8, N/8) and back.

    Weights are not drawn: load them, or `made_from_seed`.
    """

    def __init__(self, latent_channels: int = 8, width: int = 48) -> None:
        super().__init__()
        w = (width // 3, 2 * width // 3, width)
        sides = [(2, w[0]), (w[0], w[1]), (w[1], w[2]), (w[2], latent_channels)]
        self.encoder = nn.ModuleList(
            undrawn.Conv2d(a, b, 3, stride=2 if number < 3 else 1, padding=1)
            for number, (a, b) in enumerate(sides)
        )
        v = (width, 2 * width // 3, width // 3, width // 4)
        pairs = [
            (latent_channels, v[0]), (v[0], 4 * v[1]), (v[1], 4 * v[2]), (v[2], 4 * v[3]),
            (v[3] + 1, v[3]), (v[3], 1),
        ]  # fmt: skip
        self.decoder = nn.ModuleList(undrawn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        #: logarithm of the scale of each channel's Laplace distribution
        self.log_scale = nn.Parameter(torch.zeros(latent_channels))

    def encode(self, frames: Tensor, light: Tensor) -> Tensor:
        """Latents before rounding."""
        x = torch.cat([frames, light], dim=1)
        for number, layer in enumerate(self.encoder):
            x = layer(x)
            if number < len(self.encoder) - 1:
                x = functional.relu(x)
        return x

    def decode(self, latents: Tensor, light: Tensor) -> Tensor:
        """Frames (B, 1, N, N) from latents."""
        x = latents
        for number, layer in enumerate(self.decoder):
            if number == len(self.decoder) - 2:
                x = torch.cat([x, light], dim=1)
            x = layer(x)
            if number in _GROWING:
                x = functional.pixel_shuffle(x, 2)
            if number < len(self.decoder) - 1:
                x = functional.relu(x)
        return x

    def bits(self, latents: Tensor) -> Tensor:
        """Bits of each frame's latents (B,): -log2 of the probability of the unit interval around each."""
        scale = self.log_scale.exp()[:, None, None]
        return -torch.log2(_interval(latents, scale).clamp_min(1e-9)).sum((1, 2, 3))


def _interval(x: Tensor, scale: Tensor) -> Tensor:
    """Probability of [x - 1/2, x + 1/2] under a Laplace distribution about 0."""
    far = x.abs()
    near = 1 - torch.exp(-0.5 / scale) * torch.cosh(far.clamp_max(0.5) / scale)
    tail = 0.5 * (torch.exp(-(far - 0.5).clamp_min(0) / scale) - torch.exp(-(far + 0.5) / scale))
    return torch.where(far < 0.5, near, tail)


def made_from_seed(latent_channels: int, width: int, seed: int) -> CodecNetwork:
    """A network whose weights follow from the seed (He et al., 2015); no global generator is used."""
    network = CodecNetwork(latent_channels, width)
    draw_he(network, seed)
    return network
