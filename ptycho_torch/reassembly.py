"""From patches to one image: every patch goes to its own sub-pixel place on a rectangular canvas.

Letters: K patches, N their side, M side of the central window that is used, (H, W) canvas.
Time O(K M^2); memory: the canvas and one chunk of patches, since patches are added as they are predicted.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho.errors import DataError
from ptycho.image.canvas import COVERAGE_FLOOR, Frame, Stitched, chunks, make_frame, scan_order
from ptycho.ops.team import Team
from ptycho.ops.torch import splat


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

    def add(self, patches: Tensor, positions_xy: NDArray[np.float64]) -> None:
        """Patches (..., N, N) complex64 at (K, 2) float64: the object pixels under pixel (N//2, N//2)."""
        self._add(patches.reshape(-1, *patches.shape[-2:]), torch.from_numpy(positions_xy).to(patches.device))

    def _add(self, patches: Tensor, positions_xy: Tensor) -> None:
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

    def pool(self, team: Team) -> None:
        """Add what the other processes have on their canvases; one message of three floats a pixel."""
        total, weight = self._sum.cpu().numpy(), self._weight.cpu().numpy()
        team.add_up(total, weight)
        self._sum.copy_(torch.from_numpy(total))
        self._weight.copy_(torch.from_numpy(weight))

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
        stitcher.add(torch.from_numpy(patches[rows]), positions_xy[rows])
    return stitcher.result()
