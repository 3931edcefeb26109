"""Pictures of a run as it goes: what `ptycho.report.run_panels` asks of the Lightning module."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from ptycho.forward.diffraction import amplitude, diffract
from ptycho.image.canvas import Stitched
from ptycho.report.run_panels import RunPanels
from ptycho.run.batches import Index
from ptycho.scan.container import PtychoDataContainer
from ptycho_torch.callbacks.tracking import Row
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.workflows.inference import reconstruct_container


class ReconstructionPanels(Callback):
    """Draws the panels and adds the quality of the images to the epoch's row. Weights, gradients and random
    state stay as they are."""

    def __init__(self, panels: RunPanels, history: Row) -> None:
        self._panels, self._history = panels, history

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if not self._panels.due(epoch) or not trainer.is_global_zero:
            return
        if not isinstance(pl_module, PtychoPINN_Lightning):
            return
        module, was_training = pl_module, pl_module.training

        @torch.no_grad()
        def explain(
            container: PtychoDataContainer, members: Index, scan: int
        ) -> tuple[NDArray[Any], NDArray[Any]]:
            x = torch.from_numpy(container.patterns[members]).to(module.probe.device)
            positions = torch.from_numpy(container.positions_px[members]).to(module.probe.device)
            views = module.views(module(x, scan), {"positions_xy": positions, "region": False, "scan": scan})
            scale = torch.exp(module.of_scan(module.log_scale, scan))
            predicted = scale * amplitude(diffract(views, module.probe_of(scan)))
            to_counts = module.intensity_scale_of(scan)
            return to_counts * x[:, 0].cpu().numpy(), to_counts * predicted[:, 0].cpu().numpy()

        def image(container: PtychoDataContainer, scan: int) -> Stitched:
            return reconstruct_container(module, container, scan=scan).image

        module.eval()
        try:
            self._history.row.update(self._panels.draw(epoch, explain, image))
        finally:
            module.train(was_training)
