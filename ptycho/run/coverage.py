"""How often each position was used for training: what a sampler leaves out is visible here, not in the
loss.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho.io.atomic import atomic_write
from ptycho.run.preparation import Grouped, TrainingPlan
from ptycho.scan.scan_set import ScanSet

NAME, FIGURE = "coverage.npz", "sampler_coverage.png"


def position_counts(plan: TrainingPlan, scans: Grouped, epochs: int) -> NDArray[np.int64]:
    """Times that each position (M,), of all scans in order, stands in a batch of the first `epochs` epochs.

    The order of an epoch is a function of the seed, so a resumed run counts the epochs before the break as
    well. Time O(epochs G log G), memory O(M).
    """
    known = ScanSet.of(scans)
    counts = [np.zeros(len(one.patterns), np.int64) for one in known.containers]
    for epoch in range(epochs):
        for groups, _ in plan.epoch(epoch):
            place, local = known.where(groups)
            np.add.at(counts[place], known.containers[place].nn_indices[local], 1)
    return np.concatenate(counts)


def write_coverage(
    folder: Path, scans: Grouped, counts: NDArray[np.int64], *, epochs: int
) -> tuple[int, int]:
    """Write `coverage.npz` (positions_px (M, 2), counts (M,), scan (M,), epochs) and its picture under
    `figures/`.

    Returns the smallest and the largest count of the positions that were trained on: those held out for
    validation have none. (0, 0) where nothing was trained.
    """
    containers = ScanSet.of(scans).containers
    positions = np.concatenate([one.positions_px for one in containers])
    scan = np.repeat(np.arange(len(containers)), [len(one.positions_px) for one in containers])
    with atomic_write(folder / NAME) as temporary:
        np.savez(temporary, positions_px=positions, counts=counts, scan=scan, epochs=np.int64(epochs))
    _draw(folder / "figures" / FIGURE, positions, counts, scan, epochs)
    used = counts[counts > 0]
    return (int(used.min()), int(used.max())) if used.size else (0, 0)


def _draw(
    path: Path,
    positions_px: NDArray[np.float64],
    counts: NDArray[np.int64],
    scan: NDArray[np.int64],
    epochs: int,
) -> None:
    """One plot for each scan, side by side, on one scale of colour."""
    from matplotlib.figure import Figure

    number = int(scan.max(initial=0)) + 1
    figure = Figure(figsize=(1.2 + 4.8 * number, 4.8), layout="constrained", facecolor="white")
    axes = figure.subplots(1, number, squeeze=False)[0]
    most = max(1, int(counts.max(initial=0)))
    for which, axis in enumerate(axes):
        x, y = positions_px[scan == which].T
        dots = axis.scatter(x, y, c=counts[scan == which], s=14, cmap="viridis", vmin=0, vmax=most)
        of = f" of scan {which}" if number > 1 else ""
        title = f"Positions{of} used in {epochs} epochs"
        axis.set(aspect="equal", xlabel="x (px)", ylabel="y (px)", title=title)
        axis.invert_yaxis()
    figure.colorbar(dots, ax=list(axes), label="times trained on")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)
