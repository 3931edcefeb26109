"""The starting image of a network, and the patches cut from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Reference:
    """image (H, W) complex64 in the gauge of the patches; origin_xy: object pixel [x, y] of its [0, 0]."""

    image: NDArray[np.complex64]
    origin_xy: tuple[int, int]

    @cached_property
    def _padded(self) -> NDArray[np.complex64]:
        return np.pad(self.image, 1, mode="edge")

    def around(self, positions_xy: NDArray[np.float64], N: int) -> NDArray[np.complex64]:
        """Patches (..., N, N) complex64 at positions (..., 2) [x, y] object px of pixel [N//2, N//2].

        Bilinear, as `ptycho.physics.extract`; a window beyond the image is moved to its edge. Time and memory
        O(n N^2).

        >>> ramp = Reference(np.arange(64, dtype=np.complex64).reshape(8, 8), (0, 0))
        >>> ramp.around(np.array([[4.0, 3.5]]), 2).real.tolist()
        [[[23.0, 24.0], [31.0, 32.0]]]
        """
        flat = np.asarray(positions_xy, np.float64).reshape(-1, 2)
        corners = flat - N // 2 - np.array(self.origin_xy) + 1
        height, width = self._padded.shape
        corners = np.clip(corners, 0, np.array([width - N - 1, height - N - 1]))
        whole = np.floor(corners).astype(np.int64)
        fx, fy = (corners - whole).astype(np.float32).T[:, :, None, None]
        windows = np.lib.stride_tricks.sliding_window_view(self._padded, (N + 1, N + 1))
        cut = windows[whole[:, 1], whole[:, 0]]
        rows = cut[:, :-1] + fy * (cut[:, 1:] - cut[:, :-1])
        patches = rows[:, :, :-1] + fx * (rows[:, :, 1:] - rows[:, :, :-1])
        return np.asarray(patches.reshape(*np.shape(positions_xy)[:-1], N, N))
