"""A learned prior of the object: a small network that removes noise of known size from an image.

The input is the complex object on the canvas, in its own gauge and without the phase of its blurred copy, and
the expected error of each pixel. The output is a correction in units of that error.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from ptycho_torch import undrawn
from ptycho_torch.refine.operators import power

WIDTHS = (32, 48, 64, 64)
_BLUR_PX = 6.0
_LARGEST, _SMALLEST = 1.0, 3e-3


def expected_error(image: Tensor, light: Tensor) -> Tensor:
    """Expected standard deviation (H, W) of the object over its mean modulus; for one photon a pixel it is 1.

    image (H, W) complex, light (H, W) counts through an open object: 1 / sqrt(light * mean |image|^2).
    """
    lit = light > 0.1 * light.max()
    counts = light * power(image)[lit].mean()
    return counts.clamp_min(1e-6).rsqrt().clamp(_SMALLEST, _LARGEST)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = undrawn.Conv2d(width, width, 3, padding=1)
        self.second = undrawn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))


class Denoiser(nn.Module):
    """U-Net on blocks of 2 x 2 px with four levels; sides are multiples of 16 px.

    Weights are not drawn: load them, or `draw` them.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.enter = undrawn.Conv2d(5 * 4, widths[0], 3, padding=1)
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(undrawn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(undrawn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs)
        self.before = nn.ModuleList(_Block(width) for width in widths)
        self.after = nn.ModuleList(_Block(width) for width in widths[:-1])
        self.leave = undrawn.Conv2d(widths[0], 2 * 4, 3, padding=1)

    def draw(self, seed: int) -> None:
        """Weights as torch draws those of its layers, from a generator of its own; the last layer of every
        block, and of the network, is 0 and adds nothing before training."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
                assert layer.bias is not None
                bound = layer.weight[0].numel() ** -0.5
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        for block in (*self.before, *self.after):
            for value in block.second.parameters():
                nn.init.zeros_(value)
        for value in self.leave.parameters():
            nn.init.zeros_(value)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 5, H, W) to a correction (B, 2, H, W) in units of the expected error."""
        x = self.enter(nn.functional.pixel_unshuffle(x, 2))
        kept = []
        for before, down in zip(self.before[:-1], self.down, strict=True):
            x = before(x)
            kept.append(x)
            x = down(x)
        x = self.before[-1](x)
        for after, up, skip in zip(self.after[::-1], self.up[::-1], kept[::-1], strict=True):
            x = after(up(x) + skip)
        return nn.functional.pixel_shuffle(self.leave(x), 2)


def features(image: Tensor, error: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """image, error (B, H, W) -> features (B, 5, H, W), local phase (B, H, W), scale (B, 1, 1).

    The averages have weights 1 / error^2: poorly lit pixels count little.
    """
    weight = error.square().reciprocal()
    weight = weight / weight.amax((-2, -1), keepdim=True)
    whole = weight.sum((-2, -1), keepdim=True)
    size = ((weight * power(image)).sum((-2, -1), keepdim=True) / whole).sqrt()
    mean = (weight * image).sum((-2, -1), keepdim=True)
    image = image / size
    around = _blurred(weight * image)
    local = around / around.abs().clamp_min(1e-12)
    own = image * local.conj() - 1
    common = image * (mean / mean.abs().clamp_min(1e-12)).conj() - 1
    stack = [own.real, own.imag, common.real, common.imag, 0.5 * torch.log(error) + 1]
    return torch.stack(stack, 1), local, size


def _blurred(image: Tensor) -> Tensor:
    reach = int(3 * _BLUR_PX)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float32) / _BLUR_PX) ** 2)
    line = line / line.sum()
    x = torch.view_as_real(image).permute(0, 3, 1, 2)
    shape = x.shape
    x = x.reshape(-1, 1, *shape[2:])
    x = nn.functional.conv2d(x, line.view(1, 1, 1, -1), padding=(0, reach))
    x = nn.functional.conv2d(x, line.view(1, 1, -1, 1), padding=(reach, 0))
    return torch.view_as_complex(x.reshape(shape).permute(0, 2, 3, 1).contiguous())


def denoised(network: nn.Module, image: Tensor, error: Tensor) -> Tensor:
    """image (B, H, W) complex with errors of size `error` (B, H, W) times its mean modulus -> (B, H, W)."""
    seen, local, size = features(image, error)
    change = network(seen)
    change = torch.complex(change[:, 0], change[:, 1])
    return image + size * error * local * change
