"""How patches differ from labels, where the object is known: structure, edges, directions, phase.

Pure functions. Patches and labels (B, C, N, N) complex, weight (N, N), the illumination: what is not lit is
not judged. Every loss is zero for patches equal to the labels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

#: under this, a gradient has no direction
DIRECTION_EPSILON = 1e-6


def modulus(field: Tensor) -> Tensor:
    """|O| with a gradient that stays finite at zero."""
    return torch.sqrt(field.real.square() + field.imag.square() + 1e-12)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over patches and pixels, weighted by the illumination."""
    w = weight.expand(values.shape)
    return (values * w).sum() / w.sum()


def label_phase(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean |angle(O conj(label))| / pi: a jump of 2 pi costs nothing."""
    relative = patches * labels.conj()
    return weighted_mean(torch.atan2(relative.imag, relative.real + 1e-12).abs() / math.pi, weight)


def label_ssim(patches: Tensor, labels: Tensor, sigma_px: float, data_range: float) -> Tensor:
    """1 - SSIM of amplitudes (Wang et al. 2004), Gaussian window of 2 int(3.5 sigma + 0.5) + 1 px.

    torchmetrics computes it; windows that leave the patch are not used.
    """
    side = patches.shape[-1]
    first, second = (modulus(field).reshape(-1, 1, side, side) for field in (patches, labels))
    found = structural_similarity_index_measure(
        first, second, sigma=sigma_px, data_range=data_range, reduction="none", return_full_image=True
    )
    edge = int(3.5 * sigma_px + 0.5)
    return 1 - found[1][..., edge : side - edge, edge : side - edge].mean()


def sobel(field: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives (down, right) of real (B, C, N, N) by Sobel's filters, edges reflected."""
    smooth = torch.tensor([1.0, 2.0, 1.0], dtype=field.dtype, device=field.device)
    slope = torch.tensor([-1.0, 0.0, 1.0], dtype=field.dtype, device=field.device)
    kernels = torch.stack([slope[:, None] * smooth, smooth[:, None] * slope])[:, None]
    flat = F.pad(field.reshape(-1, 1, *field.shape[-2:]), (1, 1, 1, 1), mode="reflect")
    found = F.conv2d(flat, kernels).reshape(*field.shape[:2], 2, *field.shape[-2:])
    return found[:, :, 0], found[:, :, 1]


def label_edges(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference of the Sobel magnitudes of the amplitudes (Sobel and Feldman 1968)."""
    magnitudes = []
    for field in (patches, labels):
        down, right = sobel(modulus(field))
        magnitudes.append(torch.sqrt(down.square() + right.square() + 1e-12))
    return weighted_mean((magnitudes[0] - magnitudes[1]).abs(), weight)


def label_orientation(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """1 - cosine between the amplitudes' gradients, weighted by the label's gradient and the illumination."""
    down, right = sobel(modulus(patches))
    true_down, true_right = sobel(modulus(labels))
    length = torch.sqrt(down.square() + right.square() + DIRECTION_EPSILON**2)
    true_length = torch.sqrt(true_down.square() + true_right.square() + DIRECTION_EPSILON**2)
    cosine = (down * true_down + right * true_right) / (length * true_length)
    w = weight * true_length
    return ((1 - cosine) * w).sum() / w.sum()
