"""The two scans of ../shared, reconstructed by the network: time, R of the stitched object, numbers against
the truth.

    python benchmarks/reconstructions.py [--only bench siemens] [--out FOLDER] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import describe
from benchmarks.scans import bench_scan, run, siemens_star
from ptycho.report.figures import reconstruction_figure

#: name, scan, settings of the model, settings of the run
CASES = (
    ("bench, swift", "bench", {}, {"nepochs": 60}),
    ("bench, swift, longer", "bench", {}, {"nepochs": 150}),
    ("bench, swift, gridsize 2", "bench", {"gridsize": 2}, {"nepochs": 15, "batch_size": 4}),
    ("bench, swift, gridsize 2, longer", "bench", {"gridsize": 2}, {"nepochs": 45, "batch_size": 4}),
    ("bench, swift, gridsize 1 without regions", "bench", {}, {"nepochs": 60, "region_ratio": 0.0}),
    (
        "bench, cnn, about 100 s",
        "bench",
        {"architecture": "cnn"},
        {"nepochs": 1000, "max_time_s": 100.0},
    ),
    ("siemens, swift", "siemens", {}, {"nepochs": 25}),
)


def main() -> None:
    """Print the table; write a picture of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=["bench", "siemens"], choices=["bench", "siemens"])
    parser.add_argument("--case", nargs="+", default=[case[0] for case in CASES], help="names of rows to run")
    parser.add_argument("--out", type=Path, default=Path("benchmark_out"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(describe(options.seed))
    print("| run | train s | infer s | R stitched | cNRMSE | FRC50 | amp PSNR/SSIM | phase PSNR/SSIM |")
    print("|---|---|---|---|---|---|---|---|")
    for name, scan, model, settings in CASES:
        if scan not in options.only or name not in options.case:
            continue
        truth = bench_scan() if scan == "bench" else None
        raw = truth.raw if truth else siemens_star()
        made = run(raw, truth=truth, model=model, seed=options.seed, **settings)
        j = made.judged
        numbers = (
            f"{j.nrmse:.4f} | {j.frc50:.2f} | {j.amplitude_psnr:.1f}/{j.amplitude_ssim:.3f} "
            f"| {j.phase_psnr:.1f}/{j.phase_ssim:.3f}"
            if j
            else "- | - | - | -"
        )
        print(
            f"| {name} | {made.train_s:.0f} | {made.infer_s:.1f} | "
            f"{made.results['r_factor']:.4f} | {numbers} |",
            flush=True,
        )
        reconstruction_figure(
            options.out / f"{name.replace(', ', '_').replace(' ', '-')}.png",
            made.results["object"],
            truth=truth.object_true if truth else None,
            coverage=made.results["coverage"],
            title=name,
        )


if __name__ == "__main__":
    main()
