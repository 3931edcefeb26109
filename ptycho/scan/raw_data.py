"""One scan as arrays: positions, patterns with their unit, and first guesses of probe and object."""

from __future__ import annotations

import copy
import logging
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import DataError
from ptycho.io.geometry import Geometry
from ptycho.io.lazy import LazyPatterns, NotByRows, as_lazy, rows_of
from ptycho.scan import checks
from ptycho.scan.findings import Finding
from ptycho.scan.positions import measure_path
from ptycho.scan.probe import as_modes
from ptycho.scan.probe_guess import FEWEST_PATTERNS, candidates
from ptycho.scan.units import Unit, decide_unit, explain_unit, to_amplitude

logger = logging.getLogger(__name__)

_SIMULATION_CHUNK = 64
#: probeGuess of a scan that has none: one is made
MAKE_PROBE = "make"


class RawData:
    """One scan, checked once when it is made.

    Attributes (M positions, N side of a pattern, P probe modes):
        xcoords, ycoords: (M,) float64 px, column and row of the object pixel under patch pixel (N//2, N//2).
        xcoords_start, ycoords_start: (M,) float64 px, nominal positions; equal to the above when not given.
        diff3d: (M,N,N) as given, zero frequency at (N//2, N//2), in `diffraction_unit`: an array, or, where
            it stays on disk, a `ptycho.io.lazy.LazyPatterns`, which is read by rows.
        diffraction_unit: 'counts' or 'amplitude', see `ptycho.scan.units.decide_unit`; unit_reason: why.
        probeGuess: (N,N), (N,N,1) or (P,N,N) as given; `probe_modes` has it as (P,N,N). If there is none,
            one is made of the mean pattern (`ptycho.scan.probe_guess`), and probe_made is True.
        objectGuess: (H,W) complex or None.
        Y: (M,N,N) complex labels, one per pattern, or None.
        scan_index: (M,) int64.
        bad_pixels: (N,N) bool, True = ignore in the loss, or None; these pixels may hold anything in diff3d.
        bad_frames: (M,) bool, True = marked as bad in the file, still part of the scan; None: nobody asked.
        source: the file the scan was read from, or None.
        frame_numbers: (M,) int64, numbers of the frames in that file where some are left out, else None.
        geometry: wavelength, distance and pixel sizes; empty where the file says nothing.
        patterns_place, scratch_folder: where a container of this scan stores patterns, see `with_storage`.

    Raises DataError for anything that cannot be used. Time: one pass over diff3d; memory: diff3d is not
    copied unless its axes are reordered (FORMAT-001; `pattern_order` 'MNN' or 'NNM' settles an ambiguous
    shape).

    >>> x = np.arange(4.0) * 8
    >>> raw = RawData.from_coords_without_pc(x, x, np.ones((4, 32, 32), np.uint16), np.ones((32, 32)))
    >>> raw.N, raw.n_positions, raw.diffraction_unit
    (32, 4, 'counts')
    """

    def __init__(
        self,
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        xcoords_start: ArrayLike | None,
        ycoords_start: ArrayLike | None,
        diff3d: ArrayLike | LazyPatterns,
        probeGuess: ArrayLike | None = MAKE_PROBE,
        scan_index: ArrayLike | None = None,
        objectGuess: ArrayLike | None = None,
        Y: ArrayLike | None = None,
        *,
        bad_pixels: ArrayLike | None = None,
        diffraction_unit: str | None = None,
        pattern_order: str | None = None,
        geometry: Geometry | None = None,
        bad_frames: ArrayLike | None = None,
    ) -> None:
        self.xcoords = checks.check_coords(xcoords, "xcoords")
        self.ycoords = checks.check_coords(ycoords, "ycoords")
        n_positions = len(self.xcoords)
        checks.check_lengths(n_positions, ycoords=self.ycoords)
        x_start = xcoords if xcoords_start is None else xcoords_start
        y_start = ycoords if ycoords_start is None else ycoords_start
        self.xcoords_start = checks.check_coords(x_start, "xcoords_start")
        self.ycoords_start = checks.check_coords(y_start, "ycoords_start")
        checks.check_lengths(n_positions, xcoords_start=self.xcoords_start, ycoords_start=self.ycoords_start)

        patterns = diff3d if isinstance(diff3d, LazyPatterns) else np.asarray(diff3d)
        self.patterns_place = "auto"
        self.scratch_folder: Path | None = None
        self.source: Path | None = None
        self.frame_numbers: NDArray[np.int64] | None = None
        self.diffraction_unit: Unit = decide_unit(patterns, diffraction_unit, bad_pixels is not None)
        _, self.unit_reason = explain_unit(patterns, diffraction_unit, bad_pixels is not None)
        self.diff3d: Any = checks.order_patterns(patterns, n_positions, pattern_order)
        checks.check_side(self.N)
        self.bad_pixels = checks.check_bad_pixels(bad_pixels, self.N)
        checks.check_patterns(self.diff3d, self.diffraction_unit, self.bad_pixels)
        self.probe_made = isinstance(probeGuess, str) and probeGuess == MAKE_PROBE
        if self.probe_made:
            probeGuess = self._made_probe()
        self.geometry = geometry if geometry is not None else Geometry()
        self.probeGuess = checks.check_probe(probeGuess, self.N)
        self.objectGuess = checks.check_object(objectGuess)
        self.scan_index = checks.check_scan_index(scan_index, n_positions)
        self.bad_frames = checks.check_bad_frames(bad_frames, n_positions)
        self.Y = checks.without_last_axis(Y)
        if self.Y is not None and self.Y.shape != self.diff3d.shape:
            raise DataError(
                f"Y has shape {self.Y.shape}; expected {self.diff3d.shape}: one label per pattern"
            )

    @classmethod
    def from_coords_without_pc(
        cls,
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        diff3d: ArrayLike,
        probeGuess: ArrayLike,
        scan_index: ArrayLike | None = None,
        objectGuess: ArrayLike | None = None,
        *,
        bad_pixels: ArrayLike | None = None,
        diffraction_unit: str | None = None,
        xcoords_start: ArrayLike | None = None,
        ycoords_start: ArrayLike | None = None,
        pattern_order: str | None = None,
    ) -> Self:
        """A scan from arrays in memory; shapes and units as for the class."""
        return cls(
            xcoords,
            ycoords,
            xcoords_start,
            ycoords_start,
            diff3d,
            probeGuess,
            scan_index,
            objectGuess,
            bad_pixels=bad_pixels,
            diffraction_unit=diffraction_unit,
            pattern_order=pattern_order,
        )

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        patterns: str = "auto",
        scratch_folder: Path | None = None,
        bad_pixels: NDArray[np.bool_] | None = None,
        make_probe: bool = False,
    ) -> Self:
        """A scan from a file of any registered format (`ptycho.io.registry`); errors name the file.

        `patterns`: 'memory', 'disk', where diff3d is read by rows, or 'auto', on disk where it would need
        more than half of the available memory, see `ptycho.io.registry.read_scan`; containers follow.
        `bad_pixels` (N,N) is added to the map in the file; it says nothing about the unit. `make_probe`: an
        NPZ file without a probe gets one, see the class; else it is refused.
        """
        from ptycho.io.registry import read_scan

        arrays: dict[str, Any] | None = None
        try:
            arrays = read_scan(
                path,
                patterns=patterns,
                scratch_folder=scratch_folder,
                probe_required=not make_probe,
            )
            made = cls._with_mask({"xcoords_start": None, "ycoords_start": None, **arrays}, bad_pixels)
            made.source = Path(path)
            return made.with_storage(patterns, scratch_folder)
        except NotByRows as error:
            if patterns != "disk":
                logger.warning("%s: %s: read into memory", path, error.args[0])
                return cls.from_file(path, patterns="memory", bad_pixels=bad_pixels, make_probe=make_probe)
            if arrays is None:
                raise
            raise NotByRows(f"{Path(path)}: {error.args[0]}") from error
        except DataError as error:
            if arrays is None:
                raise
            raise DataError(f"{Path(path)}: {error}") from error

    @classmethod
    def _with_mask(cls, arrays: dict[str, Any], bad_pixels: NDArray[np.bool_] | None) -> Self:
        """The scan of these arrays, some more pixels ignored, in the unit that it has without them."""
        if bad_pixels is None:
            return cls(**arrays)
        known = arrays.get("bad_pixels")
        patterns, declared = arrays["diff3d"], arrays.get("diffraction_unit")
        unit, reason = explain_unit(patterns, declared, known is not None)
        if known is not None and np.shape(known) == bad_pixels.shape:
            bad_pixels = np.asarray(known, np.bool_) | bad_pixels
        made = cls(**{**arrays, "bad_pixels": bad_pixels, "diffraction_unit": unit})
        made.unit_reason = reason
        return made

    @classmethod
    def from_simulation(
        cls,
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        probeGuess: ArrayLike,
        objectGuess: ArrayLike,
        scan_index: ArrayLike | None = None,
    ) -> Self:
        """The noise-free scan that this object and probe give: amplitude (M,N,N) float32 of bilinear patches.

        Object pixels outside `objectGuess` are zero. Time O(M P N^2 log N), memory the result and one chunk.
        """
        from ptycho.physics import diffract, extract

        x, y = checks.check_coords(xcoords, "xcoords"), checks.check_coords(ycoords, "ycoords")
        checks.check_lengths(len(x), ycoords=y)
        obj = checks.check_object(objectGuess)
        if obj is None:
            raise DataError("objectGuess is missing: a simulation needs an object (H,W)")
        probe = as_modes(np.asarray(probeGuess))
        amplitude = np.empty((len(x), *probe.shape[1:]), dtype=np.float32)
        for begin in range(0, len(x), _SIMULATION_CHUNK):
            part = slice(begin, begin + _SIMULATION_CHUNK)
            amplitude[part] = np.sqrt(diffract(extract(obj, x[part], y[part], probe.shape[-1]), probe))
        return cls(
            x,
            y,
            None,
            None,
            amplitude,
            probeGuess,
            scan_index,
            obj,
            diffraction_unit="amplitude",
            pattern_order="MNN",
        )

    def _made_probe(self) -> NDArray[np.complex64]:
        """A first probe from the mean pattern and the step of the scan; DataError for too few patterns."""
        if self.n_positions < FEWEST_PATTERNS:
            raise DataError(
                f"probeGuess is missing, and {self.n_positions} patterns are too few to make one from: pass a"
                " starting probe, (N,N) or modes (P,N,N)"
            )
        total = np.zeros((self.N, self.N))
        for _, chunk in self.amplitude_by_rows().chunks():
            total += np.square(chunk, dtype=np.float64).sum(axis=0)
        way = measure_path(self.positions_px, self.N, 1.0)
        made = candidates(total / self.n_positions, way.area_step_px or 4.0)
        logger.info("the scan has no probeGuess: one is made of the mean pattern")
        return next(iter(made.values()))

    @property
    def N(self) -> int:
        """Side of a pattern, px."""
        return int(self.diff3d.shape[1])

    @property
    def object_pixel_size_m(self) -> float | None:
        """Side of an object pixel, m; None if the scan lacks the data for it."""
        return self.geometry.object_pixel_size_m(self.N)

    @property
    def n_positions(self) -> int:
        """Number of scan positions M."""
        return len(self.xcoords)

    @property
    def positions_px(self) -> NDArray[np.float64]:
        """(M,2) float64 px, [x, y]."""
        return np.stack([self.xcoords, self.ycoords], axis=1)

    @property
    def probe_modes(self) -> NDArray[np.complex64]:
        """The probe guess as incoherent modes, (P,N,N) complex64, in its own gauge."""
        return as_modes(self.probeGuess)

    def amplitude(self) -> NDArray[np.float32]:
        """Amplitude X = sqrt(counts), (M,N,N) float32, 0 in bad pixels; a new array unless diff3d already is
        that."""
        return to_amplitude(self.diff3d, self.diffraction_unit, self.bad_pixels)

    def amplitude_by_rows(self) -> LazyPatterns:
        """The same amplitude, computed only for the rows that are read."""
        unit, mask = self.diffraction_unit, self.bad_pixels
        return as_lazy(self.diff3d).map(lambda part: to_amplitude(part, unit, mask), np.float32)

    def check(self) -> list[Finding]:
        """The findings about the scan, errors first; an empty list for a good scan.

        Each finding says kind, severity ('error', 'problem' or 'note'), where, what, and the remedy. One pass
        over the patterns, see `ptycho.scan.inspection.inspect_scan`.
        """
        from ptycho.scan.inspection import inspect_scan

        return inspect_scan(self).findings

    def with_storage(self, patterns: str, scratch_folder: Path | None = None) -> Self:
        """The same scan with another place for the patterns of its containers.

        `patterns`: 'memory', 'disk', or 'auto', on disk where they are large. `scratch_folder`: for patterns
        on disk; None: the folder given before, or the system's.
        """
        made = copy.copy(self)
        made.patterns_place = patterns
        made.scratch_folder = scratch_folder or self.scratch_folder
        return made

    def moved_to(self, positions_px: NDArray[np.float64]) -> Self:
        """The same patterns at other positions (M,2) [x, y] px, without objectGuess, which belongs to the old
        ones.
        """
        made = copy.copy(self)
        made.xcoords, made.ycoords = positions_px[:, 0].copy(), positions_px[:, 1].copy()
        made.xcoords_start, made.ycoords_start = made.xcoords, made.ycoords
        made.objectGuess = None
        return made

    def with_probe(self, probe: NDArray[Any]) -> Self:
        """The same scan with another probe, (N,N), (N,N,1) or (P,N,N); nothing else is copied."""
        made = copy.copy(self)
        made.probeGuess = checks.check_probe(probe, self.N)
        return made

    def subsample(self, n: int | None, seed: int | None = 0) -> Self:
        """`n` positions drawn without replacement, in scan order; itself when n is None or not below M."""
        if n is None or n >= self.n_positions:
            return self
        if n < 1:
            raise DataError(f"n_subsample is {n}; at least 1 position must be kept")
        rng = np.random.default_rng(0 if seed is None else seed)
        rows = np.sort(rng.choice(self.n_positions, size=n, replace=False))
        arrays = {**self.as_arrays(), **self._rows(rows)}
        made = type(self)(**{**arrays, "pattern_order": "MNN"})
        return made.with_storage(self.patterns_place, self.scratch_folder)

    def without(self, frames: ArrayLike) -> Self:
        """The scan without these frames (K,) int, by number: positions, patterns and labels stay in step.

        A probe that was made of the mean pattern is made anew. `frame_numbers` keeps the numbers that the
        frames left have in the file. Patterns on disk are not read or copied. Raises DataError if no frame
        would be left.
        """
        dropped = np.asarray(frames, np.int64)
        rows = np.setdiff1d(np.arange(self.n_positions), dropped)
        if len(rows) == self.n_positions:
            return self
        if not len(rows):
            raise DataError("no frame would be left of the scan; look at what was dropped")
        made = copy.copy(self)
        for name, values in self._rows(rows).items():
            setattr(made, name, values)
        made.frame_numbers = rows if self.frame_numbers is None else self.frame_numbers[rows]
        if self.probe_made and len(rows) >= FEWEST_PATTERNS:
            made.probeGuess = made._made_probe()
        return made

    def _rows(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """The arrays with one entry per position, for these rows."""
        names = (
            "xcoords", "ycoords", "xcoords_start", "ycoords_start", "diff3d", "scan_index", "Y", "bad_frames",
        )  # fmt: skip
        known = {name: getattr(self, name) for name in names}
        return {name: rows_of(value, rows) for name, value in known.items() if value is not None}

    def as_arrays(self) -> dict[str, Any]:
        """The keyword arguments that reproduce this scan; pattern_order is set only for ambiguous shapes."""
        return {
            "xcoords": self.xcoords,
            "ycoords": self.ycoords,
            "xcoords_start": self.xcoords_start,
            "ycoords_start": self.ycoords_start,
            "diff3d": self.diff3d,
            "probeGuess": self.probeGuess,
            "objectGuess": self.objectGuess,
            "scan_index": self.scan_index,
            "Y": self.Y,
            "bad_pixels": self.bad_pixels,
            "bad_frames": self.bad_frames,
            "diffraction_unit": self.diffraction_unit,
            "pattern_order": "MNN" if self.n_positions == self.N else None,
            "geometry": None if self.geometry == Geometry() else self.geometry,
        }

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the scan in the format of the suffix, whole or not at all; `from_file` gives it back
        exactly."""
        from ptycho.io.registry import write_scan

        write_scan(path, self.as_arrays())
