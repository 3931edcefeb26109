"""Pictures of a run as it goes: measured against predicted patterns, and the stitched image."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from ptycho.image_quality import image_quality
from ptycho.preparation import Grouped
from ptycho.scan_set import ScanSet
from ptycho_torch.callbacks.tracking import Row
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.physics import amplitude, diffract


class ReconstructionPanels(Callback):
    """Every n epochs: `patterns_EPOCH.png` for fixed, evenly spaced patterns, and `image_EPOCH.png` if asked.

    Of several scans the first is shown. Where it holds its true object, PSNR and SSIM of the image are added
    to the epoch's row. Reads the module and draws; weights, gradients and random state stay as they are.
    Time: a few forward patterns, or one inference over the container where the image is stitched; memory as
    inference.
    """

    def __init__(
        self,
        scans: Grouped,
        directory: Path,
        *,
        every: int,
        patches: int,
        stitch: bool,
        history: Row | None = None,
    ) -> None:
        shown = ScanSet.of(scans)
        self._container, self._scan = shown.containers[0], shown.numbers[0]
        self._directory, self._history = directory, history
        self._every, self._patches, self._stitch = every, patches, stitch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self._every or not trainer.is_global_zero:
            return
        if not isinstance(pl_module, PtychoPINN_Lightning):
            return
        was_training = pl_module.training
        pl_module.eval()
        try:
            self._draw(pl_module, trainer.current_epoch + 1)
        finally:
            pl_module.train(was_training)

    @torch.no_grad()
    def _draw(self, module: PtychoPINN_Lightning, epoch: int) -> None:
        from ptycho.report.figures import patterns_figure, reconstruction_figure

        self._directory.mkdir(parents=True, exist_ok=True)
        container = self._container
        groups = np.linspace(0, len(container) - 1, min(self._patches, len(container))).astype(int)
        members = container.nn_indices[groups]
        x = torch.from_numpy(container.patterns[members]).to(module.probe.device)
        positions = torch.from_numpy(container.positions_px[members]).to(module.probe.device)
        scan = self._scan
        views = module.views(module(x, scan), {"positions_xy": positions, "region": False, "scan": scan})
        scale = torch.exp(module.of_scan(module.log_scale, scan))
        predicted = scale * amplitude(diffract(views, module.probe_of(scan)))
        to_counts = module.intensity_scale_of(scan)
        measured, expected = (to_counts * a[:, 0].cpu().numpy() for a in (x, predicted))
        patterns_figure(self._directory / f"patterns_{epoch:04d}.png", measured, expected)
        if self._stitch:
            from ptycho_torch.workflows.inference import reconstruct_container

            made = reconstruct_container(module, container, scan=scan)
            reconstruction_figure(
                self._directory / f"image_{epoch:04d}.png",
                made.image.object,
                coverage=made.image.coverage,
                title=f"epoch {epoch}",
            )
            if self._history is not None:
                self._history.row.update(image_quality(made.image, container.objectGuess))
