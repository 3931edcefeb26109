"""From a trained model and a scan to one image: the model predicts, the core does the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.image.canvas import Frame
from ptycho.run.reconstruction import Reconstruction, reconstruct
from ptycho.scan.container import PtychoDataContainer
from ptycho.tf.model import PtychoPINN_Keras
from ptycho.tf.reassembly import Stitcher


def predict_groups(model: PtychoPINN_Keras, x: Any, scan: int = 0) -> Any:
    """Complex patches (B, C_out, N, N) of a batch x (B, C, N, N), in graph mode, without gradients.

    `scan`: which of the model's scans it is seen as.
    """
    return model.patches(tf.convert_to_tensor(x), tf.constant(scan, tf.int32))


def reconstruct_container(
    model: PtychoPINN_Keras, container: PtychoDataContainer, *, scan: int = 0, **options: Any
) -> Reconstruction:
    """Predict every group of a container, seen as the model's scan `scan`, and stitch it; options, time and
    memory of `ptycho.run.reconstruction.reconstruct`."""
    settings = model.config.model

    def stitcher(frame: Frame, weights: NDArray[np.float32]) -> Stitcher:
        return Stitcher(frame, weights)

    return reconstruct(
        container,
        model.probe_of(scan).numpy().astype(np.complex64),
        lambda x: predict_groups(model, x, scan),
        stitcher,
        lambda patches: np.asarray(patches),
        one_patch_a_group=settings.gridsize > 1 and not settings.object_big,
        **options,
    )
