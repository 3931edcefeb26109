"""Triage of a scan's frames, and the scan without the bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptycho.io.lazy import Patterns, as_lazy
from ptycho.scan.normalization import has_integer_squares
from ptycho.scan.units import Unit, to_amplitude
from ptycho.triage.decision import Triage, decide
from ptycho.triage.features import measure

if TYPE_CHECKING:
    from ptycho.scan.raw_data import RawData


def triage(raw: RawData, model: Path | None = None) -> Triage:
    """Classify each frame of a scan, by the built-in network or that of the file `model`.

    Time: one pass over the patterns and some 0.1 ms a frame; memory: 12 kB a frame and one chunk. Raises
    DataError for a scan of fewer than six frames, BundleError for a model that cannot be used.
    """
    return triage_frames(
        raw.diff3d, raw.diffraction_unit, raw.positions_px, raw.bad_pixels, model, numbers=raw.frame_numbers
    )


def triage_frames(
    frames: Patterns,
    unit: Unit,
    positions_px: NDArray[np.float64],
    bad_pixels: NDArray[np.bool_] | None = None,
    model: Path | None = None,
    *,
    numbers: NDArray[np.int64] | None = None,
) -> Triage:
    """`triage` of frames (M,N,N) in `unit` at positions (M,2) [x, y] px; pixels of bad_pixels (N,N) are left
    out. numbers (M,): those of the frames in their file, None: 0 to M - 1."""
    from ptycho_torch.triage.running import load_triage, two_looks

    network, thresholds, usual = load_triage(model)
    whole = frames.dtype.kind in "ui" or has_integer_squares(
        as_lazy(frames).map(lambda part: to_amplitude(part, unit, bad_pixels), np.float32)
    )
    measured = measure(frames, unit, bad_pixels)
    probability = two_looks(network, measured, positions_px, 1.0 if whole else None)
    return decide(probability, thresholds, measured.repeats, numbers, usual)


def without_bad(raw: RawData, what: str, model: Path | None = None) -> tuple[RawData, Triage]:
    """The scan without its bad frames and their positions, and the result of triage.

    Raises DataError, which begins with `what`, if more than half of the frames are bad, and as `triage`.
    """
    made = triage(raw, model)
    made.check_few(what)
    return raw.without(np.flatnonzero(made.bad)), made
