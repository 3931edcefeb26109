"""No prior, total variation and the learned prior in one run, on own scans: a table of the model card.

    OMP_NUM_THREADS=1 python benchmarks/priors.py [--doses 300 1000 2000 10000 100000] [--steps 6 12]

One thread, CPU seconds of the work after loading. Three scans for each row, one of each object: cat and
coins and lines, which the network never saw in training, and a random field, whose kind it saw. 64 x 64 px,
zone plate, a guess 25 % wrong; a step of 6 px is an overlap of 70 %, one of 12 px of 40 %. Seeds 201 to 203.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from ptycho.evaluation import evaluate
from ptycho.simulation.scenario import Scenario, Simulated, simulate
from ptycho_torch.refine import make_scan, reconstruct

SIDES = {6.0: 18, 12.0: 11}
OBJECTS = {"cat_and_coins": 201, "lines": 202, "gaussian_random_field": 203}
PRIORS = ("none", "tv", "learned", "auto")


def scan_of(kind: str, photons: float, step_px: float) -> Simulated:
    """One scan of the table."""
    side = SIDES[step_px]
    choices = {"n_positions": side * side, "step_px": step_px, "jitter_px": 0.4 * step_px, "photons": photons}
    return simulate(Scenario(object=kind, seed=OBJECTS[kind], **choices))


def solve(made: Simulated, seed: int, prior: str) -> tuple[float, float, float]:
    """cNRMSE, CPU s, sweeps."""
    raw = made.raw
    places = np.stack([raw.xcoords, raw.ycoords], -1)
    scan = make_scan(raw.diff3d, places, raw.probeGuess, unit="counts")
    clock = time.process_time()
    found = reconstruct(scan, seed=seed, prior=prior)
    spent = time.process_time() - clock
    error = evaluate(found.object, made.object_true, made.roi, origin_xy=found.origin_xy).nrmse
    return error, spent, len(found.history)


def main() -> None:
    """Print the table row by row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--doses", type=float, nargs="+", default=[3e2, 1e3, 2e3, 1e4, 1e5])
    parser.add_argument("--steps", type=float, nargs="+", choices=sorted(SIDES), default=[6.0, 12.0])
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=list(PRIORS[:3]))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| photons | step, px | prior | cat and coins | lines | field | mean | sweeps | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for step_px in arguments.steps:
        for photons in arguments.doses:
            scans = {kind: scan_of(kind, photons, step_px) for kind in OBJECTS}
            for prior in arguments.priors:
                rows = np.array([solve(made, OBJECTS[kind], prior) for kind, made in scans.items()])
                errors = " | ".join(f"{value:.4f}" for value in (*rows[:, 0], rows[:, 0].mean()))
                ends = f"{rows[:, 2].mean():.0f} | {rows[:, 1].mean():.2f}"
                print(f"| {photons:g} | {step_px:g} | {prior} | {errors} | {ends} |", flush=True)


if __name__ == "__main__":
    main()
