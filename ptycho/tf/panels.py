"""Pictures of a Keras run as it goes: what `ptycho.report.run_panels` asks of the model."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.forward.diffraction import amplitude, diffract
from ptycho.image.canvas import Stitched
from ptycho.report.run_panels import RunPanels
from ptycho.run.batches import Index
from ptycho.scan.container import PtychoDataContainer
from ptycho.tf.callbacks import History
from ptycho.tf.inference import predict_groups, reconstruct_container


class ReconstructionPanels(keras.callbacks.Callback):  # type: ignore[misc]
    """Draws the panels and adds the quality of the images to the epoch's row. Weights and random state stay
    as they are."""

    def __init__(self, panels: RunPanels, history: History) -> None:
        super().__init__()
        self._panels, self._history = panels, history

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._panels.due(epoch + 1):
            self._history.row.update(self._panels.draw(epoch + 1, self._explain, self._image))

    def _explain(
        self, container: PtychoDataContainer, members: Index, scan: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        model, x = self.model, tf.constant(container.patterns[members])
        batch = {"positions_xy": tf.constant(container.positions_px[members]), "region": False, "scan": scan}
        views = model.views(predict_groups(model, x, scan), batch)
        scale = tf.exp(model.of_scan(model.log_scale, scan))
        predicted = scale * amplitude(diffract(views, model.probe_of(scan)))
        to_counts = float(model.intensity_scale_of(scan))
        return to_counts * x[:, 0].numpy(), to_counts * predicted[:, 0].numpy()

    def _image(self, container: PtychoDataContainer, scan: int) -> Stitched:
        return reconstruct_container(self.model, container, scan=scan).image
