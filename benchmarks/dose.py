"""Photons a pattern against the loss: a table and a plot.

    python benchmarks/dose.py [--photons 1e3 1e4 1e5 1e9] [--epochs 30] [--out FOLDER] [--seed 0]

The scan is the default scenario with the true probe given, so that only the loss differs between the two
columns.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import describe
from benchmarks.scans import Known, run
from ptycho.scan.raw_data import RawData
from ptycho.simulation import Scenario, simulate


def scan_at(photons: float, seed: int) -> Known:
    """The default scan at this dose, its true probe as the guess."""
    made = simulate(Scenario(photons=photons, seed=seed))
    raw = made.raw
    raw = RawData.from_coords_without_pc(raw.xcoords, raw.ycoords, raw.diff3d, made.probe_true)
    return Known(raw, made.object_true, made.roi)


def plot(rows: list[tuple[float, float, float]], path: Path) -> None:
    """Complex NRMSE over photons, both losses."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.add_subplot()
    photons = [row[0] for row in rows]
    axes.loglog(photons, [row[1] for row in rows], "o-", label="Poisson likelihood")
    axes.loglog(photons, [row[2] for row in rows], "s--", label="amplitude error")
    axes.set(xlabel="photons a pattern", ylabel="complex NRMSE")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print the table, draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photons", type=float, nargs="+", default=[1e3, 1e4, 1e5, 1e9])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("benchmark_out"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(describe(options.seed))
    print("| photons a pattern | Poisson: cNRMSE | FRC50 | amplitude: cNRMSE | FRC50 |")
    print("|---|---|---|---|---|")
    rows = []
    for photons in options.photons:
        known = scan_at(photons, options.seed)
        judged = [
            run(
                known.raw,
                truth=known,
                nepochs=options.epochs,
                probe_from="guess",
                torch_loss_mode=mode,
                seed=options.seed,
            ).judged
            for mode in ("poisson", "mae")
        ]
        rows.append((photons, judged[0].nrmse, judged[1].nrmse))
        cells = " | ".join(f"{j.nrmse:.4f} | {j.frc50:.2f}" for j in judged)
        print(f"| {photons:.0e} | {cells} |", flush=True)
    plot(rows, options.out / "dose.png")


if __name__ == "__main__":
    main()
