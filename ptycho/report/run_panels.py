"""Pictures of every scan during a run: measured beside predicted patterns, and the image.

The same for both backends: a backend only supplies its predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import PyTorchExecutionConfig
from ptycho.image.canvas import Stitched
from ptycho.run.batches import Index
from ptycho.run.image_quality import image_quality, mean_quality
from ptycho.run.observers import Epoch, Observer
from ptycho.run.preparation import Grouped
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.scan_set import ScanSet

#: (container, members (K, C), scan) -> measured and expected counts of each group's first pattern, (K, N, N)
Explain = Callable[[PtychoDataContainer, Index, int], tuple[NDArray[Any], NDArray[Any]]]
#: (container, scan) -> the stitched image
Stitch = Callable[[PtychoDataContainer, int], Stitched]


class RunPanels:
    """`patterns_EPOCH.png` for fixed, evenly spaced patterns, and `image_EPOCH.png` if asked, every n epochs;
    of several scans one of each, `patterns_scanNUMBER_EPOCH.png`.

    Time: a few predicted patterns of each scan, or one inference over all patterns if images are stitched;
    memory as for inference.
    """

    def __init__(self, scans: Grouped, directory: Path, *, every: int, patches: int, stitch: bool) -> None:
        self._scans, self._directory = ScanSet.of(scans), directory
        self._every, self._patches, self._stitch = every, patches, stitch

    @classmethod
    def asked_for(
        cls, execution: PyTorchExecutionConfig, train: Grouped, test: Grouped | None, output: Path | None
    ) -> RunPanels | None:
        """The pictures of the settings, of the test scan if there is one; None: no pictures, or no folder."""
        if not execution.recon_log_every_n_epochs or output is None:
            return None
        return cls(
            test if test is not None else train,
            output / "figures",
            every=execution.recon_log_every_n_epochs,
            patches=execution.recon_log_num_patches,
            stitch=execution.recon_log_stitch,
        )

    def due(self, epoch: int) -> bool:
        """Whether pictures are drawn after this number of epochs."""
        return epoch % self._every == 0

    def draw(self, epoch: int, explain: Explain, stitch: Stitch) -> dict[str, float]:
        """Draw the pictures of an epoch; the mean quality of the images whose true object is known."""
        from ptycho.report.figures import patterns_figure, reconstruction_figure

        self._directory.mkdir(parents=True, exist_ok=True)
        found = []
        for container, scan in zip(self._scans.containers, self._scans.numbers, strict=True):
            name = f"scan{scan}_{epoch:04d}" if len(self._scans.numbers) > 1 else f"{epoch:04d}"
            groups = np.linspace(0, len(container) - 1, min(self._patches, len(container))).astype(np.int64)
            measured, expected = explain(container, container.nn_indices[groups], scan)
            patterns_figure(self._directory / f"patterns_{name}.png", measured, expected)
            if self._stitch:
                image, path = stitch(container, scan), self._directory / f"image_{name}.png"
                reconstruction_figure(path, image.object, coverage=image.coverage, title=f"epoch {epoch}")
                found.append(image_quality(image, container.objectGuess))
        return mean_quality(found)


class Panels(Observer):
    """Draws the panels of a run and adds the quality of its images to the row of the epoch.

    `explain` and `stitch` call the backend; they do not change weights, gradients or random state.
    """

    def __init__(self, panels: RunPanels, explain: Explain, stitch: Stitch) -> None:
        self._panels, self._explain, self._stitch = panels, explain, stitch

    def epoch(self, now: Epoch) -> None:
        """Draw pictures if they are due after this epoch."""
        if self._panels.due(now.number + 1):
            now.row.update(self._panels.draw(now.number + 1, self._explain, self._stitch))
