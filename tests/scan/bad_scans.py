"""Scans spoiled in the ways in which detectors and scanners spoil them; each kind on instances that vary.

Every maker takes the arrays of a good scan and a generator, and returns the arrays that changed. The table in
docs/scan_checks.md lists the same kinds: a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ptycho.simulation.probes import zone_plate
from ptycho.simulation.scenario import Scenario, diffract_scan, simulate

Arrays = dict[str, Any]
Maker = Callable[[Arrays, np.random.Generator], Arrays]


class Kind(NamedTuple):
    """What is done to a scan, the finding it must raise (None: refused when read), and its severity."""

    make: Maker
    finding: str | None
    severity: str
    message: str = ""


@lru_cache(maxsize=4)
def _made(number: int) -> Any:
    scenario = Scenario(
        object=("lines", "cat_and_coins", "gaussian_random_field", "siemens_star")[number % 4],
        scan=("jittered", "fermat", "jittered", "concentric")[number % 4],
        probe=("zone_plate", "zone_plate", "disk", "zone_plate")[number % 4],
        N=(32, 48, 32, 40)[number % 4], n_positions=(100, 81, 121, 90)[number % 4], step_px=(3.2, 3.2, 2.2,
        3.2)[number % 4], jitter_px=0.8,
        photons=1e5, seed=number + 50,
    )  # fmt: skip
    return simulate(scenario)


def good(number: int) -> Arrays:
    """The arrays of good scan `number` (0 to 3); fresh copies of what is changed."""
    made = _made(number)
    arrays = made.raw.as_arrays()
    arrays |= {"objectGuess": None, "xcoords_start": None, "ycoords_start": None}
    arrays["diff3d"] = arrays["diff3d"].copy()
    arrays["truth"] = (made.object_true, made.probe_true)
    return arrays


def _columns(rng: np.random.Generator, N: int, most: int = 3) -> slice:
    wide = int(rng.integers(1, most + 1))
    # off the middle, and inside
    begin = int(rng.integers(2, N // 2 - 6)) if rng.random() < 0.5 else int(rng.integers(N // 2 + 3, N - 5))
    return slice(begin, begin + wide)


def _set(value: Callable[[np.dtype[Any]], float], dtype: str, axis: int = 2) -> Maker:
    def make(a: Arrays, rng: np.random.Generator) -> Arrays:
        g = a["diff3d"].astype(dtype)
        part = _columns(rng, g.shape[-1])
        g[(slice(None), part) if axis == 1 else (slice(None), slice(None), part)] = value(g.dtype)
        return {"diff3d": g, "diffraction_unit": "counts"}

    return make


def _top(dtype: np.dtype[Any]) -> float:
    return float(np.iinfo(dtype).max) if dtype.kind in "ui" else float(2**32 - 1)


def _pixel(value: float | str, dtype: str, n: int = 1, noisy: bool = False) -> Maker:
    def make(a: Arrays, rng: np.random.Generator) -> Arrays:
        g = a["diff3d"].astype(dtype)
        N = g.shape[-1]
        for _ in range(n):
            row, column = int(rng.integers(1, N // 4)), int(rng.integers(1, N - 1))
            level = _top(g.dtype) if value == "top" else float(value)
            g[:, row, column] = rng.poisson(level, len(g)) if noisy else level
        return {"diff3d": g, "diffraction_unit": "counts"}

    return make


def _frames(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Maker:
    return lambda a, rng: {"diff3d": change(a["diff3d"].copy(), rng)}


def _empty(g: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    g[rng.choice(len(g), 3, replace=False)] = 0
    return g


def _repeat(g: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    to = int(rng.integers(10, len(g)))
    g[to] = g[to - 7]
    return g


def _part_shuffled(g: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    some = rng.choice(len(g), int(0.35 * len(g)), replace=False)
    g[np.sort(some)] = g[some]
    return g


def _nan_pattern(g: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    g = g.astype(np.float32)
    g[int(rng.integers(0, len(g))), 4:6, 5] = np.nan
    return g


def _clip(g: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.minimum(g, int(np.percentile(g.max(axis=0), 95)))


def _dead_block(g: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    N = g.shape[-1]
    g[:, N // 2 + 3, N // 2 - 4] = 0
    return g


def _beamstop(a: Arrays, rng: np.random.Generator) -> Arrays:
    g = a["diff3d"]
    row, column = np.indices(g.shape[1:]) - g.shape[-1] // 2
    # a zone plate is dark in the middle: stop a part of its ring
    bright = np.unravel_index(int(g.mean(axis=0).argmax()), g.shape[1:])
    centre = np.array(bright) - g.shape[-1] // 2
    g[:, np.hypot(row - centre[0], column - centre[1]) < rng.uniform(2.0, 3.0)] = 0
    return {"diff3d": g}


def _flux(sigma: float) -> Maker:
    def make(a: Arrays, rng: np.random.Generator) -> Arrays:
        g = a["diff3d"]
        return {"diff3d": rng.poisson(g * rng.lognormal(0, sigma, (len(g), 1, 1))).astype(np.int32)}

    return make


def _dropped_flux(a: Arrays, rng: np.random.Generator) -> Arrays:
    level = np.ones(len(a["diff3d"]))
    level[rng.choice(len(level), len(level) // 10, replace=False)] = 0.15
    return {"diff3d": rng.poisson(a["diff3d"] * level[:, None, None]).astype(np.int32)}


def _places(change: Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[Any, Any]]) -> Maker:
    def make(a: Arrays, rng: np.random.Generator) -> Arrays:
        x, y = change(a["xcoords"].copy(), a["ycoords"].copy(), rng)
        return {"xcoords": x, "ycoords": y}

    return make


def _outlier(far: float) -> Maker:
    def change(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        which = int(rng.integers(0, len(x)))
        x[which] += far * rng.choice([-1, 1])
        y[which] += far
        return x, y

    return _places(change)


def _twice(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x[3:6], y[3:6] = x[10:13], y[10:13]
    return x, y


def _lines_apart(a: Arrays, rng: np.random.Generator) -> Arrays:
    M = len(a["xcoords"])
    row, column = np.divmod(np.arange(M), 30)
    return {"xcoords": 30 + 2.0 * column, "ycoords": 30 + 40.0 * row}


def _probe(change: Callable[[np.ndarray, int], np.ndarray]) -> Maker:
    return lambda a, rng: {"probeGuess": change(np.asarray(a["probeGuess"]), a["diff3d"].shape[-1])}


def _other_probe(p: np.ndarray, N: int) -> np.ndarray:
    """A wide even beam for a scan with a focused one, and the focus of a large zone plate for the rest."""
    modes = p if p.ndim == 3 else p[None]
    beam = np.abs(np.fft.fft2(modes[0])) ** 2
    if beam[0, 0] < 0.1 * beam.max():
        row, column = np.indices((N, N)) - N // 2
        return np.exp(-(row**2 + column**2) / (2 * (0.18 * N) ** 2)).astype(np.complex64)
    return zone_plate(N, 1e5, aperture_factor=2.4)


def _near(a: Arrays, rng: np.random.Generator) -> Arrays:
    """The wide, flat shadow that a detector sees right behind the sample."""
    obj, _ = a["truth"]
    N = a["diff3d"].shape[-1]
    row, column = np.indices((N, N)) - N // 2
    wide = 1 / (1 + np.exp((np.hypot(row, column) - 0.42 * N) / 1.0))
    wide = wide * np.sqrt(1e5 / (wide**2).sum())
    light = []
    for x, y in np.round(np.stack([a["xcoords"], a["ycoords"]], 1)).astype(int):
        patch = obj[y - N // 2 : y - N // 2 + N, x - N // 2 : x - N // 2 + N]
        k = np.fft.fftfreq(N)
        kernel = np.exp(-1j * np.pi * 3.0 * (k[:, None] ** 2 + k[None, :] ** 2))
        light.append(np.abs(np.fft.ifft2(np.fft.fft2(wide * patch) * kernel)) ** 2)
    return {"diff3d": rng.poisson(np.stack(light)).astype(np.int32), "probeGuess": wide.astype(np.complex64)}


def _float_counts(a: Arrays, rng: np.random.Generator) -> Arrays:
    N = a["diff3d"].shape[-1]
    flat = rng.normal(1, 0.02, (N, N))
    return {"diff3d": (a["diff3d"] * flat).clip(0).astype(np.float32), "diffraction_unit": None}


def _inverted(a: Arrays, rng: np.random.Generator) -> Arrays:
    mask = np.zeros(a["diff3d"].shape[1:], bool)
    mask[:, _columns(rng, len(mask))] = True
    return {"bad_pixels": ~mask}


def _module_off(axis: int) -> Maker:
    def make(a: Arrays, rng: np.random.Generator) -> Arrays:
        g, N = a["diff3d"], a["diff3d"].shape[-1]
        if axis == 1:
            g[:, : N // 2 - 1] = 0
        else:
            g[:, :, N // 2 + 2 :] = 0
        return {"diff3d": g}

    return make


def _few(M: int) -> Maker:
    def make(a: Arrays, rng: np.random.Generator) -> Arrays:
        return {key: a[key][:M] for key in ("xcoords", "ycoords", "diff3d", "scan_index")}

    return make


def _off_by(k: int) -> Maker:
    """A Fermat spiral, whose consecutive places lie far apart."""

    def make(a: Arrays, rng: np.random.Generator) -> Arrays:
        return {"diff3d": np.concatenate([a["diff3d"][k:], a["diff3d"][-k:]]) if k > 0 else a["diff3d"]}

    return make


def _sparse(factor: float) -> Maker:
    def make(a: Arrays, rng: np.random.Generator) -> Arrays:
        return {"xcoords": factor * a["xcoords"], "ycoords": factor * a["ycoords"]}

    return make


def _turned_line(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return x, 0.7 * x + 5


E, P, N_ = "error", "problem", "note"
KINDS: dict[str, Kind] = {
    "gap at uint32 maximum, columns": Kind(_set(_top, "uint32"), "type_maximum", E, "column"),
    "gap at uint32 maximum, rows": Kind(_set(_top, "uint32", 1), "type_maximum", E, "row"),
    "gap at uint16 maximum": Kind(_set(_top, "uint16"), "type_maximum", E, "65535"),
    "gap at int32 maximum": Kind(_set(_top, "int32"), "type_maximum", E, "2147483647"),
    "gap of 2^32-1 in int64": Kind(_set(lambda d: 2**32 - 1, "int64"), "type_maximum", E, "4294967295"),
    "gap of 2^32-1 in float32": Kind(_set(lambda d: 2**32 - 1, "float32"), "type_maximum", E, "column"),
    "gap of 2^32-2": Kind(_set(lambda d: 2**32 - 2, "uint32"), "type_maximum", E, "4294967294"),
    "gap of -1": Kind(_set(lambda d: -1, "int32"), None, E, "code -1"),
    "gap of -2, rows": Kind(_set(lambda d: -2, "int64", 1), None, E, "code -2"),
    "gap of -1 in float": Kind(_set(lambda d: -1, "float32"), None, E, "code -1"),
    "gap of NaN": Kind(_set(lambda d: np.nan, "float32"), None, E, "NaN"),
    "gap of NaN, rows, float64": Kind(_set(lambda d: np.nan, "float64", 1), None, E, "NaN"),
    "infinite gap": Kind(_set(lambda d: np.inf, "float32"), None, E, "infinite"),
    "one pattern with NaN": Kind(_frames(_nan_pattern), None, E, "in pattern"),
    "dark subtracted, negative": Kind(
        lambda a, rng: {"diff3d": a["diff3d"] - rng.integers(0, 3, a["diff3d"].shape)}, None, E, "negative"
    ),
    "hot pixel at the type's maximum": Kind(_pixel("top", "uint16"), "type_maximum", E, "pixel ("),
    "hot pixel, stuck": Kind(_pixel(3000, "int32"), "stuck_pixels", P, "3000"),
    "hot pixel, stuck, float": Kind(_pixel(3000.5, "float32"), "stuck_pixels", P, "3000.5"),
    "hot pixels, noisy": Kind(_pixel(900, "int32", 2, noisy=True), "hot_pixels", P, "pixel"),
    "hot pixel that holds most of the counts": Kind(
        _pixel(9e6, "int32", 1, noisy=True), "hot_pixels", E, "pixel ("
    ),
    "dead pixel": Kind(_frames(_dead_block), "dead_pixels", P, "pixel ("),
    "dead columns": Kind(lambda a, rng: {"diff3d": _zero_columns(a["diff3d"])}, "dead_pixels", P, "column"),
    "module off, columns": Kind(_module_off(2), "dead_pixels", P, "columns"),
    "module off, rows": Kind(_module_off(1), "dead_pixels", P, "rows"),
    "beamstop": Kind(_beamstop, "beamstop", P, "beam"),
    "saturation": Kind(_frames(_clip), "saturated_pixels", P, "saturates"),
    "pedestal": Kind(_frames(lambda g, rng: g + 40), "pedestal", P, "dark level"),
    "pedestal with electronic noise": Kind(
        lambda a, rng: {
            "diff3d": (a["diff3d"] + rng.normal(100, 2, a["diff3d"].shape)).astype(np.float32),
            "diffraction_unit": "counts",
        },
        "pedestal",
        P,
        "dark level",
    ),
    "mask inverted": Kind(_inverted, "mask_inverted", E, "inverted"),
    "empty patterns": Kind(_frames(_empty), "empty_patterns", P, "3 of"),
    "repeated pattern": Kind(_frames(_repeat), "repeated_patterns", P, "copy of"),
    "identical patterns": Kind(
        _frames(lambda g, rng: np.repeat(g[:1], len(g), axis=0)), "identical_patterns", E, "the same"
    ),
    "a third of the patterns shuffled": Kind(
        _frames(_part_shuffled), "shuffled_patterns", P, "paired wrongly"
    ),
    "all patterns shuffled": Kind(
        _frames(lambda g, rng: g[rng.permutation(len(g))]), "shuffled_patterns", P, "paired wrongly"
    ),
    "beam current jumps": Kind(_flux(0.8), "flux_jumps", P, "--intensity"),
    "beam current jumps a little": Kind(_flux(0.35), "flux_jumps", P, "--intensity"),
    "beam drops": Kind(_dropped_flux, "flux_jumps", P, "--intensity"),
    "positions in metres": Kind(_sparse(28e-9), "position_unit", E, "metres"),
    "positions in micrometres": Kind(_sparse(0.028), "position_unit", E, "unit"),
    "positions in micrometres, finer pixels": Kind(_sparse(0.008), "position_unit", E, "unit"),
    "positions in nanometres": Kind(_sparse(28.0), "position_unit", E, "unit"),
    "all positions at one place": Kind(
        _places(lambda x, y, rng: (0 * x + 40, 0 * y + 41)), "position_unit", E, "one place"
    ),
    "x in micrometres": Kind(
        _places(lambda x, y, rng: (0.02 * x, y)), "position_axis_unit", E, "another unit"
    ),
    "y in nanometres": Kind(_places(lambda x, y, rng: (x, 28 * y)), "position_axis_unit", P, "another unit"),
    "y in metres": Kind(_places(lambda x, y, rng: (x, 1e-8 * y)), "line_scan", P, "one y"),
    "y not recorded": Kind(_places(lambda x, y, rng: (x, 0 * y + y.mean())), "line_scan", P, "one y"),
    "x not recorded": Kind(_places(lambda x, y, rng: (0 * x, y)), "line_scan", P, "one x"),
    "one motor recorded twice": Kind(_places(lambda x, y, rng: (x, x.copy())), "line_scan", P, "45 degrees"),
    "positions on a slanted line": Kind(_places(_turned_line), "line_scan", P, "one line"),
    "one position far off": Kind(_outlier(4e4), "position_outlier", E, "from the others"),
    "one position very far off": Kind(_outlier(1e9), "position_outlier", E, "from the others"),
    "one position off by some probes": Kind(_outlier(45), "position_outlier", P, "from the others"),
    "a canvas beyond the memory": Kind(_outlier(1e9), "canvas_memory", E, "available"),
    "places measured twice": Kind(_places(_twice), "repeated_positions", P, "repeat"),
    "overlap under 30 %": Kind(_sparse(5.5), "low_overlap", P, "overlap"),
    "lines that do not overlap": Kind(_lines_apart, "unlinked_positions", P, "groups"),
    "positions outside the object": Kind(
        lambda a, rng: {"objectGuess": a["truth"][0], "xcoords": a["xcoords"] + 300},
        "positions_outside_object",
        P,
        "outside objectGuess",
    ),
    "one pattern": Kind(_few(1), "few_patterns", P, "1 pattern"),
    "two patterns": Kind(_few(2), "few_patterns", P, "2 patterns"),
    "twelve patterns": Kind(_few(12), "few_patterns", P, "12 patterns"),
    "patterns corner-centred": Kind(
        _frames(lambda g, rng: np.fft.fftshift(g, axes=(1, 2))), "pattern_centre", P, "fftshift"
    ),
    "patterns off centre in x": Kind(
        _frames(lambda g, rng: np.roll(g, 7, axis=2)), "pattern_centre", P, "column"
    ),
    "patterns off centre in y": Kind(
        _frames(lambda g, rng: np.roll(g, -6, axis=1)), "pattern_centre", P, "row"
    ),
    "probe corner-centred": Kind(
        _probe(lambda p, N: np.fft.fftshift(p, (-2, -1))), "probe_corner", P, "fftshift"
    ),
    "probe off centre": Kind(_probe(lambda p, N: np.roll(p, N // 3, -1)), "probe_off_centre", P, "row"),
    "probe of another scan": Kind(_probe(_other_probe), "probe_of_another_scan", P, "another scan"),
    "probe as amplitude and phase": Kind(
        _probe(lambda p, N: np.stack([np.abs(p), np.angle(p)]).reshape(2, N, N).astype(np.float32)),
        None,
        E,
        "real",
    ),
    "probe of no power": Kind(_probe(lambda p, N: 0 * p), None, E, "zero everywhere"),
    "probe in another gauge": Kind(_probe(lambda p, N: 100 * p), "probe_power", N_, "probe power"),
    "near-field data": Kind(_near, "near_field", P, "near-field"),
    "flat-fielded counts without a unit": Kind(_float_counts, "counts_as_amplitude", P, "diffraction_unit"),
    "whole numbers without a unit": Kind(
        lambda a, rng: {"diff3d": a["diff3d"].astype(np.float32), "diffraction_unit": None},
        "counts_as_amplitude",
        P,
        "whole numbers",
    ),
    "dose not known": Kind(
        lambda a, rng: {
            "diff3d": (0.31 * np.sqrt(a["diff3d"])).astype(np.float32),
            "diffraction_unit": "amplitude",
        },
        "unknown_dose",
        N_,
        "photon",
    ),
    "every pattern zero": Kind(_frames(lambda g, rng: 0 * g), None, E, "every diffraction pattern is zero"),
}


def _zero_columns(g: np.ndarray) -> np.ndarray:
    N = g.shape[-1]
    g[:, :, N // 2 + 3 : N // 2 + 5] = 0
    return g


__all__ = ["KINDS", "Kind", "diffract_scan", "good", "zone_plate"]
