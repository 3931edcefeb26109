"""The engine with two levels beside the plain loop, in one run: the table of FAST-001, engine rows.

    OMP_NUM_THREADS=1 python benchmarks/fast.py [CASE ...] [--seeds 3] [--runs RUN ...] [--out DIR]

One thread, CPU seconds of the work after loading, judging not counted. Every case is run with the defaults
of `reconstruct` and with the plain loop (start="flat", levels=1, prior="none", 40 sweeps), on demand with
total variation as prior. "blobs" is an object that the package does not ship. --out: curves of cNRMSE over
CPU seconds as a plot and a CSV file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from refining import SHARED, centres, evaluate, simulate

from ptycho_torch.refine import make_scan, reconstruct
from ptycho_torch.refine.operators import Canvas

PLAIN = {"start": "flat", "levels": 1, "prior": "none", "epochs": 40}
RUNS: dict[str, dict] = {"two levels": {}, "two levels and tv": {"prior": "tv"}, "plain loop": PLAIN}
GOALS = (0.06, 0.045, 0.03)


def blobs(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Overlapping discs of random size, amplitude 0.7 to 1, phase 0 to 1 rad: sharp edges at all scales."""
    rng = np.random.default_rng([seed, 99])
    y, x = np.indices(shape)
    fields = []
    for low, high in ((0.7, 1.0), (0.0, 1.0)):
        field = np.full(shape, (low + high) / 2)
        for _ in range(150):
            radius = 3 + 25 * rng.random() ** 2
            cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
            field[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = rng.uniform(low, high)
        fields.append(field)
    return (fields[0] * np.exp(1j * fields[1])).astype(np.complex64)


def with_object(make: Callable[[tuple[int, int], int], np.ndarray], seed: int, **choices: float) -> dict:
    """A scan as `simulate` makes it, of another object."""
    before = simulate.make_object
    simulate.make_object = lambda shape: make(shape, seed)
    try:
        return simulate.simulate(seed=seed, **choices)
    finally:
        simulate.make_object = before


def bench(seed: int) -> dict:
    """The scan of ../shared/bench, whatever the seed."""
    return dict(np.load(SHARED / "bench" / "scan_subpixel.npz"))


CASES: dict[str, Callable[[int], dict]] = {
    "bench 1e5": bench,
    "1e4 photons": lambda seed: simulate.simulate(photons=1e4, seed=seed),
    "2,000 photons": lambda seed: simulate.simulate(photons=2e3, seed=seed),
    "1,000 photons": lambda seed: simulate.simulate(photons=1e3, seed=seed),
    "100 photons": lambda seed: simulate.simulate(photons=1e2, seed=seed),
    "overlap 60 %": lambda seed: simulate.simulate(step=8.0, side=18, jitter=3.2, seed=seed),
    "overlap 40 %": lambda seed: simulate.simulate(step=12.0, side=13, jitter=4.8, seed=seed),
    "blobs 1e5": lambda seed: with_object(blobs, seed + 5),
    "blobs 1,000 photons": lambda seed: with_object(blobs, seed + 5, photons=1e3),
}


def solve(data: dict, seed: int, options: dict) -> tuple[list[tuple[float, float]], float, int]:
    """Curve of (CPU s, cNRMSE) from the start on, R, and the number of sweeps."""
    scan = make_scan(data["diffraction"], centres(data), data["probe_guess"])
    curve, spent, clock = [], 0.0, time.process_time()

    def look(_: object, state: object, done: int) -> None:
        nonlocal spent, clock
        spent += time.process_time() - clock
        # judging takes longer than a sweep: early sweeps, then every third
        if done <= 4 or done % 3 == 0:
            error = judged(state.object, state.canvas)
            curve.append((spent, error))
        clock = time.process_time()

    def judged(image: torch.Tensor, canvas: Canvas) -> float:
        return evaluate(image.numpy(), canvas.origin_xy, data)["nrmse"]

    result = reconstruct(scan, seed=seed, watch=look, **options)
    curve.append((spent, evaluate(result.object, result.origin_xy, data)["nrmse"]))
    return curve, result.r, len(result.history)


def row(name: str, curves: list[list[tuple[float, float]]], rs: list[float], sweeps: float) -> str:
    """Means over the seeds; a goal that a seed misses is a dash."""
    reached = []
    for goal in GOALS:
        times = [next((t for t, e in curve if e <= goal), None) for curve in curves]
        reached.append("-" if None in times else f"{np.mean(times):.2f}")
    ends = np.array([curve[-1] for curve in curves])
    return (
        f"| {name} | {sweeps:.0f} | {ends[:, 0].mean():.2f} | {' / '.join(reached)} | "
        f"{ends[:, 1].mean():.4f} ({ends[:, 1].min():.4f} to {ends[:, 1].max():.4f}) | {np.mean(rs):.4f} |"
    )


def star(seed: int, options: dict) -> str:
    """The measured star: no truth, R only."""
    data = np.load(SHARED / "data" / "siemens_star_velociprobe.npz")
    scan = make_scan(data["diff3d"], np.stack([data["xcoords"], data["ycoords"]], -1), data["probeGuess"])
    clock = time.process_time()
    reached = []
    result = reconstruct(
        scan,
        seed=seed,
        callbacks=(lambda now: reached.append((time.process_time() - clock, now.r)),),
        **options,
    )
    first = next((f"{t:.1f}" for t, r in reached if r <= 0.1088), "-")
    spent = time.process_time() - clock
    return f"| {len(result.history)} | {spent:.1f} | {first} | {result.r:.4f} | {result.began} |"


def plot(curves: dict[str, list[list[tuple[float, float]]]], folder: Path) -> None:
    """cNRMSE over CPU seconds, one panel a case."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    cases = sorted({name.rsplit(", ", 1)[0] for name in curves})
    columns = min(3, len(cases))
    figure = Figure(figsize=(4 * columns, 3 * -(-len(cases) // columns)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(-(-len(cases) // columns), columns)).ravel()
    for axis, case in zip(axes, cases, strict=False):
        for kind, colour in (("two levels", "C0"), ("two levels and tv", "C2"), ("plain loop", "C1")):
            for number, curve in enumerate(curves.get(f"{case}, {kind}", [])):
                line = np.array(curve)
                axis.semilogy(line[:, 0], line[:, 1], colour, lw=1, label=kind if number == 0 else None)
        axis.set(title=case, xlabel="CPU s", ylabel="cNRMSE")
        axis.legend(frameon=False)
    for axis in axes[len(cases) :]:
        axis.set_visible(False)
    figure.savefig(folder / "fast.png", dpi=120)
    lines = ["case,run,seed,cpu_s,cnrmse"]
    for name, several in curves.items():
        case, kind = name.rsplit(", ", 1)
        for seed, curve in enumerate(several):
            lines += [f"{case},{kind},{seed},{t:.3f},{e:.5f}" for t, e in curve]
    (folder / "fast.csv").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run the named cases, all by default, and the star."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", choices=[[], "star", *CASES], default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=["two levels", "plain loop"])
    parser.add_argument("--out", type=Path, help="folder for the plot and the curves")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = {name: RUNS[name] for name in arguments.runs}
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    names = arguments.cases or [*CASES, "star"]
    goals = " / ".join(f"{goal:g}" for goal in GOALS)
    print(
        f"| case | sweeps | CPU s | s to {goals} | cNRMSE, mean (range) | R |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for case in [name for name in names if name != "star"]:
        for kind, options in runs.items():
            found = [solve(CASES[case](seed), seed, options) for seed in range(arguments.seeds)]
            several, rs, sweeps = (list(part) for part in zip(*found, strict=True))
            curves[f"{case}, {kind}"] = several
            print(row(f"{case}, {kind}", several, rs, float(np.mean(sweeps))), flush=True)
    if "star" in names:
        print("\n| star | sweeps | CPU s | s to R 0.1088 in a sweep | R | start |\n|---|---|---|---|---|---|")
        for kind, options in runs.items():
            print(f"| {kind} {star(0, options)}", flush=True)
    if arguments.out and curves:
        plot(curves, arguments.out)


if __name__ == "__main__":
    main()
