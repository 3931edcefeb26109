"""From a trained module and a scan to one image: the module predicts, the core does the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho.image.canvas import Frame
from ptycho.run.reconstruction import Reconstruction, reconstruct
from ptycho.scan.container import PtychoDataContainer
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.reassembly import Stitcher


@torch.inference_mode()
def predict_groups(module: PtychoPINN_Lightning, x: torch.Tensor, scan: int = 0) -> torch.Tensor:
    """Complex patches (B, C_out, N, N) of a batch x (B, C, N, N), on its device, without gradients.

    `scan`: which of the model's scans it is seen as.
    """
    patches: torch.Tensor = module(x.to(module.probe.device), scan)
    return patches


def reconstruct_container(
    module: PtychoPINN_Lightning, container: PtychoDataContainer, *, scan: int = 0, **options: Any
) -> Reconstruction:
    """Predict every group of a container, seen as the model's scan `scan`, and stitch it; options, time and
    memory of `ptycho.run.reconstruction.reconstruct`."""
    module.eval()
    model = module.config.model

    def stitcher(frame: Frame, weights: NDArray[np.float32]) -> Stitcher:
        return Stitcher(frame, weights)

    return reconstruct(
        container,
        module.probe_of(scan).detach().cpu().numpy(),
        lambda x: predict_groups(module, torch.from_numpy(x), scan).cpu(),
        stitcher,
        lambda patches: patches.numpy(),
        one_patch_a_group=model.gridsize > 1 and not model.object_big,
        **options,
    )
