"""Whether numbers on a detector are counts or amplitudes: decided here and nowhere else.

Clients pass raw counts, usual NPZ files hold amplitudes, and taking one as the other fails without an error
message. Files, arrays and the in-memory loader all use `decide_unit`.
"""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.lazy import Patterns

logger = logging.getLogger(__name__)

Unit = Literal["counts", "amplitude"]
UNITS: tuple[Unit, ...] = ("counts", "amplitude")
_PROBED_PATTERNS = 32


def decide_unit(diff3d: Patterns, declared: str | None = None, has_bad_pixels: bool = False) -> Unit:
    """Unit of diffraction data: 'counts' or 'amplitude' (= sqrt counts).

    Order of evidence: integer dtype means counts (and contradicts a declared 'amplitude'); then the declared
    unit; then a bad-pixel map, which only scans of counts have; a float array without any such information is
    amplitude. The log records this, as a warning if the values look like counts.

    Raises DataError for an unknown unit, a contradiction, or data that are not real numbers.

    >>> decide_unit(np.ones((1, 2, 2), np.uint16)), decide_unit(np.ones((1, 2, 2)), "counts")
    ('counts', 'counts')
    """
    unit, _ = explain_unit(diff3d, declared, has_bad_pixels)
    if declared is None and not has_bad_pixels and diff3d.dtype.kind == "f":
        if looks_like_counts(diff3d):
            logger.warning(
                "diff3d (%s) says nothing about its unit and is read as amplitude, but all its values are "
                "whole "
                "numbers: if these are counts, say diffraction_unit='counts'",
                diff3d.dtype,
            )
        else:
            logger.info(
                "diff3d (%s) says nothing about its unit: read as amplitude (sqrt of counts)", diff3d.dtype
            )
    return unit


def explain_unit(
    diff3d: Patterns, declared: str | None = None, has_bad_pixels: bool = False
) -> tuple[Unit, str]:
    """The decision of `decide_unit` and the reason for it in a few words, without logging."""
    kind = diff3d.dtype.kind
    if declared is not None and declared not in UNITS:
        raise DataError(f"diffraction_unit is {declared!r}; it must be 'counts' or 'amplitude'")
    if kind not in "uif":
        raise DataError(
            f"diff3d has dtype {diff3d.dtype}; it must be integer counts, or float amplitude or counts: "
            "take the modulus of complex fields, convert the rest"
        )
    if kind in "ui":
        if declared == "amplitude":
            raise DataError(
                f"diff3d is {diff3d.dtype} but diffraction_unit says 'amplitude': whole numbers are counts; "
                "drop diffraction_unit, or store amplitude as float32"
            )
        return "counts", f"integer dtype {diff3d.dtype}"
    if declared is not None:
        return declared, "declared by diffraction_unit"
    if has_bad_pixels:
        return "counts", "a bad_pixels map comes with counts"
    return "amplitude", f"{diff3d.dtype} without a declared unit"


def looks_like_counts(diff3d: Patterns) -> bool:
    """True if a sample of the patterns holds only whole numbers, more than 1 among them (amplitudes do
    not).

    >>> looks_like_counts(np.array([[[0.0, 7.0]]])), looks_like_counts(np.array([[[0.5, 7.0]]]))
    (True, False)
    """
    sample = np.asarray(diff3d[:_PROBED_PATTERNS])
    if sample.size == 0 or not np.all(np.isfinite(sample)):
        return False
    return bool(sample.max() > 1) and bool(np.all(sample == np.rint(sample)))


def to_amplitude(
    diff3d: Patterns, unit: Unit, bad_pixels: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Amplitude, float32, same shape: sqrt of counts (taken in float64), amplitude as it is (no copy if
    float32 and nothing is masked); 0 in `bad_pixels` (N,N), whatever stands there.

    Time and memory: one pass, one float32 array of the input's shape; the root is taken pattern by pattern.

    >>> to_amplitude(np.array([[[4, 9]]]), "counts").tolist()
    [[[2.0, 3.0]]]
    """
    masked = bad_pixels is not None and bool(bad_pixels.any())
    if unit == "amplitude":
        amplitude = np.array(diff3d, dtype=np.float32) if masked else np.asarray(diff3d, dtype=np.float32)
    else:
        amplitude = np.empty(diff3d.shape, dtype=np.float32)
        for pattern, out in zip(diff3d, amplitude, strict=True):
            seen = np.where(bad_pixels, 0, pattern) if bad_pixels is not None and masked else pattern
            out[...] = np.sqrt(seen, dtype=np.float64)
    if masked and unit == "amplitude":
        amplitude[..., bad_pixels] = 0
    return amplitude
