"""How fast a run is and how much memory it takes: in its logs, never in its history, which repeats."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback

from ptycho.io.resources import GPU_MEMORY, MEMORY, RATE, peak_memory_gib
from ptycho_torch.callbacks.tracking import Row


class Throughput(Callback):
    """Adds patterns per second of training (all processes together, validation not counted) and peak memory
    (GiB, mean over processes) to the row of the epoch; stands between history and logs."""

    def __init__(self, history: Row) -> None:
        self._history = history
        self._patterns, self._begun, self._ended = 0, 0.0, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._patterns, self._begun = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._patterns += batch["x"].shape[0] * batch["x"].shape[1]
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self._ended = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seconds = max(self._ended - self._begun, 1e-9)
        found = {RATE: self._patterns / seconds, MEMORY: peak_memory_gib()}
        if pl_module.device.type == "cuda":
            found[GPU_MEMORY] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
        values = torch.tensor(list(found.values()), device=pl_module.device, dtype=torch.float32)
        total = trainer.strategy.reduce(values, reduce_op="sum")
        assert isinstance(total, torch.Tensor)
        for name, value in zip(found, total.tolist(), strict=True):
            self._history.row[name] = value if name == RATE else value / trainer.world_size
