"""The image that a network with `reference = 'coarse'` corrects: where it comes from, and how patches are cut.

It starts as the coarse object of all patterns (`coarse_start`), in the gauge of the patches: with it, probe
and patterns have the same mean power, so that a flat object has amplitude one half. Patches are cut bilinear
at sub-pixel positions, in NumPy, for every backend and for ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ptycho.image.canvas import Stitched
from ptycho.io.lazy import Patterns
from ptycho.run.coarse_start import coarse_start

#: of the median coverage: the weight of the image before, where new patches are laid over it
KEPT = 0.1
_SAMPLE = 64


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

    def moved(self, change: Stitched) -> Reference:
        """The image after a change that was stitched on its own canvas; where few patches lie, less of it."""
        share = change.coverage / (change.coverage + KEPT)
        return replace(self, image=(self.image + share * change.object).astype(np.complex64))


def coarse_reference(
    patterns: Patterns,
    positions_xy: NDArray[np.float64],
    probe: NDArray[np.complex64],
    bad_pixels: NDArray[np.bool_] | None = None,
) -> Reference:
    """The coarse object under a scan in the gauge of the patches.

    patterns (M, N, N): x, the amplitude in the network's gauge; positions_xy (M, 2) object px; probe
    (P, N, N) in the network's gauge; bad_pixels (N, N) bool. Time: one pass over the patterns and a least
    squares on a coarse grid; memory: 256 patterns and grids linear in the canvas. DataError where nothing can
    be read.
    """
    start = coarse_start(patterns, positions_xy, probe, unit="amplitude", bad_pixels=bad_pixels)
    found = Reference(start.object, start.origin_xy)
    some = np.linspace(0, len(positions_xy) - 1, min(_SAMPLE, len(positions_xy))).astype(np.int64)
    exits = found.around(positions_xy[some], probe.shape[-1])[:, None] * probe
    waves = np.fft.fft2(exits, norm="ortho")
    expected = np.fft.fftshift((np.abs(waves) ** 2).sum((0, 1)))
    measured = np.square(np.stack([patterns[int(row)] for row in some]), dtype=np.float64).sum(0)
    good = np.ones(probe.shape[-2:], bool) if bad_pixels is None else ~bad_pixels
    scale = np.sqrt(measured[good].sum() / expected[good].sum())
    return replace(found, image=(found.image * np.float32(scale)).astype(np.complex64))
