"""Layers whose weights are left as they lie in memory: the caller draws or loads all of them.

Nothing is taken from a random generator. `torch.nn.utils.skip_init` does the same by way of the meta device,
which costs half a second of imports in a process that only looks at one image.
"""

from __future__ import annotations

from torch import nn

__all__ = ["Conv2d", "ConvTranspose2d", "Linear"]


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, its weights not drawn."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`, its weights not drawn."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class Linear(nn.Linear):
    """`torch.nn.Linear`, its weights not drawn."""

    def reset_parameters(self) -> None:
        """Draw nothing."""
