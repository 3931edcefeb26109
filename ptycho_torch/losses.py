"""What is minimised, as pure functions of tensors; `ptycho.physics` has the same formulas in NumPy.

Letters: B groups, C patterns a group, N side. Every loss is a mean over the pixels that count.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: a count of zero is this inside the logarithm, where zero times it is zero; not so small that a high rate
#: makes the ratio underflow
SMALLEST_COUNT = 1e-20


def masked_mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of values where `counted` (broadcastable, 0 or 1); zero where nothing counts."""
    weight = counted.to(values.dtype).expand(values.shape)
    return (values * weight).sum() / weight.sum().clamp_min(1)


def poisson_nll(rate: Tensor, counts: Tensor, counted: Tensor) -> Tensor:
    """Mean of rate - N log(rate): Poisson likelihood, negative log, without log N!, a constant."""
    return masked_mean(rate - counts * torch.log(rate), counted)


def poisson_deviance(rate: Tensor, counts: Tensor, counted: Tensor) -> Tensor:
    """Poisson NLL minus its floor (rate = N), so that 0 is perfect: mean of rate - N + N log(N / rate).

    Same gradient as `poisson_nll`, and exact in float32 at 1e9 photons, where a difference of means is not.
    """
    # not xlogy: its gradient at a count of zero is 0/0
    ratio = counts.clamp_min(SMALLEST_COUNT) / rate
    return masked_mean(rate - counts + counts * torch.log(ratio), counted)


def shifted_poisson(rate: Tensor, counts: Tensor, counted: Tensor, variance: float) -> Tensor:
    """Poisson deviance of counts + variance under rate + variance: counting noise with Gaussian read noise.

    The sum of both noises has the mean and variance of a Poisson variable shifted by `variance` (counts^2),
    the read noise's (Snyder, Hammoud and White, JOSA A 10, 1014 (1993)).
    """
    return poisson_deviance(rate + variance, (counts + variance).clamp_min(0), counted)


def amplitude_mae(predicted: Tensor, measured: Tensor, counted: Tensor) -> Tensor:
    """Mean absolute difference of diffraction amplitudes, both in the gauge of x."""
    return masked_mean((predicted - measured).abs(), counted)


def amplitude_charbonnier(predicted: Tensor, measured: Tensor, counted: Tensor, epsilon: float) -> Tensor:
    """Mean of sqrt(d^2 + epsilon^2) - epsilon over differences d of amplitudes (Charbonnier et al. 1994)."""
    difference = predicted - measured
    return masked_mean(torch.sqrt(difference.square() + epsilon**2) - epsilon, counted)


def total_variation(patches: Tensor) -> Tensor:
    """Mean modulus of the complex forward differences: isotropic total variation (Rudin et al. 1992)."""
    rows = torch.diff(patches, dim=-2)[..., :, :-1]
    columns = torch.diff(patches, dim=-1)[..., :-1, :]
    squared = rows.real**2 + rows.imag**2 + columns.real**2 + columns.imag**2
    return torch.sqrt(squared + 1e-12).mean()


def realspace_mae(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute complex difference from the labels, weighted by the illumination (N, N)."""
    difference = patches - labels
    modulus = torch.sqrt(difference.real**2 + difference.imag**2 + 1e-12)
    return (modulus * weight).sum() / weight.expand(modulus.shape).sum()


def supervised(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Amplitude error plus wrapped phase error over pi, weighted by the illumination (N, N).

    The phase error is |angle(O conj(label))|, so a jump of 2 pi costs nothing; pi * tanh keeps it finite.
    """
    relative = patches * labels.conj()
    phase = torch.atan2(relative.imag, relative.real + 1e-12).abs() / math.pi
    amplitude = (patches.abs() - labels.abs()).abs()
    w = weight.expand(phase.shape)
    return ((amplitude + phase) * w).sum() / w.sum()
