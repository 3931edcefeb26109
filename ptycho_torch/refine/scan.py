"""One scan in the layout of the solvers: counts with zero frequency first, mask, positions, first probe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptycho.errors import ConfigError, DataError
from ptycho.io.geometry import Geometry
from ptycho.io.lazy import LazyPatterns, Patterns
from ptycho.io.scratch import ScratchArray
from ptycho.scan.units import decide_unit
from ptycho_torch.processes import Processes

_CHUNK = 256
_PIXELS = 2**20  # of the patterns that are copied at a time


@dataclass(frozen=True)
class RefineScan:
    """Measured data on a device.

    counts (M, N, N) real, zero frequency at [0, 0]; good (N, N) of the same dtype, 0 where a pixel is
    ignored; positions_xy (M, 2) float64 [x, y], object pixels; probe (P, N, N) complex; mean_counts per
    pattern; geometry: wavelength, distance and pixel sizes of the scan, as far as known. team: the processes
    that share the work, None for one alone.
    """

    counts: Tensor
    good: Tensor | None
    positions_xy: Tensor
    probe: Tensor
    mean_counts: float
    geometry: Geometry = Geometry()
    team: Processes | None = None

    @property
    def n(self) -> int:
        """Side of a pattern, px."""
        return int(self.counts.shape[-1])

    @property
    def size(self) -> int:
        """Number of positions."""
        return int(self.counts.shape[0])

    def of(self, index: Tensor) -> Tensor:
        """Counts (B, N, N) of the patterns `index` (B,)."""
        return self.counts.index_select(0, index)

    @property
    def floor(self) -> float:
        """Counts below which a pixel is taken as dark: relative to the mean of the scan."""
        return 1e-5 * self.mean_counts / self.n**2


def make_scan(
    patterns: Patterns,
    positions_xy: np.ndarray,
    probe: np.ndarray,
    *,
    unit: str = "auto",
    bad_pixels: np.ndarray | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.complex64,
    scratch_folder: Path | None = None,
) -> RefineScan:
    """Check arrays and lay them out for the solvers.

    patterns (M, N, N), zero frequency at [N//2, N//2], amplitude = sqrt(counts) or counts: `unit` is
    "counts", "amplitude" or "auto" (as `ptycho.scan.units.decide_unit` decides).
    positions_xy (M, 2) centres [x, y] px. probe (N, N) or (P, N, N). bad_pixels (N, N) bool, True = ignore.
    Raises DataError on shapes, values or units that cannot be used. Memory: one float32 copy of the patterns;
    for patterns read by rows, it is in a scratch file in `scratch_folder` (None: the system's).
    """
    if (
        patterns.ndim != 3
        or patterns.shape[1] != patterns.shape[2]
        or patterns.shape[1] % 2
        or not len(patterns)
    ):
        raise DataError(f"patterns have shape {patterns.shape}; refinement needs (M, N, N) with an even N")
    m, n, _ = patterns.shape
    positions_xy = np.asarray(positions_xy, np.float64)
    if positions_xy.shape != (m, 2) or not np.isfinite(positions_xy).all():
        raise DataError(
            f"positions have shape {positions_xy.shape}; {m} patterns need finite ({m}, 2) centres [x, y]"
        )
    probe = check_probe(probe, n)
    if unit not in ("auto", "counts", "amplitude"):
        raise DataError(f"diffraction unit '{unit}' is unknown; use 'counts', 'amplitude' or 'auto'")
    if bad_pixels is not None and np.shape(bad_pixels) != (n, n):
        raise DataError(f"bad_pixels has shape {np.shape(bad_pixels)}; it must be ({n}, {n})")
    decided = decide_unit(patterns, None if unit == "auto" else unit, bad_pixels is not None)
    is_counts = decided == "counts"
    real = torch.float32 if dtype == torch.complex64 else torch.float64
    good = None if bad_pixels is None or not np.any(bad_pixels) else ~np.asarray(bad_pixels, bool)
    scratch = None
    if isinstance(patterns, LazyPatterns):
        scratch = ScratchArray((m, n, n), str(real).removeprefix("torch."), scratch_folder)
    counts = torch.empty((0 if scratch else m, n, n), dtype=real)
    rows = _rows_at_once(n)
    for start in range(0, m, rows):
        part = torch.from_numpy(np.ascontiguousarray(patterns[start : start + rows])).to(real)
        part = part if is_counts else part * part
        if good is not None:
            part = torch.where(torch.from_numpy(good), part, torch.zeros((), dtype=real))
        centred = torch.fft.ifftshift(part, dim=(-2, -1))
        if scratch is None:
            counts[start : start + rows] = centred
        else:
            scratch.write(start, centred.numpy())
        if not torch.isfinite(part).all() or part.min() < 0:
            raise DataError("patterns hold NaN, infinite or negative values; mark those pixels in bad_pixels")
    check_device(device)
    if scratch is not None:
        counts = torch.from_numpy(scratch.map(writable=True))
    mean_counts = total_counts(counts) / m
    if mean_counts <= 0:
        raise DataError("every pattern is empty; check the diffraction array and its unit")
    mask = None if good is None else torch.fft.ifftshift(torch.from_numpy(good).to(real)).to(device)
    start_probe = torch.from_numpy(np.ascontiguousarray(probe)).to(dtype)
    return RefineScan(
        counts.to(device),
        mask,
        torch.from_numpy(positions_xy.copy()).to(device),
        start_probe.to(device),
        mean_counts,
    )


def total_counts(counts: Tensor) -> float:
    """Sum of all counts in float64, without a float64 copy of all of them."""
    return sum(float(part.sum(dtype=torch.float64)) for part in counts.split(_CHUNK))


def counts_of(scan: RefineScan, index: Tensor) -> float:
    """Sum of all counts of the patterns `index` (B,), read in parts."""
    parts = index.split(_rows_at_once(scan.n))
    return sum(float(scan.counts[part].sum(dtype=torch.float64)) for part in parts)


def _rows_at_once(n: int) -> int:
    """Patterns of side `n` that are copied at a time."""
    return max(1, min(_CHUNK, _PIXELS // n**2))


def check_device(device: str | torch.device) -> None:
    """ConfigError where torch cannot put a tensor on `device`."""
    try:
        torch.ones(1, device=device).item()  # a device without values, such as "meta", cannot compute
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device '{device}' cannot be used here; use 'cpu'") from error


def check_probe(probe: np.ndarray, n: int) -> np.ndarray:
    """A probe as (P, N, N) modes; DataError if it is not a probe."""
    probe = np.asarray(probe)
    if probe.ndim == 3 and probe.shape == (n, n, 1):
        probe = probe[..., 0]
    probe = probe[None] if probe.ndim == 2 else probe
    if probe.shape[1:] != (n, n) or not np.isfinite(probe).all() or not np.any(probe):
        raise DataError(
            f"probe has shape {probe.shape}; give a finite non-zero (N, N) or (P, N, N) with N = {n}"
        )
    return probe


def with_probe(scan: RefineScan, probe: np.ndarray) -> RefineScan:
    """The same data with another starting probe (N, N) or (P, N, N)."""
    made = torch.from_numpy(np.ascontiguousarray(check_probe(probe, scan.n)))
    return replace(scan, probe=made.to(scan.probe))


def scan_from_raw(raw: Any, **options: Any) -> RefineScan:
    """`make_scan` for a RawData-like object (diff3d, xcoords, ycoords, probeGuess, ...)."""
    if getattr(raw, "probeGuess", None) is None and "probe" not in options:
        raise DataError("the scan has no probeGuess; give probe= a starting probe (N, N)")
    probe = options.pop("probe", None)
    options.setdefault("bad_pixels", getattr(raw, "bad_pixels", None))
    unit = getattr(raw, "diffraction_unit", None) or getattr(raw, "unit", None) or "auto"
    options.setdefault("unit", getattr(unit, "value", unit))
    positions = np.stack([np.asarray(raw.xcoords, float), np.asarray(raw.ycoords, float)], -1)
    patterns = raw.diff3d if isinstance(raw.diff3d, LazyPatterns) else np.asarray(raw.diff3d)
    options.setdefault("scratch_folder", getattr(raw, "scratch_folder", None))
    made = make_scan(patterns, positions, raw.probeGuess if probe is None else probe, **options)
    return replace(made, geometry=getattr(raw, "geometry", Geometry()))
