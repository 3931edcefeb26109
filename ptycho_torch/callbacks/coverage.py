"""How often each position was trained on, written when the run ends."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from ptycho.run.coverage import position_counts, write_coverage
from ptycho_torch.data import GroupBatches, GroupDataset

log = logging.getLogger(__name__)


class SamplerCoverage(Callback):
    """`coverage.npz` and its figure, from the order that the samplers of all processes share.

    Stands before the logs, which take the figure when training ends and then close.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written = False

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A resume of a run that was complete trains nothing, and ends here alone."""
        if not self._written:
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        self._written = True
        loader = trainer.train_dataloader
        sampler, dataset = getattr(loader, "sampler", None), getattr(loader, "dataset", None)
        if not trainer.is_global_zero or not isinstance(sampler, GroupBatches):
            return
        assert isinstance(dataset, GroupDataset)
        epochs = trainer.current_epoch
        counts = position_counts(sampler.plan, dataset.scans, epochs)
        least, most = write_coverage(self._directory, dataset.scans, counts, epochs=epochs)
        log.info("every position that trains was used %d to %d times in %d epochs", least, most, epochs)
