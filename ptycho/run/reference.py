"""The image that a network with `reference = 'coarse'` corrects, from the coarse object to the answer.

It starts as the coarse object of all patterns (`coarse_start`), in the gauge of the patches: with it, probe
and patterns have the same mean power, so that a flat object has amplitude one half. The patterns are dealt
into rounds, neighbours into different ones; each round is seen on the image that the rounds before it made.
What a patch changes is stitched and added, so that nothing is resampled twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptycho.image.canvas import Frame, Stitched
from ptycho.io.lazy import Patterns
from ptycho.scan.reference import Reference

#: of the median coverage: the weight of the image before, where new patches are laid over it
KEPT = 0.1
_SAMPLE = 64


def moved(before: Reference, change: Stitched) -> Reference:
    """The image after a change that was stitched on its own canvas; where few patches lie, less of it."""
    share = change.coverage / (change.coverage + KEPT)
    return replace(before, image=(before.image + share * change.object).astype(np.complex64))


def frame_of(reference: Reference) -> Frame:
    """The canvas of the image itself."""
    left, top = reference.origin_xy
    return Frame((float(left), float(top)), reference.image.shape)


def dealt(order: NDArray[np.int64], rounds: int) -> Iterator[NDArray[np.int64]]:
    """An order of groups, neighbours side by side, in `rounds` parts that each cover the scan.

    >>> [part.tolist() for part in dealt(np.arange(5), 2)]
    [[0, 2, 4], [1, 3]]
    """
    for first in range(min(rounds, len(order))):
        yield order[first::rounds]


def placed_on(image: Reference, coverage: NDArray[np.float32], frame: Frame) -> Stitched:
    """The image where patches reached it, on another canvas; coverage as in `Stitched`."""
    height, width = frame.shape
    offset = np.array(frame.origin_xy, np.int64) - np.array(image.origin_xy)
    made, lit = np.zeros(frame.shape, np.complex64), np.zeros(frame.shape, np.float32)
    low = np.maximum(-offset, 0)
    high = np.minimum(np.array(image.image.shape[::-1]) - offset, (width, height))
    here = (slice(low[1], high[1]), slice(low[0], high[0]))
    there = tuple(slice(part.start + at, part.stop + at) for part, at in zip(here, offset[::-1], strict=True))
    lit[here] = coverage[there]
    made[here] = np.where(lit[here] > 0, image.image[there], 0)
    found = lit[lit > 0]
    middle = np.partition(found, (len(found) - 1) // 2)[(len(found) - 1) // 2] if len(found) else 1
    return Stitched(made, lit / middle, frame)


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
    from ptycho.run.coarse_start import coarse_start  # scipy only where it is needed

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
