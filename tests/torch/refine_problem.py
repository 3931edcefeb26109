"""A small scan for the update rules and the engine, in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ptycho_torch.refine import make_scan, start_state

N, M = 32, 12


def problem(bad: bool = False, modes: int = 1, **scan: Any):
    """(scan, state) of double precision, counts of no probe and object that fit them."""
    rng = np.random.default_rng(0)
    positions = rng.uniform(20, 30, (M, 2))
    r2 = sum(np.square(np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2)))
    probe = 30 * np.stack([np.exp(-r2 / 60 + 0.02j * r2), 0.3 * np.exp(-r2 / 40) * np.arange(N)])[:modes]
    mask = None
    if bad:
        mask = np.zeros((N, N), bool)
        mask[15:18, 16] = True  # bright pixels
    counts = rng.poisson(200 * np.exp(-r2 / 30) + 0.3, (M, N, N))
    made = make_scan(counts, positions, probe, bad_pixels=mask, dtype=torch.complex128, **scan)
    state = start_state(made)
    y, x = np.indices(state.canvas.shape)
    state.object = state.object * torch.from_numpy(0.8 + 0.1 * np.sin(x / 3) + 0.1j * np.cos(y / 4))
    return made, state


INDEX = torch.arange(M)


def differs(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.abs(one).max())
