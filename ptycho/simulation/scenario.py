"""One simulated experiment: choices (`Scenario`), measurement (`simulate`), scan and truth (`Simulated`)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import ConfigError, DataError
from ptycho.io.companions import read_companions
from ptycho.io.npz import write_npz
from ptycho.io.reading import check_memory
from ptycho.scan.raw_data import RawData
from ptycho.simulation.detector import count_photons, dead_pixels
from ptycho.simulation.objects import get_object
from ptycho.simulation.probes import MAX_MODES, get_probe, with_modes
from ptycho.simulation.scans import get_scan

Progress = Callable[[int, int], None]
MARGIN_PX = 4
_CHUNK = 64
#: the aperture of the guess is smaller by this share of `probe_error`, its defocus larger by all of it
_APERTURE_SHARE = 2.0 / 11.0


@dataclass(frozen=True)
class Scenario:
    """A simulated scan by its choices; `validate`, called by `simulate`, names a bad field and its limits.

    object, probe, scan: names in `OBJECTS`, `PROBES`, `SCANS`.
    N: side of a pattern, px, even, at least 32. n_positions: M. step_px: mean distance of neighbours.
    jitter_px: largest displacement of the jittered raster in x and y. aspect: width over height of the scan.
    photons: incident photons a pattern, sum |P|^2. n_modes, mode_decay: incoherent modes, power ratio.
    dead_fraction: share of detector pixels that count nothing and are marked in bad_pixels.
    probe_error: relative error of the guess's defocus (its aperture is wrong too, by 2/11 of it).
    amp_range, phase_range_rad: of the object. object_shape: (H, W) px, or None for what the scan needs.
    seed: of everything random.
    """

    object: str = "two_photographs"
    probe: str = "zone_plate"
    scan: str = "jittered"
    N: int = 64
    n_positions: int = 676
    step_px: float = 5.0
    jitter_px: float = 2.0
    aspect: float = 1.0
    photons: float = 1e5
    n_modes: int = 1
    mode_decay: float = 0.3
    dead_fraction: float = 0.0
    probe_error: float = 0.25
    amp_range: tuple[float, float] = (0.7, 1.0)
    phase_range_rad: tuple[float, float] = (0.0, 1.0)
    object_shape: tuple[int, int] | None = None
    seed: int = 0

    def validate(self) -> None:
        """Raise ConfigError for the first field that cannot be used."""
        get_object(self.object)
        get_probe(self.probe)
        get_scan(self.scan)
        for name, low, high in (
            ("N", 32, 4096),
            ("n_positions", 1, 10_000_000),
            ("n_modes", 1, MAX_MODES),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from {low} to {high}")
        if self.N % 2:
            raise ConfigError(f"N is {self.N}; it must be even")
        self._check_number("step_px", 0.0, 1e4, low_allowed=False)
        self._check_number("jitter_px", 0.0, 1e4)
        self._check_number("aspect", 0.01, 100.0)
        # Counts are kept as int32: one pixel may hold at most 2^31 - 1 of them.
        self._check_number("photons", 0.0, 1e9, low_allowed=False)
        self._check_number("mode_decay", 0.0, 1.0, low_allowed=False)
        self._check_number("dead_fraction", 0.0, 0.9)
        self._check_number("probe_error", -0.9, 4.0)
        self._check_range("amp_range", 0.0)
        self._check_range("phase_range_rad", -math.inf)
        check_memory(4 * self.n_positions * self.N**2, f"a scan of {self.n_positions} patterns")

    def _check_number(self, name: str, low: float, high: float, low_allowed: bool = True) -> None:
        value = getattr(self, name)
        real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        real = real and math.isfinite(value)
        if not real or not low <= value <= high or (value == low and not low_allowed):
            bound = "from" if low_allowed else "above"
            raise ConfigError(f"{name} is {value!r}; it must be a number {bound} {low:g} to {high:g}")

    def _check_range(self, name: str, low: float) -> None:
        value = getattr(self, name)
        try:
            first, last = (float(v) for v in value)
        except (TypeError, ValueError):
            raise ConfigError(f"{name} is {value!r}; it must be two numbers, lowest first") from None
        if not (math.isfinite(first) and math.isfinite(last)) or not low <= first <= last:
            raise ConfigError(f"{name} is {value!r}; it must be two finite numbers, lowest first")


class Truth(NamedTuple):
    """What only a simulation knows: object (H, W), probe (P, N, N), and the box (y0, y1, x0, x1) to judge."""

    object_true: NDArray[np.complex64]
    probe_true: NDArray[np.complex64]
    roi: tuple[int, int, int, int]


@dataclass(frozen=True)
class Simulated:
    """A scan and its truth; `raw` holds the truth as objectGuess too, for supervised training.

    raw: the scan as a detector and a beamline would give it, with the wrong probe guess.
    object_true (H, W) and probe_true (P, N, N) complex64; roi (y0, y1, x0, x1) is where the object is judged.
    """

    raw: RawData
    object_true: NDArray[np.complex64]
    probe_true: NDArray[np.complex64]
    roi: tuple[int, int, int, int]
    scenario: Scenario

    def to_npz(self, path: str | os.PathLike[str]) -> None:
        """Write the scan with object_true, probe_true, roi and scenario (JSON) beside its own keys."""
        truth = {
            "object_true": self.object_true,
            "probe_true": self.probe_true,
            "roi": np.asarray(self.roi, np.int64),
            "scenario": json.dumps(asdict(self.scenario)),
        }
        write_npz(path, {**self.raw.as_arrays(), **truth})


def read_truth(path: str | os.PathLike[str]) -> Truth:
    """The truth that `Simulated.to_npz` kept in a scan file, compressed or not.

    Raises DataError naming an absent key.
    """
    found = read_companions(path)
    for key in ("object_true", "probe_true", "roi"):
        if key not in found:
            raise DataError(f"{path} has no {key!r}; it is no scan of ptycho simulate")
    obj, probe, roi = (found[key] for key in ("object_true", "probe_true", "roi"))
    y0, y1, x0, x1 = (int(v) for v in roi)
    return Truth(obj.astype(np.complex64), probe.astype(np.complex64), (y0, y1, x0, x1))


def simulate(scenario: Scenario, progress: Progress | None = None) -> Simulated:
    """Measure a scenario: I = Poisson(sum_p |FFT2_ortho(P_p(r - d) O[window])|^2), d the sub-pixel part.

    The probe moves by a Fourier shift, exact for band-limited probes. Time O(M P N^2 log N); memory the int32
    patterns, the object and one chunk of 64 patterns. The same scenario gives the same bytes.
    Raises ConfigError before anything long starts.

    >>> made = simulate(Scenario(N=32, n_positions=9))
    >>> made.raw.diff3d.shape, made.raw.diff3d.dtype.name
    ((9, 32, 32), 'int32')
    """
    scenario.validate()
    # Separate streams, so that changing one choice does not redraw the others.
    seeds = np.random.SeedSequence(scenario.seed).generate_state(3, np.uint64)
    scan_seed, detector_seed, dead_seed = (int(seed) for seed in seeds)
    N = scenario.N
    relative = get_scan(scenario.scan)(
        scenario.n_positions, scenario.step_px, scenario.aspect, scenario.jitter_px, scan_seed
    )
    positions = relative - relative.min(0) + N // 2 + MARGIN_PX
    shape = _object_shape(scenario, positions)
    obj = get_object(scenario.object)(shape, scenario.seed, scenario.amp_range, scenario.phase_range_rad)
    make_probe = get_probe(scenario.probe)
    probe = with_modes(make_probe(N, scenario.photons), scenario.n_modes, scenario.mode_decay)
    dead = dead_pixels(N, scenario.dead_fraction, dead_seed) if scenario.dead_fraction else None

    counts = np.empty((scenario.n_positions, N, N), np.int32)
    rng, done = np.random.default_rng(detector_seed), 0
    for intensity in _intensity_chunks(obj, probe, positions):
        part = slice(done, done + len(intensity))
        counts[part] = count_photons(intensity, rng)
        if dead is not None:
            counts[part, dead] = 0
        done += len(intensity)
        if progress is not None:
            progress(done, scenario.n_positions)

    guess = make_probe(
        N,
        float(counts.sum(dtype=np.int64)) / scenario.n_positions,
        aperture_factor=1.0 - _APERTURE_SHARE * scenario.probe_error,
        defocus_factor=1.0 + scenario.probe_error,
    )
    raw = RawData.from_coords_without_pc(
        positions[:, 0],
        positions[:, 1],
        counts,
        with_modes(guess, scenario.n_modes, scenario.mode_decay) if scenario.n_modes > 1 else guess,
        objectGuess=obj,
        bad_pixels=dead,
        diffraction_unit="counts",
        pattern_order="MNN",
    )
    low, high = np.ceil(positions.min(0)).astype(int), np.floor(positions.max(0)).astype(int)
    roi = (int(low[1]), int(high[1]), int(low[0]), int(high[0]))
    return Simulated(raw, obj, probe, roi, scenario)


def diffract_scan(obj: ArrayLike, probe: ArrayLike, positions_xy: ArrayLike) -> NDArray[np.float64]:
    """Noise-free patterns of an object at sub-pixel positions, the probe moved by Fourier shift.

    Shapes: obj (H, W) and probe (P, N, N) complex, positions (M, 2) [x, y] object px, all windows inside the
    object; returns (M, N, N) float64 intensity, zero frequency at (N//2, N//2).
    """
    chunks = _intensity_chunks(np.asarray(obj), np.asarray(probe), np.asarray(positions_xy, np.float64))
    return np.concatenate(list(chunks))


def _intensity_chunks(
    obj: NDArray[Any], probe: NDArray[Any], positions: NDArray[np.float64]
) -> Iterator[NDArray[np.float64]]:
    N = probe.shape[-1]
    spectrum = np.fft.fft2(probe.astype(np.complex128))
    k = np.fft.fftfreq(N)
    windows = np.lib.stride_tricks.sliding_window_view(obj, (N, N))
    for begin in range(0, len(positions), _CHUNK):
        here = positions[begin : begin + _CHUNK]
        whole = np.round(here).astype(int)
        fraction = here - whole
        ramp_y = np.exp(-2j * np.pi * k * fraction[:, 1, None])[:, None, :, None]
        ramp_x = np.exp(-2j * np.pi * k * fraction[:, 0, None])[:, None, None, :]
        moved = np.fft.ifft2(spectrum * ramp_y * ramp_x)  # (chunk, P, N, N)
        patches = windows[whole[:, 1] - N // 2, whole[:, 0] - N // 2]
        waves = np.fft.fft2(moved * patches[:, None], norm="ortho")
        yield np.fft.fftshift(np.sum(np.abs(waves) ** 2, axis=1), axes=(-2, -1))


def _object_shape(scenario: Scenario, positions: NDArray[np.float64]) -> tuple[int, int]:
    """Rows and columns, even, that hold every window and a margin; or the asked shape, if that is enough."""
    reach = np.ceil(positions.max(0)).astype(int) + scenario.N - scenario.N // 2 + MARGIN_PX
    width, height = (int(side + side % 2) for side in reach)
    if scenario.object_shape is None:
        check_memory(16 * height * width, f"an object of {height} x {width} px", "make step_px smaller")
        return height, width
    try:
        rows, columns = (int(side) for side in scenario.object_shape)
    except (TypeError, ValueError):
        raise ConfigError(f"object_shape is {scenario.object_shape!r}; it must be (rows, columns)") from None
    if rows < height or columns < width:
        raise ConfigError(
            f"object_shape is {(rows, columns)}; the scan needs at least {(height, width)}: "
            "enlarge it, or use fewer positions or a smaller step_px"
        )
    check_memory(16 * rows * columns, f"an object of {rows} x {columns} px", "make object_shape smaller")
    return rows, columns
