"""Pictures of a run as it goes: measured against predicted patterns, and the stitched image."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from ptycho.image_quality import image_quality, mean_quality
from ptycho.loader import PtychoDataContainer
from ptycho.preparation import Grouped
from ptycho.scan_set import ScanSet
from ptycho_torch.callbacks.tracking import Row
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.physics import amplitude, diffract


class ReconstructionPanels(Callback):
    """Every n epochs: `patterns_EPOCH.png` for fixed, evenly spaced patterns, and `image_EPOCH.png` if asked;
    of several scans one of each, `patterns_scanNUMBER_EPOCH.png`.

    Where a scan holds its true object, PSNR and SSIM of the image (the mean over such scans) are added to the
    epoch's row. Reads the module and draws; weights, gradients and random state stay as they are. Time: a few
    forward patterns of each scan, or one inference over all where images are stitched; memory as inference.
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
        self._scans = ScanSet.of(scans)
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

    def _draw(self, module: PtychoPINN_Lightning, epoch: int) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        found = []
        for container, scan in zip(self._scans.containers, self._scans.numbers, strict=True):
            name = f"scan{scan}_{epoch:04d}" if len(self._scans.numbers) > 1 else f"{epoch:04d}"
            self._draw_patterns(module, container, scan, self._directory / f"patterns_{name}.png")
            if self._stitch:
                path = self._directory / f"image_{name}.png"
                found.append(self._draw_image(module, container, scan, path, f"epoch {epoch}"))
        if self._history is not None:
            self._history.row.update(mean_quality(found))

    @torch.no_grad()
    def _draw_patterns(
        self, module: PtychoPINN_Lightning, container: PtychoDataContainer, scan: int, path: Path
    ) -> None:
        from ptycho.report.figures import patterns_figure

        groups = np.linspace(0, len(container) - 1, min(self._patches, len(container))).astype(int)
        members = container.nn_indices[groups]
        x = torch.from_numpy(container.patterns[members]).to(module.probe.device)
        positions = torch.from_numpy(container.positions_px[members]).to(module.probe.device)
        views = module.views(module(x, scan), {"positions_xy": positions, "region": False, "scan": scan})
        scale = torch.exp(module.of_scan(module.log_scale, scan))
        predicted = scale * amplitude(diffract(views, module.probe_of(scan)))
        to_counts = module.intensity_scale_of(scan)
        measured, expected = (to_counts * a[:, 0].cpu().numpy() for a in (x, predicted))
        patterns_figure(path, measured, expected)

    def _draw_image(
        self, module: PtychoPINN_Lightning, container: PtychoDataContainer, scan: int, path: Path, title: str
    ) -> dict[str, float]:
        """The stitched image; how near it is to its truth."""
        from ptycho.report.figures import reconstruction_figure
        from ptycho_torch.workflows.inference import reconstruct_container

        made = reconstruct_container(module, container, scan=scan).image
        reconstruction_figure(path, made.object, coverage=made.coverage, title=title)
        return image_quality(made, container.objectGuess)
