"""Positions wrong by 1 to 10 px: today's search against the decoded one, on scans of its own.

    OMP_NUM_THREADS=1 python benchmarks/position_decode.py [--photons 1e5 1e4] [--out benchmark_out]

Each row is one reconstruction of 100 patterns of 64 x 64 with the command's defaults. Methods: none (places
at random), exp and st by the formula, exp+network and st+network. px after: rms distance from the truth, what
an affine map of all positions explains taken off; lost: patterns more than 2 px off. listed, precision,
recall: patterns that are doubted, the share of them that is lost, and the share of the lost that is doubted;
once by their misfit (what a search keeps out of the object) and once by the width of their distribution
(`unsure`). CPU s: process time of the reconstruction. `--out` gets the picture.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe

from ptycho.simulation.scenario import Scenario, Simulated, simulate
from ptycho_torch.refine import IterationState, make_scan, reconstruct
from ptycho_torch.refine.decode import Belief, Grid, misfit_maps
from ptycho_torch.refine.decode_sweep import resting, unsure

LOST_PX = 2.0
#: size of the errors that is asked to be searched for, in their rms
ASKED = 1.3
DRIFT_PX = 4.0
SHOWN = ("7", 1e5)
#: rounds of decoding whose distribution is shown
SHOWN_ROUNDS = (0, 2, 5)
SEARCH_SWEEPS = 40


def wrong_places(true: np.ndarray, case: str, seed: int) -> tuple[np.ndarray, float]:
    """Places (M, 2) px that are wrong, and the rms of their errors: "7" is 7 px, each for itself."""
    rng = np.random.default_rng([seed, 77])
    if case != "drift":
        rms = float(case)
        return true + rng.normal(0, rms / np.sqrt(2), true.shape), rms
    walk = np.cumsum(rng.normal(size=true.shape), 0)
    smooth = np.stack([np.convolve(line, np.ones(9) / 9, "same") for line in walk.T], -1)
    return true + smooth * DRIFT_PX / np.sqrt(np.mean(away(true + smooth, true) ** 2)), DRIFT_PX


def away(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distance (M,) px of each place from the truth, without a common affine map of all."""
    centred = true - true.mean(0)
    moved = found - found.mean(0) - centred
    rest = moved - centred @ np.linalg.lstsq(centred, moved, rcond=None)[0]
    return np.hypot(*rest.T)


@dataclass
class Run:
    """One reconstruction, followed: the patterns it keeps out of the object, and one pattern's beliefs, each
    where the pattern was before it was moved, on the object of the sweep in which it rested."""

    made: Simulated
    start: np.ndarray
    size_px: float
    method: str
    seed: int
    beliefs: list[tuple[int, np.ndarray, np.ndarray]] = field(default_factory=list)
    lost: np.ndarray | None = None
    before: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    own_s: float = 0.0

    @property
    def kind(self) -> str:
        """How a shift is decoded: "none", "exp" or "st"."""
        return self.method.partition("+")[0]

    def follow(self, now: IterationState) -> None:
        """Called after each sweep."""
        self.state = now.state
        self.lost = None if now.state.lost is None else now.state.lost.numpy().copy()
        before, self.before = self.before, now.state.positions_xy.clone()
        rests = resting(len(self.start), now.epoch - 1, SEARCH_SWEEPS, self.seed)
        turn = (now.epoch - 5) // 4
        if self.kind == "none" or rests is None or self.shown not in rests or turn not in SHOWN_ROUNDS:
            return
        begun, grid = time.process_time(), Grid(12, 1.0)
        here = before[[self.shown]]
        maps = misfit_maps(self.scan, now.state, torch.tensor([self.shown]), grid, here)
        belief = Belief.of(maps, grid, 30.0)
        true = self.made.raw.positions_px
        right = true[self.shown] + (before.numpy() - true).mean(0) - here[0].numpy()
        self.beliefs.append((now.epoch, belief.probabilities[0].numpy().reshape(grid.side, -1), right))
        self.own_s += time.process_time() - begun

    @property
    def shown(self) -> int:
        """The pattern of the inner half of the scan that is furthest off at the start."""
        true = self.made.raw.positions_px
        centred = np.abs(true - true.mean(0)).max(1)
        inner = centred < 0.5 * centred.max()
        return int(np.argmax(np.where(inner, np.hypot(*(self.start - true).T), 0)))

    def solve(self) -> tuple[Any, float]:
        """The result and its CPU seconds."""
        self.scan = make_scan(self.made.raw.diff3d, self.start, self.made.raw.probeGuess)
        begun = time.process_time()
        result = reconstruct(
            self.scan,
            seed=self.seed,
            positions="free",
            position_search_px=ASKED * self.size_px,
            position_decode=self.kind,
            position_belief="auto" if self.kind == "none" else self.method.partition("+")[2] or "formula",
            callbacks=(self.follow,),
        )
        return result, time.process_time() - begun - self.own_s


def share(part: int, whole: int) -> str:
    """A ratio in words."""
    return f"{part / whole:.2f}" if whole else "-"


def found(listed: np.ndarray, lost: np.ndarray) -> str:
    """How many are listed, with precision and recall."""
    both = int((lost & listed).sum())
    return f"{int(listed.sum())}, {share(both, int(listed.sum()))}, {share(both, int(lost.sum()))}"


def picture(path: Path, made: Simulated, runs: dict[str, tuple[Run, np.ndarray]]) -> None:
    """Places given and found beside the true ones, and one pattern's belief as the object forms."""
    from ptycho.report.style import new_figure

    figure = new_figure(9.6, 7.2)
    axes = figure.subplots(2, 3)
    true = made.raw.positions_px
    run = runs["exp"][0]
    shown = [("given", run.start), ("places tried at random", runs["none"][1]), ("decoded", runs["exp"][1])]
    for axis, (title, places) in zip(axes[0], shown, strict=True):
        centred = true - true.mean(0)
        back = np.linalg.lstsq(np.c_[places, np.ones(len(places))], centred, rcond=None)[0]
        laid = np.c_[places, np.ones(len(places))] @ back if title != "given" else places - places.mean(0)
        for one, other in zip(centred, laid, strict=True):
            axis.plot(*np.stack([one, other]).T, "-", color="0.7", lw=0.8, zorder=1)
        axis.plot(*centred.T, "+", color="0.2", ms=4, zorder=2)
        axis.plot(*laid.T, "o", color="C3", ms=2.5, zorder=3)
        rms = np.sqrt(np.mean(away(places, true) ** 2))
        axis.set(title=f"{title}: {rms:.2f} px rms", aspect="equal", xlabel="x / px", ylabel="y / px")
        axis.set(xlim=(-36, 36), ylim=(36, -36))
    for axis, (sweep, weights, right) in zip(axes[1], run.beliefs, strict=True):
        reach = len(weights) // 2
        extent = (-reach - 0.5, reach + 0.5, reach + 0.5, -reach - 0.5)
        axis.imshow(weights, cmap="gray_r", extent=extent, vmin=0)
        axis.plot(*right, "+", color="C3", ms=12)
        axis.set(title=f"one pattern in sweep {sweep}", xlabel="shift x / px", ylabel="shift y / px")
        axis.set(xlim=extent[:2], ylim=extent[2:])
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table, draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photons", type=float, nargs="+", default=[1e5, 1e4])
    parser.add_argument("--cases", nargs="+", default=["1", "2", "3", "5", "7", "10", "drift"])
    parser.add_argument("--methods", nargs="+", default=["none", "exp", "exp+network"])
    parser.add_argument("--object", default="cat_and_coins")
    parser.add_argument("--probe", default="zone_plate")
    parser.add_argument("--positions", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe(options.seed))
    print(
        "| photons | error px | method | px after | median | lost | by misfit: listed, precision, recall "
        "| by width | R | CPU s |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for photons in options.photons:
        made = simulate(
            Scenario(
                object=options.object,
                probe=options.probe,
                n_positions=options.positions,
                photons=photons,
                seed=options.seed + 101,
            )
        )
        true = made.raw.positions_px
        for case in options.cases:
            start, size = wrong_places(true, case, options.seed)
            runs = {}
            for kind in options.methods:
                run = Run(made, start, size, kind, options.seed)
                result, spent = run.solve()
                left = away(result.positions_xy, true)
                lost, none = left > LOST_PX, np.zeros(len(left), bool)
                doubted = unsure(run.scan, run.state, ASKED * size).numpy()
                print(
                    f"| {photons:.0e} | {case} | {kind} | {np.sqrt(np.mean(left**2)):.3f} "
                    f"| {np.median(left):.3f} | {int(lost.sum())} "
                    f"| {found(none if run.lost is None else run.lost, lost)} | {found(doubted, lost)} "
                    f"| {result.r:.4f} | {spent:.1f} |",
                    flush=True,
                )
                runs[kind] = (run, result.positions_xy)
            if options.out and (case, photons) == SHOWN and {"none", "exp"} <= set(runs):
                options.out.mkdir(parents=True, exist_ok=True)
                picture(options.out / "position_decode.png", made, runs)


if __name__ == "__main__":
    main()
