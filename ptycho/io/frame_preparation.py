"""Detector frames as a model needs them: corrected, centred, binned, cropped or padded to N x N."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.lazy import LazyPatterns

#: frames that are averaged to find the beam
_SAMPLE = 200


@dataclass(frozen=True)
class FramePreparation:
    """How one raw frame (H, W) becomes a pattern (N, N) with the beam at (N//2, N//2).

    dark is subtracted and flat divided by, both (H, W); then `bin` x `bin` pixels are added up; then the part
    around `centre_px` (row, column of the raw frame) is cut out. Pixels outside the detector are zero and
    count as bad. Values at bad pixels are zero. Counts stay whole numbers where nothing is divided.
    """

    shape: tuple[int, int]
    N: int
    bin: int
    centre_px: tuple[float, float]
    dark: NDArray[Any] | None = None
    flat: NDArray[Any] | None = None
    bad_pixels: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.N < 2 or self.N % 2:
            raise DataError(f"N is {self.N}; it must be an even number of pixels")
        if self.bin < 1:
            raise DataError(f"bin is {self.bin}; it must be 1 or more")
        for name in ("dark", "flat", "bad_pixels"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != self.shape:
                raise DataError(f"{name} has shape {np.shape(value)}; the frames have {self.shape}")
        row, column = self.centre_px
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            raise DataError(f"the beam centre {self.centre_px} lies outside the frame {self.shape}")

    def apply(self, frames: LazyPatterns) -> LazyPatterns:
        """Frames (M, H, W) as patterns (M, N, N); computed when they are read, by rows."""
        if self._nothing_to_do():
            return frames
        made = frames.map(self._prepared, self._dtype(frames.dtype))
        made.shape = (made.shape[0], self.N, self.N)
        return made

    def mask(self) -> NDArray[np.bool_] | None:
        """Bad pixels (N, N) of the patterns; None where every pixel counts."""
        bad = np.zeros(self.shape, bool) if self.bad_pixels is None else np.asarray(self.bad_pixels, bool)
        if self.flat is not None:
            bad = bad | ~(np.isfinite(self.flat) & (np.asarray(self.flat) > 0))
        cut = self._cut(self._binned(bad[None].astype(np.uint16)), outside=1)[0] > 0
        return cut if cut.any() else None

    def notes(self) -> list[str]:
        """What was done, one sentence each."""
        made = []
        if self.dark is not None:
            made.append("dark frame subtracted")
        if self.flat is not None:
            made.append("divided by the flat field: values are no longer whole counts")
        if self.bin > 1:
            made.append(f"{self.bin} x {self.bin} detector pixels added up")
        height, width = (side // self.bin for side in self.shape)
        if (height, width) != (self.N, self.N):
            made.append(f"patterns of {self.N} x {self.N} cut from {height} x {width} px around the beam")
        return made

    def _nothing_to_do(self) -> bool:
        centred = self.centre_px == (self.N // 2, self.N // 2)
        plain = self.dark is None and self.flat is None and self.bin == 1 and self.bad_pixels is None
        return plain and centred and self.shape == (self.N, self.N)

    def _dtype(self, raw: np.dtype[Any]) -> np.dtype[Any]:
        if self.flat is not None or raw.kind == "f":
            return np.dtype(np.float32)
        if self.dark is not None and np.asarray(self.dark).dtype.kind == "f":
            return np.dtype(np.float32)
        if self.bin > 1 or self.dark is not None:
            return np.dtype(np.int64 if raw.itemsize >= 4 else np.int32)
        return raw

    def _prepared(self, part: NDArray[Any]) -> NDArray[Any]:
        dtype = self._dtype(part.dtype)
        values = part.astype(dtype)
        if self.dark is not None:
            values = (values - self.dark).astype(dtype)
        if self.flat is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = values / np.asarray(self.flat, np.float32)
        if self.bad_pixels is not None or self.flat is not None:
            values[:, self._raw_bad()] = 0
        return self._cut(self._binned(values), outside=0).astype(dtype)

    def _raw_bad(self) -> NDArray[np.bool_]:
        bad = np.zeros(self.shape, bool) if self.bad_pixels is None else np.asarray(self.bad_pixels, bool)
        return bad if self.flat is None else bad | ~(np.isfinite(self.flat) & (np.asarray(self.flat) > 0))

    def _binned(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.bin == 1:
            return values
        row, column = self._offset()
        height, width = (
            (side - start) // self.bin for side, start in zip(self.shape, (row, column), strict=True)
        )
        part = values[:, row : row + height * self.bin, column : column + width * self.bin]
        return np.asarray(part.reshape(len(part), height, self.bin, width, self.bin).sum(axis=(2, 4)))

    def _offset(self) -> tuple[int, int]:
        """First raw row and column of the bins, so that the centre pixel begins one."""
        row, column = (round(place) for place in self.centre_px)
        return row % self.bin, column % self.bin

    def _cut(self, values: NDArray[Any], outside: int) -> NDArray[Any]:
        row, column = (
            (round(place) - start) // self.bin
            for place, start in zip(self.centre_px, self._offset() if self.bin > 1 else (0, 0), strict=True)
        )
        made = np.full((len(values), self.N, self.N), outside, values.dtype)
        height, width = values.shape[1:]
        top, left = row - self.N // 2, column - self.N // 2
        r0, c0 = max(top, 0), max(left, 0)
        r1, c1 = min(top + self.N, height), min(left + self.N, width)
        made[:, r0 - top : r1 - top, c0 - left : c1 - left] = values[:, r0:r1, c0:c1]
        return made


def beam_centre_px(frames: LazyPatterns, bad_pixels: NDArray[np.bool_] | None) -> tuple[float, float]:
    """(row, column) of the centre of light of the mean pattern of some 200 frames, whole pixels.

    Bad pixels do not count, nor do values that are negative, not finite, or the largest of their type (what a
    detector writes into its gaps). Time and memory: 200 frames, 32 MiB at a time.
    """
    rows = np.unique(np.linspace(0, len(frames) - 1, min(_SAMPLE, len(frames))).astype(np.int64))
    total = np.zeros(frames.shape[1:], np.float64)
    for one in frames.select(rows):
        values = one.astype(np.float64)
        wrong = ~np.isfinite(values) | (values < 0)
        if one.dtype.kind in "ui":
            wrong |= one == np.iinfo(one.dtype).max
        total += np.where(wrong, 0, values)
    if bad_pixels is not None:
        total[np.asarray(bad_pixels, bool)] = 0
    if not total.any():
        raise DataError("the mean pattern is empty: no beam to centre on; give the frames, or the centre")
    light = np.sqrt(total)
    light = np.where(light > 0.1 * np.quantile(light, 0.999), light, 0)
    row, column = np.indices(light.shape)
    centre = [float((axis * light).sum() / light.sum()) for axis in (row, column)]
    return float(round(centre[0])), float(round(centre[1]))


def resampled_probe(
    probe: NDArray[Any], detector: tuple[int, int], N: int, binning: int
) -> NDArray[np.complex64]:
    """A probe (P, n, n) of the whole detector as one (P, N, N) of the cropped or padded, binned one.

    Cropping the detector keeps the field of view and makes object pixels larger: the probe's spectrum is
    cropped. Binning shrinks the field of view: the probe is cropped. Power per pixel is kept in the
    `fft(norm='ortho')` sense. A probe that has N pixels already and belongs to an uncropped detector is kept.
    """
    modes = np.asarray(probe)
    modes = modes.reshape(-1, *modes.shape[-2:]).astype(np.complex128)
    side = modes.shape[-1]
    if side == N and (min(detector) // binning == N or side != min(detector)):
        return modes.astype(np.complex64)
    if binning > 1 and side == min(detector):
        side //= binning
        modes = _centred(modes, side)
    if side != N:
        wave = np.fft.fftshift(
            np.fft.fft2(np.fft.ifftshift(modes, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)
        )
        wave = _centred(wave, N)
        modes = np.fft.fftshift(
            np.fft.ifft2(np.fft.ifftshift(wave, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)
        )
    return modes.astype(np.complex64)


def _centred(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Crop or zero-pad the last two axes to a side, centre pixel on centre pixel."""
    made = np.zeros((*values.shape[:-2], side, side), values.dtype)
    old = values.shape[-1]
    start, width = old // 2 - side // 2, min(old, side)
    source = slice(max(start, 0), max(start, 0) + width)
    target = slice(max(-start, 0), max(-start, 0) + width)
    made[..., target, target] = values[..., source, source]
    return made
