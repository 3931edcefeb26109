"""Pictures of a run as it goes: measured against predicted patterns, and the stitched image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ptycho.image_quality import image_quality, mean_quality
from ptycho.loader import PtychoDataContainer
from ptycho.preparation import Grouped
from ptycho.scan_set import ScanSet
from ptycho.tf.callbacks import History
from ptycho.tf.physics import amplitude, diffract


class ReconstructionPanels(keras.callbacks.Callback):  # type: ignore[misc]
    """Every n epochs: `patterns_EPOCH.png` for fixed, evenly spaced patterns, and `image_EPOCH.png` if asked;
    of several scans one of each, `patterns_scanNUMBER_EPOCH.png`.

    Where a scan holds its true object, PSNR and SSIM of the image (the mean over such scans) are added to the
    epoch's row. Reads the model and draws; weights and random state stay as they are. Time: a few forward
    patterns of each scan, or one inference over all where images are stitched; memory as inference.
    """

    def __init__(
        self,
        scans: Grouped,
        directory: Path,
        *,
        every: int,
        patches: int,
        stitch: bool,
        history: History | None = None,
    ) -> None:
        super().__init__()
        self._scans = ScanSet.of(scans)
        self._directory, self._history = directory, history
        self._every, self._patches, self._stitch = every, patches, stitch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self._every == 0:
            self._draw(epoch + 1)

    def _draw(self, epoch: int) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        found = []
        for container, scan in zip(self._scans.containers, self._scans.numbers, strict=True):
            name = f"scan{scan}_{epoch:04d}" if len(self._scans.numbers) > 1 else f"{epoch:04d}"
            self._draw_patterns(container, scan, self._directory / f"patterns_{name}.png")
            if self._stitch:
                path = self._directory / f"image_{name}.png"
                found.append(self._draw_image(container, scan, path, f"epoch {epoch}"))
        if self._history is not None:
            self._history.row.update(mean_quality(found))

    def _draw_patterns(self, container: PtychoDataContainer, scan: int, path: Path) -> None:
        from ptycho.report.figures import patterns_figure
        from ptycho.tf.inference import predict_groups

        model = self.model
        groups = np.linspace(0, len(container) - 1, min(self._patches, len(container))).astype(int)
        members = container.nn_indices[groups]
        x = tf.constant(container.patterns[members])
        positions = tf.constant(container.positions_px[members])
        batch = {"positions_xy": positions, "region": False, "scan": scan}
        views = model.views(predict_groups(model, x, scan), batch)
        scale = tf.exp(model.of_scan(model.log_scale, scan))
        predicted = scale * amplitude(diffract(views, model.probe_of(scan)))
        to_counts = float(model.intensity_scale_of(scan))
        measured, expected = (to_counts * a[:, 0].numpy() for a in (x, predicted))
        patterns_figure(path, measured, expected)

    def _draw_image(
        self, container: PtychoDataContainer, scan: int, path: Path, title: str
    ) -> dict[str, float]:
        """The stitched image; how near it is to its truth."""
        from ptycho.report.figures import reconstruction_figure
        from ptycho.tf.inference import reconstruct_container

        made = reconstruct_container(self.model, container, scan=scan).image
        reconstruction_figure(path, made.object, coverage=made.coverage, title=title)
        return image_quality(made, container.objectGuess)
