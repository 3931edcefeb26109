"""What the processes of one reconstruction send: a model from the geometry of a scan; no run, no network.

Two ways to share a sweep. Boxes (what the engine does): every batch is divided among the processes, and the
box of the canvas that the batch reaches is summed over all of them, with the probe's sums. Tiles (what it
does not): every process has a part of the plane and visits its own patterns; what tiles share, their halos,
and the probe's sums are exchanged, once a step or once a sweep.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

_COMPLEX, _REAL = 8, 4


class Sent(NamedTuple):
    """A sweep: sums over the processes, and bytes of what is summed or exchanged, per process."""

    messages: int
    bytes: float


class Network(NamedTuple):
    """latency_s of one message between two processes, and bytes_per_s."""

    name: str
    latency_s: float
    bytes_per_s: float


def raster(count: int, step_px: float, seed: int = 0) -> NDArray[np.float64]:
    """A jittered square raster (M, 2)."""
    side = int(np.ceil(np.sqrt(count)))
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[:count] * step_px
    return np.asarray(places + np.random.default_rng(seed).uniform(-1, 1, places.shape))


def probe_bytes(N: int, modes: int) -> int:
    """The probe's sums: a complex one a mode, and a real one."""
    return N * N * (_COMPLEX * modes + _REAL)


def boxes(positions: NDArray[np.float64], N: int, modes: int = 1, batch: int = 16, seed: int = 0) -> Sent:
    """Summing the box of every batch: the engine's own batches, each a message."""
    import torch

    from ptycho_torch.refine.batches import make_batches

    whole = 0.0
    parts = make_batches(torch.from_numpy(positions), batch, "random", seed, 0)
    for part in parts:
        width, height = np.ptp(positions[part.numpy()].round(), axis=0) + N
        whole += float(width * height) * _COMPLEX + probe_bytes(N, modes)
    return Sent(len(parts), whole)


def tiles(positions: NDArray[np.float64], N: int, processes: int) -> tuple[float, float]:
    """Pixels of all tiles' own windows, and of those that two tiles or more reach; the plane is halved again
    and again along its longer side."""
    parts = [np.arange(len(positions))]
    while len(parts) < processes:
        parts.sort(key=len)
        part = parts.pop()
        order = part[np.argsort(positions[part, int(np.argmax(np.ptp(positions[part], axis=0)))])]
        parts += [order[: len(order) // 2], order[len(order) // 2 :]]
    low = np.floor(positions.min(0)).astype(int)
    columns, rows = (np.ceil(positions.max(0)).astype(int) - low + N + 1).tolist()
    reached = np.zeros((rows, columns), np.uint8)
    places = [positions[part] - low for part in parts]
    corners = [(np.floor(one.min(0)).astype(int), np.ceil(one.max(0)).astype(int)) for one in places]
    for (x0, y0), (x1, y1) in corners:
        reached[y0 : y1 + N, x0 : x1 + N] += 1
    own, halo = 0.0, 0.0
    for (x0, y0), (x1, y1) in corners:
        seen = reached[y0 : y1 + N, x0 : x1 + N]
        own, halo = own + seen.size, halo + float((seen > 1).sum())
    return own, halo


def halos(
    positions: NDArray[np.float64], N: int, processes: int, modes: int = 1, batch: int = 16, *, steps: bool
) -> Sent:
    """Exchanging halos and the probe's sums: after every step of all tiles, or once a sweep; per process."""
    times = int(np.ceil(len(positions) / (batch * processes))) if steps else 1
    _, shared = tiles(positions, N, processes)
    return Sent(times, times * (shared / processes * _COMPLEX + probe_bytes(N, modes)))


def ring_s(sent: Sent, processes: int, network: Network) -> float:
    """Seconds of a sweep's sums by a ring: 2 (K - 1) passes of a K-th of each message."""
    if processes < 2:
        return 0.0
    passes = 2 * (processes - 1)
    return sent.messages * passes * network.latency_s + passes / processes * sent.bytes / network.bytes_per_s


def break_even(sent: Sent, processes: int, work_s: float, latency_s: float) -> float:
    """Bytes a second under which so many processes are no faster than one, whose sweep takes work_s; infinite
    where the latency alone takes all that is won."""
    passes = 2 * (processes - 1)
    left = work_s * (1 - 1 / processes) - sent.messages * passes * latency_s
    return passes / processes * sent.bytes / left if left > 0 else float("inf")
