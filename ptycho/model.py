"""The settings of the model in use, under legacy names. Kept for ptychodus 1.2, which asks here."""

from __future__ import annotations

from ptycho.clients.params import params

__all__ = ["params"]
