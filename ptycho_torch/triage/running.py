"""Applies the network of triage: probabilities for the frames of a scan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho.errors import BundleError
from ptycho.models.triage import DECISION, THRESHOLDS, USUAL
from ptycho.triage.features import Array, FrameInputs, FrameStatistics, look
from ptycho.triage.labels import FAULTS
from ptycho_torch.triage.network import TriageNetwork

#: frames of a step: the activations stay in the cache
_BATCH = 256
#: probability from which a frame is no longer used as a neighbour
_SUSPECT = 0.5


def network_of(weights: Mapping[str, NDArray[Any]], source: str) -> TriageNetwork:
    """The network with these weights; BundleError, which names `source`, if they do not fit."""
    network = TriageNetwork()
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    there = {name: value.shape for name, value in weights.items() if name not in DECISION}
    sizes = {weights[name].shape for name in DECISION if name in weights}
    if wanted != there or sizes != {(len(FAULTS),)}:
        wrong = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
        raise BundleError(
            f"{source}: its weights are not those of this version's triage "
            f"({', '.join(wrong[:3]) or THRESHOLDS}); train it again: ptycho sweep model=triage"
        )
    state = {name: torch.from_numpy(np.array(weights[name])) for name in wanted}
    network.load_state_dict(state)
    return network.eval()


def load_network(path: Path | None = None) -> tuple[TriageNetwork, NDArray[np.float32]]:
    """Network and thresholds (faults,) of a file, None: the built-in ones. Raises BundleError."""
    network, thresholds, _ = load_triage(path)
    return network, thresholds


def load_triage(
    path: Path | None = None,
) -> tuple[TriageNetwork, NDArray[np.float32], NDArray[np.float32] | None]:
    """Network, thresholds and the tails of usual scans (faults,), None in a file of an older version."""
    from ptycho.models.triage import WEIGHTS, triage_weights

    weights = triage_weights(path)
    return network_of(weights, str(path or WEIGHTS)), weights[THRESHOLDS], weights.get(USUAL)


def tensors(frames: Array, around: Array, usual: Array, numbers: Array, noise: Array) -> tuple[Tensor, ...]:
    """The arguments of the network's forward, from arrays."""
    return tuple(torch.from_numpy(np.array(a, np.float32)) for a in (frames, around, usual, numbers, noise))


def two_looks(
    network: TriageNetwork,
    measured: FrameStatistics,
    positions_px: NDArray[np.float64],
    scale: float | None = 1.0,
) -> NDArray[np.float32]:
    """Probability (M, faults) of each fault; arguments as `ptycho.triage.features.look`.

    If the first pass finds bad frames, a second pass does not use them as neighbours or for the scan. If it
    finds none, or more than half of them, its result is returned.
    """
    first = probabilities(network, look(measured, positions_px, scale))
    bad = np.asarray((first >= _SUSPECT).any(axis=1))
    if not bad.any() or bad.mean() > 0.5:
        return first
    return probabilities(network, look(measured, positions_px, scale, np.logical_not(bad)))


def probabilities(network: TriageNetwork, seen: FrameInputs) -> NDArray[np.float32]:
    """Probability (M, faults) float32 of each fault. Time O(M); memory one batch of 256 frames."""
    noise = np.full((1, 1, 1), seen.noise, np.float32)
    made = np.empty((len(seen.frames), len(FAULTS)), np.float32)
    with torch.inference_mode():
        for begin in range(0, len(made), _BATCH):
            part = slice(begin, begin + _BATCH)
            given = tensors(seen.frames[part], seen.around[part], seen.usual, seen.numbers[part], noise)
            made[part] = torch.sigmoid(network(*given)).numpy()
    return made
