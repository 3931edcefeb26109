"""False alarms: correct simulated scans of every kind, in which `scan.check()` must find nothing.

    python benchmarks/good_scans.py [--n 200] [--first 0]

Every scan has its own object (of this file and of the package), probe, path, dose, size, modes and mask,
drawn from
its number. Prints what was found in each scan where anything was, and the count at the end.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.findings import doubts
from ptycho.scan.raw_data import RawData
from ptycho.simulation.objects import OBJECTS
from ptycho.simulation.probes import PROBES
from ptycho.simulation.scans import SCANS
from ptycho.simulation.scenario import Scenario, diffract_scan, simulate

_SIDES = (32, 48, 64, 96, 128, 256)


def good_scan(number: int, largest: int = 256) -> tuple[RawData, str]:
    """Scan `number`, and its choices in words; patterns no larger than `largest` px."""
    rng = np.random.default_rng([number, 4711])
    side = int(rng.choice([n for n in _SIDES if n <= largest]))
    step = float(rng.uniform(0.05, 0.11) * side)
    low = float(rng.choice([0.0, 0.3, 0.7, 0.95]))
    scenario = Scenario(
        object=str(rng.choice(sorted(set(OBJECTS)))),
        probe=str(rng.choice(sorted(PROBES))),
        scan=str(rng.choice(sorted(SCANS))),
        N=side,
        n_positions=int(rng.integers(36, 150 if side <= 64 else 60)),
        step_px=step,
        jitter_px=float(rng.uniform(0, 0.4) * step),
        aspect=float(rng.choice([1.0, 1.0, 0.5, 2.5])),
        photons=float(10 ** rng.uniform(2, 9)),
        n_modes=int(rng.choice([1, 1, 1, 2, 4])),
        dead_fraction=float(rng.choice([0.0, 0.0, 0.02, 0.1])),
        probe_error=float(rng.choice([0.0, 0.25, 0.25, -0.2])),
        amp_range=(low, 1.0),
        phase_range_rad=(0.0, float(rng.choice([0.1, 1.0, 2.5]))),
        seed=number,
    )
    kind = int(rng.integers(0, 7))
    words = f"{number}: kind {kind} {scenario}"
    if kind == 0 and low < 0.9:
        return _of_own_object(scenario, rng), words
    if kind == 6 and low < 0.9:
        return _of_own_object(scenario, rng, hollow=True), words
    raw = simulate(scenario).raw
    arrays = raw.as_arrays()
    if kind == 1:
        mask = _mask(side, rng)
        mask = mask if raw.bad_pixels is None else mask | raw.bad_pixels
        arrays |= {"bad_pixels": mask, "diffraction_unit": "counts"}
    elif kind == 2:
        arrays |= {"diff3d": np.sqrt(arrays["diff3d"]).astype(np.float32), "diffraction_unit": "amplitude"}
    elif kind == 3:
        arrays |= {"diff3d": arrays["diff3d"].astype(rng.choice(["float32", "float64", "int64", "uint32"])),
                   "diffraction_unit": "counts"}  # fmt: skip
    elif kind == 4 and arrays["bad_pixels"] is not None:
        held = arrays["diff3d"].copy()
        held[:, arrays["bad_pixels"]] = int(rng.choice([-1, -2, 2**31 - 1]))
        arrays |= {"diff3d": held}
    return RawData(**arrays), words


def _mask(N: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Half a detector, a cross, a beamstop, a wedge, a slanted line, or loose pixels."""
    mask = np.zeros((N, N), bool)
    row, column = np.indices(mask.shape) - N // 2
    kind = int(rng.integers(0, 6))
    if kind == 0:
        mask[:, : N // 2] = True
        mask = mask if rng.random() < 0.5 else mask.T.copy()
    elif kind == 1:
        at, wide = int(rng.integers(2, N - 4)), int(rng.integers(1, 4))
        mask[at : at + wide], mask[:, at : at + wide] = True, True
    elif kind == 2:
        mask = np.hypot(row, column) < rng.uniform(1, N / 10)
    elif kind == 3:
        mask = np.abs(np.arctan2(row, column) - 1.0) < 0.3
    elif kind == 4:
        turn, at = rng.uniform(0, np.pi), rng.uniform(-N / 3, N / 3)
        mask = np.abs(row * np.cos(turn) + column * np.sin(turn) - at) < rng.uniform(0.6, 2.5)
    else:
        mask = rng.random((N, N)) < 0.05
    return mask


def _hollow(N: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """A beam that is dark in its middle, at the sample and on the detector: a vortex (1, N, N), power 1."""
    row, column = np.indices((N, N)) - N // 2
    radius = np.hypot(row, column) / (N * rng.uniform(0.08, 0.13))
    phase = np.arctan2(row, column) + rng.uniform(0, 0.6) * radius**2
    wave = radius * np.exp(-0.5 * radius**2 + 1j * phase)
    return np.asarray((wave / np.linalg.norm(wave))[None])


def _of_own_object(scenario: Scenario, rng: np.random.Generator, hollow: bool = False) -> RawData:
    """The scan of cells: round dark spots of random size and phase on a clear field."""
    made = simulate(replace(scenario, object="flat", photons=1.0))
    shape = made.object_true.shape
    y, x = np.indices(shape)
    obj = np.ones(shape, np.complex128)
    for _ in range(int(rng.integers(5, 40))):
        radius = rng.uniform(0.03, 0.25) * scenario.N
        spot = 1 / (1 + np.exp(np.hypot(y - rng.uniform(0, shape[0]), x - rng.uniform(0, shape[1])) - radius))
        low, phase = scenario.amp_range[0], scenario.phase_range_rad[1]
        obj *= (1 - (1 - low) * rng.random() * spot) * np.exp(1j * phase * rng.random() * spot)
    raw = made.raw
    probe = _hollow(scenario.N, rng) if hollow else made.probe_true
    light = diffract_scan(obj, probe, raw.positions_px) * scenario.photons
    counts = np.minimum(rng.poisson(light), 2**31 - 1).astype(np.int32)
    arrays: dict[str, Any] = raw.as_arrays()
    if arrays["bad_pixels"] is not None:
        counts[:, arrays["bad_pixels"]] = 0
    arrays |= {"diff3d": counts, "objectGuess": None}
    if hollow:
        arrays["probeGuess"] = (probe * np.sqrt(scenario.photons)).astype(np.complex64)
    return RawData(**arrays)


def main() -> None:
    """Check the scans that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--largest", type=int, default=256, help="largest pattern, px")
    asked = parser.parse_args()
    alarms = 0
    for number in range(asked.first, asked.first + asked.n):
        scan, words = good_scan(number, asked.largest)
        found = doubts(scan.check())
        if found:
            alarms += 1
            print(words)
            for one in found:
                print(f"    {one.severity} {one.kind}: {one}")
    print(f"{alarms} of {asked.n} correct scans raised an alarm")


if __name__ == "__main__":
    main()
