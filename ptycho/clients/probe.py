"""The probe that a client sets before it loads grouped data. Kept for ptychodus (1.2 to 1.7)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.clients import params
from ptycho.errors import DataError
from ptycho.scan.probe import Modes, as_modes


def set_probe_guess(X: object, probe: NDArray[Any]) -> Modes:
    """Keep a probe for callers of the old surface and return it as (P,N,N) complex64; `X` is not used.

    Kept for ptychodus, which calls it before `ptycho.loader.load`; the package passes probes as arguments.
    """
    modes = as_modes(probe)
    params.cfg["probe"] = modes
    return modes


def get_probe() -> Modes:
    """The probe last given to `set_probe_guess`, (P,N,N) complex64. Raises DataError if there was none."""
    modes = params.cfg.get("probe")
    if modes is None:
        raise DataError("no probe was set: call ptycho.probe.set_probe_guess(None, probe) first")
    return as_modes(np.asarray(modes))
