"""From what a file holds to a scan: frames paired with positions and cropped; metres become pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.formats.found import Found
from ptycho.io.frame_preparation import FramePreparation, beam_centre_px, resampled_probe
from ptycho.io.geometry import Geometry
from ptycho.io.inputs import short
from ptycho.io.lazy import LazyPatterns, as_lazy

_NEARLY_PX = 1e-5
#: no detector has more pixels along a side
_LARGEST_N = 65536


@dataclass(frozen=True)
class ImportOptions:
    """What a user adds to what the file says.

    Attributes:
        geometry: numbers that win over the file's.
        N: side of a pattern after cropping or padding, px, even; None: the shorter side of the detector.
        bin: detector pixels added up along each axis.
        centre_row_px, centre_column_px: place of the beam on the detector; None: the file's, or the middle
            of the mean pattern's light.
        scan_step_m: step of a grid scan whose file gives no positions.
        swap_xy, flip_x, flip_y: changes of the scan axes, in this order.
        unit: 'counts' or 'amplitude', where the file does not say.
        max_time_gap_s: a frame farther from the next position than this is left out; None: two median steps.
    """

    geometry: Geometry = field(default_factory=Geometry)
    N: int | None = None
    bin: int = 1
    centre_row_px: float | None = None
    centre_column_px: float | None = None
    scan_step_m: float | None = None
    swap_xy: bool = False
    flip_x: bool = False
    flip_y: bool = False
    unit: str | None = None
    max_time_gap_s: float | None = None

    def __post_init__(self) -> None:
        """DataError names the first number that cannot be used."""
        if self.N is not None and not (2 <= self.N <= _LARGEST_N and self.N % 2 == 0):
            raise DataError(f"N is {short(str(self.N))}; it must be an even number from 2 to {_LARGEST_N}")
        if not 1 <= self.bin <= _LARGEST_N:
            raise DataError(f"bin is {short(str(self.bin))}; it must be a whole number from 1 on")
        for name in ("centre_row_px", "centre_column_px", "scan_step_m", "max_time_gap_s"):
            value = getattr(self, name)
            least = 0.0 if name in ("scan_step_m", "max_time_gap_s") else -_LARGEST_N
            if value is not None and not (math.isfinite(value) and least <= value <= _LARGEST_N):
                raise DataError(f"{name} is {value}; it must be a number from {least:g} to {_LARGEST_N}")


@dataclass(frozen=True)
class Imported:
    """A scan that is ready to be written or used.

    frames (M, N, N) read by rows, corrected and cropped; positions_px (M, 2) float64 [x, y], the object pixel
    under pattern pixel (N//2, N//2); positions_m the same in metres, or None; notes: one sentence each.
    bad_frames (M,) bool: those that triage called bad, here or in the source, None where nobody asked it.
    """

    frames: LazyPatterns
    positions_px: NDArray[np.float64]
    positions_m: NDArray[np.float64] | None
    geometry: Geometry
    unit: str | None
    bad_pixels: NDArray[np.bool_] | None
    probe: NDArray[Any] | None
    object: NDArray[Any] | None
    centre_px: tuple[float, float]
    rows: NDArray[np.int64]
    notes: tuple[str, ...]
    bad_frames: NDArray[np.bool_] | None = None

    def as_arrays(self) -> dict[str, Any]:
        """The keyword arguments of `ptycho.scan.raw_data.RawData`."""
        return {
            "xcoords": self.positions_px[:, 0],
            "ycoords": self.positions_px[:, 1],
            "diff3d": self.frames,
            "probeGuess": self.probe,
            "objectGuess": self.object,
            "scan_index": np.zeros(len(self.positions_px), np.int64),
            "bad_pixels": self.bad_pixels,
            "bad_frames": self.bad_frames,
            "diffraction_unit": self.unit,
            "pattern_order": "MNN",
            "geometry": self.geometry,
        }


def prepare(found: Found, options: ImportOptions) -> Imported:
    """A scan out of what was found.

    Raises DataError where frames or positions are missing, do not pair, or have no unit that makes them
    pixels. Time: one pass over some 200 frames for the beam centre, where nobody gives it; memory: one frame
    and the positions. The frames themselves are corrected when they are read.
    """
    if found.frames is None:
        raise DataError(f"{found.format}: no frames were found; give the file that holds them")
    frames = as_lazy(found.frames)
    if not frames.dtype.isnative:
        native = frames.dtype.newbyteorder("=")
        frames = frames.map(lambda part: part.astype(native), native)
    _check_shapes(found, frames)
    notes = list(found.notes)
    positions, in_pixels = _positions(found, options, len(frames))
    rows, places, said = pair(found, len(frames), positions, options.max_time_gap_s)
    notes += said
    centre, how = _centre(found, options, frames)
    notes += how
    shape = (int(frames.shape[1]), int(frames.shape[2]))
    N = options.N or 2 * (min(shape) // options.bin // 2)
    said_of_file = found.geometry.cut(min(shape), N * options.bin)
    geometry = said_of_file.overruled_by(options.geometry).binned(options.bin)
    recipe = FramePreparation(
        shape=shape, N=N, bin=options.bin, centre_px=centre, dark=found.dark, flat=found.flat,
        bad_pixels=found.bad_pixels,
    )  # fmt: skip
    notes += recipe.notes()
    if found.bad_frames is not None:
        notes.append(
            f"{int(found.bad_frames[rows].sum())} of {len(rows)} frames are marked as bad in the source"
        )
    chosen = frames if np.array_equal(rows, np.arange(len(frames))) else frames.select(rows)
    positions_m: NDArray[np.float64] | None = None
    obj = None
    if in_pixels:
        scale = _pixel_change(found, options, N, shape)
        turned = options.swap_xy or options.flip_x or options.flip_y or bool(geometry.rotation_rad)
        obj = found.object if scale == 1 and not turned else None
        positions_px = _turned(places, options, geometry.rotation_rad) * scale
        size = geometry.object_pixel_size_m(N)
        positions_m = positions_px * size if size else None
    else:
        size = geometry.require_object_pixel_size_m(N)
        positions_m = _turned(places, options, geometry.rotation_rad)
        positions_px = _whole_where_nearly(positions_m / size)
    if geometry.rotation_rad:  # the positions lie along the detector's axes now
        notes.append(f"positions turned by {math.degrees(geometry.rotation_rad):g} degrees")
        geometry = replace(geometry, rotation_rad=0.0)
    if found.object is not None and obj is None:
        notes.append("the file's object is left out: its pixels are not those of the positions")
    if obj is None:  # a shift by whole pixels, so that the object begins near (0, 0)
        positions_px = positions_px - np.floor(positions_px.min(axis=0) - (N // 2 + 1))
    probe = found.probe
    if probe is not None:
        probe = resampled_probe(np.asarray(probe), shape, N, options.bin)
    return Imported(
        frames=recipe.apply(chosen),
        positions_px=positions_px,
        positions_m=positions_m,
        geometry=geometry,
        unit=options.unit or found.unit,
        bad_pixels=recipe.mask(),
        probe=probe,
        object=obj,
        centre_px=centre,
        rows=rows,
        notes=tuple(notes),
        bad_frames=None if found.bad_frames is None else found.bad_frames[rows],
    )


def prepare_from(source: Path, found: Found, options: ImportOptions) -> Imported:
    """`prepare`, whose errors name the source."""
    try:
        return prepare(found, options)
    except DataError as error:
        where = "" if str(source) in str(error) else f"{source}: "
        raise type(error)(f"{where}{error}") from error


def _check_shapes(found: Found, frames: LazyPatterns) -> None:
    """DataError for frames without rows or columns, and for what does not have their size."""
    if frames.ndim != 3 or not all(frames.shape):
        raise DataError(
            f"the frames have shape {frames.shape}; expected (frames, rows, columns), none of them 0"
        )
    if frames.dtype.kind not in "uif":
        raise DataError(f"the frames are {frames.dtype}; they must be real numbers")
    for name, value in (("mask", found.bad_pixels), ("dark", found.dark), ("flat", found.flat)):
        if value is not None and np.shape(value) != tuple(frames.shape[1:]):
            raise DataError(f"{name} has shape {np.shape(value)}; the frames have {tuple(frames.shape[1:])}")
    if found.bad_frames is not None and np.shape(found.bad_frames) != (len(frames),):
        raise DataError(f"bad_frames has shape {np.shape(found.bad_frames)}; there are {len(frames)} frames")


def pair(
    found: Found, n_frames: int, places: NDArray[np.float64], max_gap_s: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[str]]:
    """Frames that have a position (K,), the positions [x, y] of each (K, 2), and what was left out.

    By number where both sides have numbers: positions of one number are averaged. By time where both have
    times: interpolated between the two nearest positions. Else by order, and the counts must agree.
    """
    notes: list[str] = []
    if found.frame_index is not None or found.position_index is not None:
        frame_of = np.asarray(
            found.frame_index if found.frame_index is not None else np.arange(n_frames)
        ).ravel()
        index = found.position_index if found.position_index is not None else np.arange(len(places))
        known, group, share = np.unique(np.asarray(index).ravel(), return_inverse=True, return_counts=True)
        if int(share.max()) > 1:
            notes.append(f"{int((share > 1).sum())} positions were recorded several times: averaged")
        mean = np.stack([np.bincount(group, weights=column) / share for column in places.T], axis=1)
        at = np.searchsorted(known, frame_of)
        has = (at < len(known)) & (known[np.minimum(at, len(known) - 1)] == frame_of)
        rows = np.flatnonzero(has).astype(np.int64)
        if len(rows) < n_frames:
            notes.append(f"{n_frames - len(rows)} of {n_frames} frames have no position: left out")
        if len(rows) == 0:
            raise DataError("no frame has the number of a position; check frame_index and position_index")
        return rows, mean[at[rows]], notes
    if found.frame_time_s is not None and found.position_time_s is not None:
        return _by_time(found.frame_time_s, found.position_time_s, places, max_gap_s)
    if len(places) != n_frames:
        raise DataError(
            f"{n_frames} frames but {len(places)} positions; pair them by number or time (--set "
            "path.frame_index=... path.position_index=...), or give the positions of these frames"
        )
    return np.arange(n_frames, dtype=np.int64), places, notes


def _by_time(
    frame_s: NDArray[Any], place_s: NDArray[Any], places: NDArray[np.float64], max_gap_s: float | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[str]]:
    order = np.argsort(place_s, kind="stable")
    times, sorted_places = np.asarray(place_s, float)[order], places[order]
    wanted = np.asarray(frame_s, float).ravel()
    steps = np.diff(times)
    limit = max_gap_s if max_gap_s is not None else 2 * float(np.median(steps)) if len(steps) else math.inf
    right = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1) if len(times) > 1 else np.zeros(1, int)
    near = np.minimum(np.abs(wanted - times[right - 1]), np.abs(times[right] - wanted))
    rows = np.flatnonzero((near <= limit) & (wanted >= times[0] - limit) & (wanted <= times[-1] + limit))
    if len(rows) == 0:
        raise DataError("no frame was taken while positions were recorded; check the two clocks")
    notes = []
    if len(rows) < len(wanted):
        notes.append(
            f"{len(wanted) - len(rows)} of {len(wanted)} frames lie in gaps of the positions: left out"
        )
    found = np.stack([np.interp(wanted[rows], times, column) for column in sorted_places.T], axis=1)
    return rows.astype(np.int64), found, notes


def _positions(found: Found, options: ImportOptions, n_frames: int) -> tuple[NDArray[np.float64], bool]:
    """(positions (K, 2) [x, y], whether they are in pixels)."""
    if found.positions_px is not None:
        return _checked(found.positions_px), True
    if found.positions_m is not None:
        return _checked(found.positions_m), False
    if found.grid is not None and options.scan_step_m:
        rows, columns = np.meshgrid(*(np.arange(n) for n in found.grid), indexing="ij")
        places = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64)
        return places * options.scan_step_m, False
    hint = "--set scan_step_m=... (the frames lie on a grid), or " if found.grid is not None else ""
    raise DataError(
        f"{found.format}: {n_frames} frames and no positions; give {hint}--positions FILE, or --set "
        "path.positions_x=... path.positions_y=..."
    )


def _checked(places: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(places, np.float64)
    if values.ndim != 2 or values.shape[1] != 2 or not len(values):
        raise DataError(f"positions have shape {values.shape}; expected (M, 2) [x, y]")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values).all(axis=1)).sum())
        raise DataError(f"{bad} of {len(values)} positions are not finite; mend or remove them")
    return values


def _turned(places: NDArray[np.float64], options: ImportOptions, rotation_rad: float) -> NDArray[np.float64]:
    """Positions with the scan's axes laid along the detector's."""
    x, y = (places[:, 1], places[:, 0]) if options.swap_xy else (places[:, 0], places[:, 1])
    x, y = (-x if options.flip_x else x), (-y if options.flip_y else y)
    c, s = math.cos(rotation_rad), math.sin(rotation_rad)
    return np.stack([c * x - s * y, s * x + c * y], axis=1)


def _whole_where_nearly(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions within 1e-5 px of a whole pixel as whole ones.

    Rounding in a file's wavelength or distance moves a scan of whole pixels by some 1e-7 px: its canvas would
    then be a pixel larger than that of the same scan in pixels, and the two images would differ.
    """
    whole = np.round(places)
    return np.where(np.abs(places - whole) < _NEARLY_PX, whole, places)


def _pixel_change(found: Found, options: ImportOptions, N: int, shape: tuple[int, int]) -> float:
    """New object pixels in one old one: cropping keeps the field of view, binning makes it smaller."""
    return N * options.bin / min(shape) if found.probe is None else N * options.bin / found.probe.shape[-1]


def _centre(
    found: Found, options: ImportOptions, frames: LazyPatterns
) -> tuple[tuple[float, float], list[str]]:
    H, W = int(frames.shape[1]), int(frames.shape[2])
    row, column = options.centre_row_px, options.centre_column_px
    if row is not None and column is not None:
        return (row, column), []
    if (row is None) != (column is None):
        raise DataError("give both centre_row_px and centre_column_px, or neither")
    if found.centre_px is not None:
        return found.centre_px, []
    if options.N is None and H == W and H % 2 == 0:
        return (float(H // 2), float(W // 2)), []
    centre = beam_centre_px(frames, found.bad_pixels)
    return centre, [f"beam centre found at row {centre[0]:.1f}, column {centre[1]:.1f} of the mean pattern"]
