"""The settings of the model in use, under legacy names. Kept for ptychodus 1.2, which asks here."""

from __future__ import annotations

from ptycho.params import params

__all__ = ["params"]
