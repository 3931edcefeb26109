"""The moving average of the weights. The average is validated and saved; the optimiser moves the weights."""

from __future__ import annotations

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class ExponentialAverage(WeightAveraging):
    """Lightning's weight averaging; after n updates the average forgets by min(decay, (1 + n) / (10 + n)).

    The first update copies. The ramp lets even a short run forget its starting weights (as in
    tf.train.ExponentialMovingAverage). Validation, `state_dict` of checkpoints and the module after the fit
    have the averaged weights; a checkpoint holds the optimiser's under `current_model_state`, for a resume.
    Memory: the model once more.
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: Tensor, now: Tensor, updates: Tensor | int) -> Tensor:
            n = torch.as_tensor(updates, device=averaged.device, dtype=torch.float64)
            forget = 1 - torch.clamp((1 + n) / (10 + n), max=decay)
            # as a step, so that what does not train stays what it is to the bit
            return averaged + forget.to(averaged.dtype) * (now - averaged)

        super().__init__(use_buffers=False, avg_fn=average)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # the module itself is moved there later
        super().setup(trainer, pl_module, stage)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A resume of a run that was complete trains nothing, and ends here as well."""
        if self._average_model is not None:
            self._copy_average_to_current(pl_module)
