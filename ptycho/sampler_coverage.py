"""How often each position was trained on: what a sampler left out shows here, not in the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho.io.atomic import atomic_write
from ptycho.loader import PtychoDataContainer
from ptycho.preparation import TrainingPlan

NAME, FIGURE = "coverage.npz", "sampler_coverage.png"


def position_counts(plan: TrainingPlan, container: PtychoDataContainer, epochs: int) -> NDArray[np.int64]:
    """Times that each position (M,) stands in a batch of the first `epochs` epochs.

    The order of an epoch is a function of the seed, so a resumed run counts the epochs before the break as
    well. Time O(epochs G log G), memory O(M).
    """
    counts = np.zeros(len(container.patterns), np.int64)
    for epoch in range(epochs):
        for groups, _ in plan.epoch(epoch):
            np.add.at(counts, container.nn_indices[groups], 1)
    return counts


def write_coverage(
    folder: Path, positions_px: NDArray[np.float64], counts: NDArray[np.int64], *, epochs: int
) -> tuple[int, int]:
    """Write `coverage.npz` (positions_px (M, 2), counts (M,), epochs) and its picture under `figures/`.

    Returns the smallest and the largest count of the positions that were trained on: those held out for
    validation have none. (0, 0) where nothing was trained.
    """
    with atomic_write(folder / NAME) as temporary:
        np.savez(temporary, positions_px=positions_px, counts=counts, epochs=np.int64(epochs))
    _draw(folder / "figures" / FIGURE, positions_px, counts, epochs)
    used = counts[counts > 0]
    return (int(used.min()), int(used.max())) if used.size else (0, 0)


def _draw(path: Path, positions_px: NDArray[np.float64], counts: NDArray[np.int64], epochs: int) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.8), layout="constrained", facecolor="white")
    axis = figure.add_subplot()
    x, y = positions_px.T
    dots = axis.scatter(x, y, c=counts, s=14, cmap="viridis", vmin=0, vmax=max(1, int(counts.max(initial=0))))
    figure.colorbar(dots, ax=axis, label="times trained on")
    axis.set(aspect="equal", xlabel="x (px)", ylabel="y (px)", title=f"Positions used in {epochs} epochs")
    axis.invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)
