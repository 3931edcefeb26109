"""The network's inputs for a frame: the frame, its neighbours, its scan, and some numbers.

A frame is judged within its scan, because the object can make any frame dark, bright or off-centre. Frames
are pooled: blocks of ceil(N / 32) pixels are summed, with the frame in the middle of 32 x 32 blocks. A frame
is compared with its five nearest positions (in each block the mean of the middle three, so that one bad
neighbour has no effect) and with the whole scan.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.lazy import Patterns, as_lazy
from ptycho.scan.grouping import nearest_neighbors
from ptycho.triage.labels import FEWEST_REPEATED

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

#: blocks along a side, and number of neighbours for comparison
SIDE, NEAR = 32, 5
#: bytes of frames, as float32, in one step: they stay in the cache
_CHUNK_BYTES = 4 * 2**20
_CHUNK_FRAMES = 256
#: counts above which a block is very unlikely to be dark by chance
_LIT = 4.0
#: counts of the median frame if the file's numbers are not whole, and so not counts
_ASSUMED_COUNTS = 1e5
NUMBERS = (
    "log total over that of the neighbours", "log total over that of the scan",
    "total against neighbours, in spreads", "log total", "log maximum over that of the neighbours",
    "log pixels at the maximum", "log maximum", "centre of mass against neighbours, rows, in spreads",
    "centre of mass against neighbours, columns, in spreads", "centre of mass moved, blocks",
    "misfit to neighbours over the scan's", "misfit to the scan over the scan's",
    "likeness to neighbours", "repeats an earlier frame", "log median total of the scan",
    "log noise of the scan", "log lit pixels over those of the neighbours",
    "log pixels at the largest value of the scan", "log pixels of a side",
    "log dark blocks where the neighbours are lit", "log bright blocks where the neighbours are dark",
)  # fmt: skip


class FrameStatistics(NamedTuple):
    """Statistics of a scan of M frames.

    pooled (M,32,32) float32 counts; total, largest (M,) float64 counts; n_top: pixels at the frame's own
    largest value, n_lit: pixels above zero, both (M,); repeats (M,) int64: the earlier frame that a frame
    repeats exactly, -1 if none; N px.
    """

    pooled: Array
    total: Floats
    largest: Floats
    n_top: Floats
    n_lit: Floats
    repeats: NDArray[np.int64]
    N: int


def measure(
    patterns: Patterns, unit: str = "counts", bad_pixels: NDArray[np.bool_] | None = None
) -> FrameStatistics:
    """One pass over patterns (M,N,N) in `unit`; pixels of bad_pixels (N,N) are left out.

    It does not use `ptycho.scan.detector`, which computes statistics of pixels in float64 and is ten times
    slower for a frame. Time O(M N^2); memory 4 kB a frame and one chunk. Raises DataError for NaN.
    """
    M, N = len(patterns), int(patterns.shape[-1])
    into = pooling(N)
    live = None if bad_pixels is None or not bad_pixels.any() else (~bad_pixels).astype(np.float32)
    pooled = np.empty((M, SIDE, SIDE), np.float32)
    total, largest, n_top, n_lit = (np.zeros(M) for _ in range(4))
    rows_of_bytes = max(1, _CHUNK_BYTES // (4 * N * N))
    for begin, chunk in as_lazy(patterns).chunks(rows_of_bytes * N * N * patterns.dtype.itemsize):
        part = slice(begin, begin + len(chunk))
        seen = chunk.astype(np.float32)
        if live is not None:
            seen = np.where(live > 0, seen, np.float32(0.0))
        np.maximum(seen, 0.0, out=seen)
        if unit == "amplitude":
            np.square(seen, out=seen)
        wide = (seen.reshape(-1, N) @ into).reshape(len(seen), N, SIDE)
        pooled[part] = np.matmul(into.T, wide)
        flat = seen.reshape(len(seen), -1)
        top = flat.max(axis=1)
        largest[part] = top
        n_top[part] = np.count_nonzero(flat == top[:, None], axis=1)
        n_lit[part] = np.count_nonzero(flat, axis=1)
    total[:] = pooled.sum(axis=(1, 2), dtype=np.float64)
    if not np.isfinite(total).all():
        raise DataError(
            f"diff3d holds NaN or infinite values in {int((~np.isfinite(total)).sum())} frames: mark the"
            " pixels in bad_pixels (ptycho validate --write_mask)"
        )
    return FrameStatistics(pooled, total, largest, n_top, n_lit, _repeats(patterns, pooled, total), N)


def pooling(N: int) -> Array:
    """The matrix (N, 32) that adds up blocks of ceil(N / 32) pixels; the N pixels lie in the middle.

    >>> pooling(64).sum(axis=0).tolist() == [2.0] * 32
    True
    """
    block = math.ceil(N / SIDE)
    start = (SIDE * block - N) // 2
    made = np.zeros((N, SIDE), np.float32)
    made[np.arange(N), (np.arange(N) + start) // block] = 1.0
    return made


def _repeats(patterns: Patterns, pooled: Array, total: Floats) -> NDArray[np.int64]:
    """The first frame that each frame repeats exactly, -1 where none.

    Frames with equal blocks are compared pixel by pixel; masked pixels are compared too, because a frame that
    was read twice repeats them as well.
    """
    found = np.full(len(total), -1, np.int64)
    first: dict[bytes, int] = {}
    for number in np.flatnonzero(total > FEWEST_REPEATED):
        key = pooled[number].tobytes()
        source = first.setdefault(key, int(number))
        if source != number and np.array_equal(patterns[int(number)], patterns[source]):
            found[number] = source
    return found


class FrameInputs(NamedTuple):
    """The inputs of the network.

    frames and around (M,32,32) float32 counts, usual (1,32,32) the scan's; numbers (M, len(NUMBERS)) float32;
    noise: the spread of frames about their neighbours, in units of photon noise.
    """

    frames: Array
    around: Array
    usual: Array
    numbers: Array
    noise: float


def look(
    measured: FrameStatistics,
    positions_px: Floats,
    scale: float | None = 1.0,
    trusted: NDArray[np.bool_] | None = None,
) -> FrameInputs:
    """Compare each frame with its neighbours on the object and with the scan.

    positions_px (M,2). trusted (M,) bool: frames that may be used as neighbours and for the scan, None: all;
    if fewer than five of the twenty nearest are trusted, others are used. scale: factor from the file's
    numbers to counts; None: the median frame gets 1e5 counts if the numbers are not whole. Time O(M log M);
    memory 8 kB a frame. Raises DataError for fewer than 6 frames.
    """
    M = len(measured.total)
    if M <= NEAR:
        raise DataError(
            f"triage needs at least {NEAR + 1} frames, this scan has {M}: a frame is judged by others"
        )
    total, largest = measured.total, measured.largest
    if scale is None:
        scale = _ASSUMED_COUNTS / max(
            float(np.median(total[total > 0])) if (total > 0).any() else 1.0, 1e-300
        )
    frames = measured.pooled if scale == 1.0 else measured.pooled * np.float32(scale)
    total, largest = total * scale, largest * scale
    near = _neighbours(positions_px, trusted)
    around = np.empty_like(frames)
    for begin in range(0, M, _CHUNK_FRAMES):
        part = slice(begin, begin + _CHUNK_FRAMES)
        around[part] = _middle([frames[near[part, k]] for k in range(NEAR)])
    usual = _usual(frames if trusted is None or trusted.sum() <= NEAR else frames[trusted])
    numbers, noise = _numbers(measured, frames, around, usual, total, largest, near)
    return FrameInputs(frames, around, usual[None], numbers, noise)


def _neighbours(positions_px: Floats, trusted: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """The five nearest positions of each, trusted ones first, (M, 5)."""
    if trusted is None or trusted.all():
        return nearest_neighbors(positions_px, NEAR)
    near = nearest_neighbors(positions_px, min(4 * NEAR, len(positions_px) - 1))
    order = np.argsort(~trusted[near], axis=1, kind="stable")[:, :NEAR]
    return np.take_along_axis(near, order, axis=1)


def _middle(arrays: list[Array]) -> Array:
    """The mean of the middle three of five arrays, number by number."""
    total = arrays[0] + arrays[1]
    low, high = np.minimum(arrays[0], arrays[1]), np.maximum(arrays[0], arrays[1])
    for other in arrays[2:]:
        total += other
        np.minimum(low, other, out=low)
        np.maximum(high, other, out=high)
    total -= low
    total -= high
    total *= np.float32(1 / 3)
    np.maximum(total, 0.0, out=total)
    return total


def _usual(frames: Array) -> Array:
    """The mean frame (32,32), after clipping outliers."""
    mean = frames.mean(axis=0, dtype=np.float64)
    limit = (3 * mean + 4).astype(np.float32)
    total = np.zeros(mean.shape)
    for begin in range(0, len(frames), _CHUNK_FRAMES):
        total += np.minimum(frames[begin : begin + _CHUNK_FRAMES], limit).sum(axis=0, dtype=np.float64)
    return (total / len(frames)).astype(np.float32)


def _numbers(
    measured: FrameStatistics, frames: Array, around: Array, usual: Array, total: Floats, largest: Floats,
    near: NDArray[np.int64],
) -> tuple[Array, float]:  # fmt: skip
    """`NUMBERS` of every frame, and the scan's noise."""
    M = len(total)
    middle = np.arange(SIDE, dtype=np.float32) - SIDE / 2
    sums = around.sum(axis=(1, 2), dtype=np.float64)
    misfit, strange, like, centre = np.empty(M), np.empty(M), np.empty(M), np.empty((M, 2))
    dark, bright = np.zeros(M), np.zeros(M)
    usual_root = np.sqrt(usual + np.float32(0.375))
    for begin in range(0, M, _CHUNK_FRAMES):
        part = slice(begin, begin + _CHUNK_FRAMES)
        here, beside = frames[part], around[part]
        ratio = ((total[part] + 1) / (sums[part] + 1)).astype(np.float32)[:, None, None]
        share = ((total[part] + 1) / (usual.sum() + 1)).astype(np.float32)[:, None, None]
        root = np.sqrt(here + np.float32(0.375))
        other = np.sqrt(ratio * beside + np.float32(0.375))
        misfit[part] = _mean_square(root, other)
        strange[part] = _mean_square(root, np.sqrt(share * usual + np.float32(0.375)))
        like[part] = _cosine(root, other, usual_root)
        dark[part] = np.count_nonzero((here == 0) & (beside >= _LIT), axis=(1, 2))
        bright[part] = np.count_nonzero(here > 4 * beside + 2 * _LIT, axis=(1, 2))
        for axis, weights in ((0, here.sum(axis=2)), (1, here.sum(axis=1))):
            centre[part, axis] = (weights @ middle) / np.maximum(total[part], 1e-30)
    usual_misfit, usual_strange = (max(float(np.median(a)), 0.05) for a in (misfit, strange))
    noise = math.sqrt(usual_misfit)
    moved = centre - np.median(centre[near], axis=1)
    roots = 2 * np.sqrt(total + 0.375) - 2 * np.sqrt(np.median(total[near], axis=1) + 0.375)
    top = largest == largest.max(initial=0.0)
    at_top = np.where(top & (largest > 0), measured.n_top, 0.0)

    def log(values: Floats) -> Floats:
        return np.log10(np.maximum(values, 0.0) + 1.0)

    def against(values: Floats) -> Floats:
        return log(values) - np.median(log(values)[near], axis=1)

    columns = [
        against(total), log(total) - np.median(log(total)), _in_spreads(roots, 1.0), log(total),
        against(largest), log(measured.n_top), log(largest),
        _in_spreads(moved[:, 0], 0.05), _in_spreads(moved[:, 1], 0.05), np.hypot(moved[:, 0], moved[:, 1]),
        np.log10((misfit + 1e-3) / usual_misfit), np.log10((strange + 1e-3) / usual_strange),
        like, (measured.repeats >= 0).astype(np.float64), np.full(M, np.median(log(total))),
        np.full(M, math.log10(noise)), against(measured.n_lit), log(at_top),
        np.full(M, math.log10(measured.N)), log(dark), log(bright),
    ]  # fmt: skip
    return np.stack(columns, axis=1).astype(np.float32), noise


def _mean_square(root: Array, other: Array) -> Array:
    """Mean of (2 root - 2 other)^2 over blocks, (m,)."""
    apart = (root - other).reshape(len(root), -1)
    return np.asarray(4 * np.einsum("mk,mk->m", apart, apart) / apart.shape[1])


def _cosine(root: Array, other: Array, mean: Array) -> Array:
    """Cosine of two arrays (m,32,32) after subtracting the scan's mean."""
    a, b = (x.reshape(len(x), -1) - mean.reshape(-1) * (x.mean(axis=(1, 2)) / mean.mean())[:, None]
            for x in (root, other))  # fmt: skip
    both = np.sqrt(np.einsum("mk,mk->m", a, a) * np.einsum("mk,mk->m", b, b))
    return np.asarray(np.einsum("mk,mk->m", a, b) / np.maximum(both, 1e-6))


def _in_spreads(values: Floats, least: float) -> Floats:
    """How far each value lies from the median, in spreads of the middle half; sign(x) log(1 + |x|) of it."""
    middle = values - np.median(values)
    spread = max(1.4826 * float(np.median(np.abs(middle))), least)
    return np.sign(middle) * np.log1p(np.abs(middle) / spread)


def images(frames: Array, around: Array, usual: Array, noise: float) -> Array:
    """The six input pictures (m,6,32,32) of the network's first layer: the reference for torch and ONNX.

    The frame, its neighbours and the scan as amplitudes of equal power; then three differences z of the
    frame, as sign(z) log(1 + |z|), in standard deviations of photons times the scan's `noise`: from the
    neighbours as they are, and from the neighbours and the scan scaled to the frame's total. Stabilised by 2
    sqrt(n + 3/8):
    F. J. Anscombe, Biometrika 35, 246 (1948).
    """
    totals = [x.sum(axis=(1, 2), keepdims=True) + np.float32(1.0) for x in (frames, around, usual)]
    shapes = [np.sqrt(x / t) * SIDE for x, t in zip((frames, around, usual), totals, strict=True)]
    root = 2 * np.sqrt(frames + np.float32(0.375))

    def apart(model: Array) -> Array:
        z = (root - 2 * np.sqrt(model + np.float32(0.375))) / np.float32(noise)
        return np.asarray(np.sign(z) * np.log1p(np.abs(z)))

    own = totals[0]
    unlike = [apart(around), apart(around * (own / totals[1])), apart(usual * (own / totals[2]))]
    whole = [np.broadcast_to(x, frames.shape) for x in (*shapes, *unlike)]
    return np.stack(whole, axis=1).astype(np.float32)
