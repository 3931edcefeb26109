"""What the viewer shows: a scan, its image, or both, opened from a file or the folder of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import InputError, PtychoError
from ptycho.evaluation.rfactor import predicted_amplitudes
from ptycho.io.lazy import LazyPatterns
from ptycho.io.npz import open_npz, read_array
from ptycho.report.fields import colour_limits, lit_field
from ptycho.report.products import PRODUCT, Product, open_product
from ptycho.report.record import skipped_reasons
from ptycho.report.runs import find_runs
from ptycho.scan.raw_data import RawData
from ptycho.scan.report import by_rows
from ptycho.viewer.r_image import r_image

_CHUNK = 64
_MOST_NAMED = 40
_MEAN_VALUES = 2**26


@dataclass(frozen=True)
class Image:
    """A reconstruction as it is drawn.

    field (H, W) complex64: the well lit part less its phase and ramp, NaN elsewhere, `corner_xy` its first
    pixel in object pixels; probe (P, N, N), positions_px (M, 2) [x, y] and r_per_pattern (M,), or None;
    limits of the amplitude's and the phase's colours.
    """

    field: NDArray[np.complex64]
    corner_xy: tuple[float, float]
    product: Product
    probe: NDArray[Any] | None
    positions_px: NDArray[np.float64] | None
    r_per_pattern: NDArray[np.float64] | None
    limits: tuple[tuple[float, float], tuple[float, float]]


@dataclass
class Shown:
    """A scan and an image; at least one of them is there. notes: what is not, and why.

    left_out: row of the scan -> why the run did not use it; the scan itself has every frame.
    """

    name: str
    scan: RawData | None
    image: Image | None
    inputs: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)
    _mean: NDArray[np.float32] | None = None

    @property
    def pixel_size_m(self) -> float | None:
        """Side of an object pixel, m; None where neither image nor scan says it."""
        if self.image is not None and self.image.product.pixel_size_m is not None:
            return self.image.product.pixel_size_m
        return None if self.scan is None else self.scan.object_pixel_size_m

    @property
    def positions_px(self) -> NDArray[np.float64]:
        """Where the patterns lie, (M, 2) [x, y] object px: as solved for, else as the scan says."""
        solved = None if self.image is None else self.image.positions_px
        if self.scan is None:
            return np.zeros((0, 2)) if solved is None else solved
        if solved is None or len(solved) not in (self.scan.n_positions, len(self.used)):
            return self.scan.positions_px
        places = self.scan.positions_px.copy()
        places[self.used if len(solved) == len(self.used) else slice(None)] = solved
        return places

    @property
    def used(self) -> NDArray[np.int64]:
        """Rows of the scan that the run used, in order: all but `left_out`."""
        M = 0 if self.scan is None else self.scan.n_positions
        return np.setdiff1d(np.arange(M), np.array(sorted(self.left_out), np.int64))

    @property
    def marked(self) -> NDArray[np.int64]:
        """Rows that the scan's file marks as bad."""
        marks = None if self.scan is None else self.scan.bad_frames
        return np.zeros(0, np.int64) if marks is None else np.flatnonzero(marks)

    @property
    def r_per_pattern(self) -> NDArray[np.float64] | None:
        """R at every place of `positions_px`, NaN where a frame was left out; None where R is not known."""
        r = None if self.image is None else self.image.r_per_pattern
        if r is None or len(r) == len(self.positions_px):
            return r
        if len(r) != len(self.used):
            return None
        made = np.full(len(self.positions_px), np.nan)
        made[self.used] = r
        return made

    def frame_lines(self) -> list[str]:
        """What is said of frames that are not as the others: those left out, those marked."""
        M, lines = 0 if self.scan is None else self.scan.n_positions, []
        if self.left_out:
            shown = [f"{row} {why}".strip() for row, why in sorted(self.left_out.items())[:_MOST_NAMED]]
            more = f"; {len(self.left_out) - _MOST_NAMED} more" if len(self.left_out) > _MOST_NAMED else ""
            lines.append(
                f"{len(self.left_out)} of {M} frames were left out of the run: {'; '.join(shown)}{more}"
            )
        if len(self.marked):
            lines.append(f"{len(self.marked)} of {M} frames are marked as bad in the file")
        return lines

    def counts(self, row: int) -> NDArray[np.float32]:
        """The measured counts (N, N) of one pattern, NaN in bad pixels."""
        assert self.scan is not None
        return _masked(np.square(self._amplitude()[row : row + 1][0]), self.scan)

    def predicted(self, row: int) -> NDArray[np.float32] | None:
        """The counts (N, N) that image and probe predict there, scaled to the measured ones."""
        made, scan = self.image, self.scan
        if made is None or scan is None or made.probe is None or made.probe.shape[-1] != scan.N:
            return None
        if made.product.origin_xy is None:
            return None
        x, y = self.positions_px[row]
        obj = np.asarray(made.product.object)
        filled = np.where(np.isfinite(obj), obj, 0)
        expected = predicted_amplitudes(filled, made.probe, x[None], y[None], made.product.origin_xy)[0]
        seen = np.asarray(self._amplitude()[row : row + 1][0])
        good = np.ones(seen.shape, bool) if scan.bad_pixels is None else ~scan.bad_pixels
        scale = (expected * seen * good).sum() / max(float((expected**2 * good).sum()), 1e-30)
        return _masked(np.square(expected * scale), scan)

    def r_map(self) -> NDArray[np.float32] | None:
        """R of the nearest pattern on a grid over the image (`r_image`); None where R is not known."""
        made, positions, r = self.image, self.positions_px, self.r_per_pattern
        if made is None or r is None or len(r) != len(positions):
            return None
        known = np.isfinite(r)
        return r_image(positions[known], r[known], made.corner_xy, made.field.shape)

    @property
    def mean_rows(self) -> NDArray[np.int64]:
        """The patterns that the mean is of: all used ones, or as many, evenly spread, as hold 2^26 values."""
        assert self.scan is not None
        M = len(self.used)
        rows = np.linspace(0, M - 1, min(M, max(_MEAN_VALUES // self.scan.N**2, 1))).astype(np.int64)
        return self.used[np.unique(rows)]

    def mean_counts(self) -> NDArray[np.float32]:
        """The mean of the patterns `mean_rows` (N, N), in counts, NaN in bad pixels; read once."""
        if self._mean is None:
            self._mean = self._measured_mean()
        return self._mean

    def _measured_mean(self) -> NDArray[np.float32]:
        assert self.scan is not None
        amplitude, total = self._amplitude(), np.zeros((self.scan.N, self.scan.N))
        rows = self.mean_rows
        for begin in range(0, len(rows), _CHUNK):
            total += np.square(amplitude[rows[begin : begin + _CHUNK]], dtype=np.float64).sum(axis=0)
        return _masked(total / len(rows), self.scan)

    def _amplitude(self) -> LazyPatterns:
        assert self.scan is not None
        return self.scan.amplitude_by_rows()


def open_shown(path: Path, data: Path | None = None) -> Shown:
    """What a scan file, an image file or the folder of a run shows; `data`: the scan, where none is named.

    Raises MissingFileError or InputError where nothing of it can be shown.
    """
    if path.is_dir():
        return _of_run(path, data)
    if data is not None:
        return _checked(Shown(path.name, _scan(data), _image(path), [path, data]))
    shown = Shown(path.name, None, None, [path])
    failed: list[PtychoError] = []
    try:
        shown.scan = _scan(path)
    except PtychoError as error:
        failed.append(error)
    try:
        shown.image = _image(path)
    except PtychoError as error:
        failed.append(error)
    if shown.scan is None and shown.image is None:
        raise failed[0]
    return shown


def _of_run(folder: Path, data: Path | None) -> Shown:
    run = find_runs([folder], data)[0]
    shown = Shown(run.name, None, None, [run.folder / PRODUCT])
    if run.product is not None:
        shown.image = _image(run.product)
        shown.inputs.append(run.product)
    else:
        shown.notes.append("no image was reconstructed here")
    if run.scan is None:
        shown.notes.append("the scan was not found; name it with --data FILE")
    else:
        shown.inputs.append(run.scan)
        try:
            shown.scan = _scan(run.scan)
            reasons = skipped_reasons(run.provenance, str(run.scan.resolve()))
            shown.left_out = {row: why for row, why in reasons.items() if row < shown.scan.n_positions}
        except PtychoError as error:
            shown.notes.append(f"the scan cannot be read: {error}")
    return _checked(shown)


def _checked(shown: Shown) -> Shown:
    if shown.scan is None and shown.image is None:
        raise InputError(f"{shown.name}: nothing to show: {'; '.join(shown.notes)}")
    return shown


def _scan(path: Path) -> RawData:
    """The scan, its patterns left in the file where its format lets them: the page asks for one at a time."""
    return by_rows(RawData.from_file, path, make_probe=True)


def _image(path: Path) -> Image:
    product = open_product(path)
    probe = positions = r = None
    if path.suffix.lower() == ".npz":
        with open_npz(path) as archive:
            found = {
                name: read_array(archive, name, path)
                for name in ("probe", "positions_px", "r_per_pattern")
                if name in archive.files
            }
        probe, positions, r = (found.get(name) for name in ("probe", "positions_px", "r_per_pattern"))
    field_, lit, (top, left) = lit_field(product.object, product.coverage)
    x, y = product.origin_xy or (0.0, 0.0)
    phase = np.angle(field_)
    limits = (colour_limits(np.abs(field_), lit), colour_limits(phase, lit))
    return Image(field_.astype(np.complex64), (x + left, y + top), product, probe, positions, r, limits)


def _masked(counts: NDArray[Any], scan: RawData) -> NDArray[np.float32]:
    shown = np.asarray(counts, np.float32)
    return shown if scan.bad_pixels is None else np.where(scan.bad_pixels, np.float32(np.nan), shown)
