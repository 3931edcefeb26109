"""A network that answers one bright pixel, and what that pixel of every patch becomes in the image."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ptycho.image.canvas import window_weights

N = 32
PLAIN = np.ones((1, N, N), np.complex64)


class Deltas(nn.Module):
    """Answers any diffraction with patches that are one at pixel (N//2, N//2) and zero elsewhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, diffraction: torch.Tensor, probe: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        N = diffraction.shape[-1]
        modulus = torch.zeros(len(diffraction), self.channels, N, N)
        modulus[..., N // 2, N // 2] = 1
        return modulus, torch.zeros_like(modulus)


def delta_patches(count: int) -> np.ndarray:
    patches = np.zeros((count, N, N), np.complex64)
    patches[:, N // 2, N // 2] = 1
    return patches


def uniform(M: int) -> np.ndarray:
    return window_weights(PLAIN, M, "uniform")


def landed(image: np.ndarray, origin_xy) -> set[tuple[float, float]]:
    """Object pixels [x, y] at which the image is not zero."""
    return {(float(x + origin_xy[0]), float(y + origin_xy[1])) for y, x in np.argwhere(np.abs(image) > 1e-6)}


def pixels(positions_xy: np.ndarray) -> set[tuple[float, float]]:
    return {(float(x), float(y)) for x, y in positions_xy}


def smooth_object(side: int = 128) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / 16
    return (1 + 0.3 * np.cos(x + 0.4 * y)) * np.exp(1j * np.sin(0.9 * y - 0.7 * x))
