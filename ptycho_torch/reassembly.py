"""From patches to one image: every patch goes to its own sub-pixel place on a rectangular canvas.

Letters: K patches, N their side, M side of the central window that is used, (H, W) canvas.
Time O(K M^2); memory: the canvas and one chunk of patches, since patches are added as they are predicted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho.errors import DataError
from ptycho_torch.physics import splat

#: weights below this share of the largest are called uncovered: one patch's far tail is not an image
COVERAGE_FLOOR = 1e-3


@dataclass(frozen=True)
class Frame:
    """Where a canvas lies: `origin_xy` is the object pixel of canvas pixel [0, 0]; `shape` is (H, W)."""

    origin_xy: tuple[float, float]
    shape: tuple[int, int]


@dataclass(frozen=True)
class Stitched:
    """An image: `object` (H, W) complex64, zero where nothing was seen; `coverage` (H, W) float32 sum of
    weights, as a share of its median where covered; `frame`."""

    object: NDArray[np.complex64]
    coverage: NDArray[np.float32]
    frame: Frame

    @property
    def covered(self) -> NDArray[np.bool_]:
        """(H, W) True where patches reached."""
        return self.coverage > 0


def auto_window_side(probe: NDArray[np.complex64], power: float = 0.99) -> int:
    """Side M of the central window: N/2, or what the probe illuminates (holds `power` of it) if that is more.
    """
    N = probe.shape[-1]
    lit = np.sum(np.abs(probe.astype(np.complex128)) ** 2, 0)
    for side in range(N // 2, N, 2):
        low = N // 2 - side // 2
        if lit[low : low + side, low : low + side].sum() >= power * lit.sum():
            return side
    return N


def window_weights(probe: NDArray[np.complex64], M: int, weighting: str = "probe") -> NDArray[np.float32]:
    """(M, M) weights of the central window: |P|^2 with a floor of 1e-3 of its maximum, or uniform."""
    N = probe.shape[-1]
    if not 2 <= M <= N:
        raise DataError(f"M = {M}: the stitched window must be between 2 and N = {N} pixels")
    if weighting == "uniform":
        return np.ones((M, M), np.float32)
    low = N // 2 - M // 2
    lit = np.sum(np.abs(probe.astype(np.complex128)) ** 2, 0)[low : low + M, low : low + M]
    return (lit / lit.max() + 1e-3).astype(np.float32)


def make_frame(
    positions_xy: NDArray[np.float64], M: int, canvas_shape: tuple[int, int] | None = None
) -> Frame:
    """The canvas of a scan: just large enough, or the given one.

    A given canvas is the client's object: positions that lie inside it are its own pixels, so its origin is
    (0, 0); positions in some other frame are laid on it centre on centre.
    """
    low, high = positions_xy.min(0), positions_xy.max(0)
    if canvas_shape is None:
        first = np.floor(low) - M // 2
        width, height = (np.ceil(high) + (M - M // 2) - first + 1).astype(int)
        return Frame((float(first[0]), float(first[1])), (int(height), int(width)))
    height, width = canvas_shape
    size = np.array([width, height], np.float64)
    if (low >= -0.5).all() and (high <= size - 0.5).all():
        return Frame((0.0, 0.0), (height, width))
    origin = np.round((low + high) / 2 - (size - 1) / 2)
    return Frame((float(origin[0]), float(origin[1])), (height, width))


class Stitcher:
    """Adds patches to a canvas, chunk by chunk; `result` gives the weighted mean."""

    def __init__(
        self, frame: Frame, weights: NDArray[np.float32], device: torch.device | str = "cpu"
    ) -> None:
        self.frame = frame
        self.M = weights.shape[0]
        self._weights = torch.from_numpy(weights).to(device)
        height, width = frame.shape
        # patches that hang over a given canvas are added to a margin that `result` cuts off
        self._margin = self.M + 1
        shape = (height + 2 * self._margin, width + 2 * self._margin)
        self._sum = torch.zeros(shape, dtype=torch.complex64, device=device)
        self._weight = torch.zeros(shape, dtype=torch.float32, device=device)

    def add(self, patches: Tensor, positions_xy: Tensor) -> None:
        """Patches (K, N, N) complex64 at (K, 2) float64: the object pixels under pixel (N//2, N//2)."""
        N, M = patches.shape[-1], self.M
        low = N // 2 - M // 2
        origin = torch.tensor(self.frame.origin_xy, dtype=torch.float64, device=positions_xy.device)
        corners = positions_xy - M // 2 - origin + self._margin
        height, width = self._sum.shape
        limit = torch.tensor([width - M - 1, height - M - 1], dtype=torch.float64, device=corners.device)
        inside = ((corners >= 0) & (corners <= limit)).all(1)
        window = patches[inside, low : low + M, low : low + M]
        corners = corners[inside]
        if not len(corners):
            return
        # one small canvas around the chunk, so that the cost does not depend on the size of the image
        first = torch.floor(corners.amin(0))
        span = (torch.floor(corners.amax(0)) - first).to(torch.int64) + M + 1
        box = (int(span[1]), int(span[0]))
        one = torch.zeros(len(corners), dtype=torch.int64, device=corners.device)
        w = self._weights.expand(window.shape).contiguous()
        x, y = (int(v) for v in first)
        target = (slice(y, y + box[0]), slice(x, x + box[1]))
        self._sum[target] += splat(w * window, corners - first, one, 1, box)[0]
        self._weight[target] += splat(w, corners - first, one, 1, box)[0]

    def result(self) -> Stitched:
        """The weighted mean, its coverage and its frame; pixels that hardly any weight reached are zero."""
        m = self._margin
        height, width = self.frame.shape
        total = self._sum[m : m + height, m : m + width]
        weight = self._weight[m : m + height, m : m + width]
        reached = weight > COVERAGE_FLOOR * self._weights.max()
        if not bool(reached.any()):
            raise DataError("no patch reached the canvas: are the positions in pixels of the given object?")
        image = torch.where(reached, total / torch.where(reached, weight, 1), 0)
        coverage = torch.where(reached, weight / weight[reached].median(), 0)
        return Stitched(image.cpu().numpy(), coverage.cpu().numpy(), self.frame)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def stitch(
    patches: NDArray[np.complex64],
    positions_xy: NDArray[np.float64],
    weights: NDArray[np.float32],
    *,
    canvas_shape: tuple[int, int] | None = None,
    chunk: int = 256,
) -> Stitched:
    """Stitch patches (K, N, N) that are in memory already; see `Stitcher` for patches that are not."""
    if len(patches) != len(positions_xy):
        raise DataError(f"{len(patches)} patches but {len(positions_xy)} positions")
    frame = make_frame(positions_xy, weights.shape[0], canvas_shape)
    stitcher = Stitcher(frame, weights)
    # neighbours in space share a chunk, so that its box stays small whatever the order of the scan
    order = scan_order(positions_xy, chunk)
    for part in chunks(len(order), chunk):
        rows = order[part]
        stitcher.add(torch.from_numpy(patches[rows]), torch.from_numpy(positions_xy[rows]))
    return stitcher.result()


def scan_order(positions_xy: NDArray[np.float64], chunk: int) -> NDArray[np.int64]:
    """An order in which consecutive chunks are compact: strips, back and forth. O(K log K)."""
    count = len(positions_xy)
    strips = max(1, round(math.sqrt(count / chunk)))
    rank = np.empty(count, np.int64)
    rank[np.argsort(positions_xy[:, 1], kind="stable")] = np.arange(count)
    strip = rank * strips // count
    x = np.where(strip % 2 == 0, positions_xy[:, 0], -positions_xy[:, 0])
    return np.lexsort((x, strip))
