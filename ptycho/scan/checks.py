"""Requirements on the arrays of a scan, checked before long work; each error is one line with its remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import DataError
from ptycho.io.lazy import LazyPatterns, NotByRows, Patterns, as_lazy
from ptycho.scan.detector import measure_detector
from ptycho.scan.pixels import value_findings
from ptycho.scan.probe import as_modes

MIN_N = 32
#: larger than any scan, px; differences of larger numbers overflow
_FARTHEST_PX = 1e12
PATTERN_ORDERS = ("MNN", "NNM")


def check_coords(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Positions (M,) float64 px, finite."""
    array = np.asarray(values)
    if array.dtype.kind not in "uif":
        raise DataError(f"{name} has dtype {array.dtype}; it must be real numbers in object pixels")
    if array.ndim != 1:
        raise DataError(
            f"{name} must be one-dimensional, found shape {array.shape}: pass one number per position"
        )
    wrong = np.flatnonzero(~np.isfinite(array))
    if len(wrong):
        raise DataError(
            f"{name} holds {len(wrong)} NaN or infinite values, the first at {wrong[0]}: remove those "
            f"positions "
            "together with their patterns"
        )
    if array.size and not np.abs(array.astype(np.float64)).max() < _FARTHEST_PX:
        raise DataError(f"{name} reaches beyond {_FARTHEST_PX:g}; it must be in object pixels")
    return array.astype(np.float64)


def check_lengths(n_positions: int, **others: NDArray[Any]) -> None:
    """Every array has one entry per position."""
    if n_positions == 0:
        raise DataError("the scan has no positions: xcoords is empty; check what was selected or cropped")
    for name, array in others.items():
        if array.ndim < 1 or len(array) != n_positions:
            found = len(array) if array.ndim else "no entries"
            raise DataError(
                f"xcoords has {n_positions} entries but {name} has {found}: they must match one to one"
            )


def order_patterns(diff3d: Patterns, n_positions: int, order: str | None = None) -> Patterns:
    """FORMAT-001: patterns as (M,N,N), found by matching the number of positions.

    Accepts (M,N,N), legacy (N,N,M), and either with a trailing axis of length one. An array that fits both is
    taken as (M,N,N), the usual order in programs, unless `order` ('MNN' or 'NNM') is given; for files see
    `ptycho.io.pattern_order`. Patterns that are read by rows cannot be reordered:
    NotByRows.
    """
    first = _positions_come_first(diff3d.shape, n_positions, order)
    if isinstance(diff3d, LazyPatterns):
        if not first:
            raise NotByRows(f"diff3d {diff3d.shape} is in the legacy order (N,N,M)")
        return diff3d.without_last_axis() if diff3d.ndim == 4 else diff3d
    array = diff3d[..., 0] if diff3d.ndim == 4 else diff3d
    return array if first else np.ascontiguousarray(np.moveaxis(array, 2, 0))


def _positions_come_first(given: tuple[int, ...], n_positions: int, order: str | None) -> bool:
    """Whether patterns of this shape are (M,N,N), or else (N,N,M); DataError if neither fits."""
    if order is not None and order not in PATTERN_ORDERS:
        raise DataError(f"pattern_order is {order!r}; it must be 'MNN' or 'NNM'")
    shape = given[:3] if len(given) == 4 and given[-1] == 1 else given
    if len(shape) != 3:
        raise DataError(f"diff3d has shape {given}; expected (M,N,N) with M = {n_positions} positions")
    first, last = shape[0] == n_positions, shape[2] == n_positions
    square_first, square_last = shape[1] == shape[2], shape[0] == shape[1]
    if order is not None and not (first if order == "MNN" else last):
        raise DataError(
            f"pattern_order says {order} but diff3d has shape {given} for {n_positions} positions: "
            f"correct one"
        )
    reads_first, reads_last = first and square_first, last and square_last
    if reads_first and order != "NNM":
        return True
    if reads_last:
        return False
    if first or last:
        height, width = shape[1:] if first else shape[:2]
        raise DataError(f"patterns in diff3d are {height} x {width} pixels: crop or pad them to a square")
    raise DataError(
        f"no axis of diff3d {given} that holds patterns matches the {n_positions} positions in "
        f"xcoords: "
        "pass one pattern per position"
    )


def without_last_axis(labels: ArrayLike | None) -> NDArray[Any] | None:
    """Labels (M,N,N) as given, or from (M,N,N,1), as older files hold them; None stays None."""
    if labels is None:
        return None
    array = np.asarray(labels)
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array


def check_side(N: int) -> None:
    """N is even and at least 32."""
    if N % 2:
        raise DataError(f"N is {N}: patterns must have an even side; crop or pad diff3d by one pixel")
    if N < MIN_N:
        raise DataError(
            f"N is {N}: patterns must be at least {MIN_N} pixels wide; use a larger detector crop"
        )


def check_patterns(patterns: Patterns, unit: str, bad_pixels: NDArray[np.bool_] | None = None) -> None:
    """Patterns must be finite, not negative, and not all zero; `bad_pixels` (N,N) may hold any value.

    The error names pixels and patterns. One pass over patterns (M,N,N) in chunks of 32 MiB.
    """
    lit = False
    masked = bad_pixels is not None and bool(bad_pixels.any())
    for _, chunk in as_lazy(patterns).chunks():
        seen = chunk if bad_pixels is None or not masked else np.where(bad_pixels, chunk.dtype.type(0), chunk)
        low, high = seen.min(), seen.max()
        if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
            found = value_findings(measure_detector(patterns, unit, bad_pixels, np.arange(0)), unit)
            raise DataError(str(found[0]))
        lit = lit or bool(high > 0)
    if not lit:
        raise DataError(
            "every diffraction pattern is zero"
            + (" outside bad_pixels (True means ignore; is the map inverted?)" if masked else "")
            + ": check the detector crop and the shutter"
        )


def check_probe(probe: ArrayLike | None, N: int) -> NDArray[Any]:
    """The probe guess as given, after a check of its shape, size and values."""
    if probe is None:
        raise DataError("probeGuess is missing: pass a starting probe, (N,N) or modes (P,N,N)")
    array = np.asarray(probe)
    if array.dtype.kind != "c" and array.ndim == 3 and len(array) == 2 and array.shape[2] != 1:
        raise DataError(
            f"probeGuess is real with shape {array.shape}: amplitude and phase, or real and imaginary"
            f" part, and"
            " not two modes; store amplitude * exp(1j * phase), or real + 1j * imaginary, as complex64"
        )
    modes = as_modes(array)
    if modes.shape[-1] != N:
        raise DataError(
            f"probeGuess has shape {array.shape} but the patterns are {N} x {N}: crop or pad the probe"
        )
    if not np.all(np.isfinite(modes)):
        raise DataError("probeGuess holds NaN or infinite values: replace them by 0")
    if not np.any(modes):
        raise DataError("probeGuess is zero everywhere: pass a starting probe, such as a disk of ones")
    return array


def check_object(obj: ArrayLike | None) -> NDArray[Any] | None:
    """The object guess (H,W) complex, finite, or None."""
    if obj is None:
        return None
    array = np.asarray(obj)
    if array.ndim != 2 or array.size == 0:
        raise DataError(f"objectGuess has shape {array.shape}; expected (H,W): pass one layer")
    if array.dtype.kind != "c":
        raise DataError(
            f"objectGuess has dtype {array.dtype}; it must be complex: amplitude * exp(1j * phase)"
        )
    if not np.all(np.isfinite(array)):
        raise DataError("objectGuess holds NaN or infinite values: replace them by 0")
    return array


def check_bad_pixels(bad_pixels: ArrayLike | None, N: int) -> NDArray[np.bool_] | None:
    """Bad-pixel map (N,N) bool, True = ignore, or None."""
    if bad_pixels is None:
        return None
    array = np.asarray(bad_pixels)
    if array.shape != (N, N):
        raise DataError(f"bad_pixels has shape {array.shape}; expected ({N}, {N}), as the patterns")
    if array.dtype.kind not in "buif" or not np.all((array == 0) | (array == 1)):
        raise DataError("bad_pixels must hold only True or False (1 or 0), True = ignore")
    mask = array.astype(np.bool_)
    if mask.all():
        raise DataError("bad_pixels marks every pixel: True means ignore; invert the map")
    return mask


def check_bad_frames(bad_frames: ArrayLike | None, n_positions: int) -> NDArray[np.bool_] | None:
    """Marks of frames (M,) bool, True = called bad, or None."""
    if bad_frames is None:
        return None
    array = np.asarray(bad_frames)
    if array.shape != (n_positions,):
        raise DataError(f"bad_frames has shape {array.shape}; expected ({n_positions},), one per pattern")
    if array.dtype.kind not in "bui" or not np.all((array == 0) | (array == 1)):
        raise DataError("bad_frames must hold only True or False (1 or 0), True = called bad")
    return array.astype(np.bool_)


def check_scan_index(scan_index: ArrayLike | None, n_positions: int) -> NDArray[np.int64]:
    """Scan number of every position (M,) int64; zeros when there is none."""
    if scan_index is None:
        return np.zeros(n_positions, dtype=np.int64)
    array = np.asarray(scan_index)
    if array.dtype.kind not in "bui" and not (array.dtype.kind == "f" and np.all(array == np.rint(array))):
        raise DataError(f"scan_index has dtype {array.dtype}; it must be whole numbers, one per position")
    check_lengths(n_positions, scan_index=array)
    return array.astype(np.int64)
