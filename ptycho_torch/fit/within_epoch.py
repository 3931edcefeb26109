"""Checkpoints in the middle of an epoch. A run that continues from one ends with the same bytes as a run
without a break.

(seed, epoch) determines the batches of an epoch, so a resume only needs the number of finished batches. The
sums of the epoch so far (losses, diagnostics) are in the checkpoint, for each process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ptycho.errors import ConfigError
from ptycho.run.state import LAST
from ptycho_torch.module import PtychoPINN


class Place(NamedTuple):
    """Where a run continues: the epoch, and the number of its batches that each process has finished."""

    epoch: int
    batches: int


def place_of(checkpoint: Mapping[str, Any]) -> Place:
    """Where the run of a Lightning checkpoint continues; the first batch if it has no record of loops."""
    loops = checkpoint.get("loops", {}).get("fit_loop")
    if loops is None:
        return Place(0, 0)
    epochs = loops["epoch_progress"]["current"]
    within = epochs["processed"] < epochs["ready"]
    batches = loops["epoch_loop.batch_progress"]["current"]["ready"] if within else 0
    return Place(int(epochs["processed"]), int(batches))


def check_processes(path: Path, devices: int) -> None:
    """ConfigError where a checkpoint was written within an epoch by another number of processes.

    Only the record of the sums is read, so this comes before any work; a file that cannot be read is left
    to the check of the whole checkpoint.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        sums = stored["callbacks"][WithinEpoch.__qualname__]["sums"]
    except Exception:  # torch raises whatever its reader stumbled over; no sums: after a whole epoch
        return
    if len(sums) != devices:
        raise _others(len(sums), devices)


def _others(wrote: int, devices: int) -> ConfigError:
    return ConfigError(
        f"devices = {devices}: the checkpoint was written within an epoch by {wrote}, each of which goes on "
        f"with its own batches; set devices to {wrote}"
    )


class WithinEpoch(Callback):
    """Replaces `last.ckpt` after an optimiser step, `every_s` seconds after the checkpoint before.

    The clock of the first process decides for all. After the last step of an epoch the checkpoint of the
    epoch is written instead. This callback must come after every callback that changes weights.
    """

    def __init__(self, module: PtychoPINN, folder: Path | None, every_s: float | None) -> None:
        self._watch = module.watching
        self._path = None if folder is None or every_s is None else folder / LAST["pytorch"]
        self._every_s = every_s or 0.0
        self._written = 0.0
        self._steps = 0
        self._saved: dict[str, Any] = {}
        self._known: dict[str, Tensor] = {}
        self._processes = 1

    def state_dict(self) -> dict[str, Any]:
        return self._saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._known = dict(zip(state_dict["names"], state_dict["sums"].unbind(1), strict=True))
            self._processes = len(state_dict["sums"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._known and self._processes != trainer.world_size:
            raise _others(self._processes, trainer.world_size)
        self._known = {name: values[trainer.global_rank] for name, values in self._known.items()}
        self._watch.add(self._known)
        self._written, self._steps = time.monotonic(), trainer.global_step

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._written = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._known:
            for name, value in metrics_of(trainer):
                if name in self._known:  # the bits of a sum do not depend on which of the two comes first
                    value += self._known[name].to(value)
            self._known = {}
        stepped, self._steps = trainer.global_step > self._steps, trainer.global_step
        if self._path is None or not stepped or trainer.is_last_batch or trainer.should_stop:
            return
        due = trainer.is_global_zero and time.monotonic() - self._written >= self._every_s
        if not trainer.strategy.reduce_boolean_decision(due, all=False):
            return
        self._saved = self._of_all(trainer)
        trainer.save_checkpoint(self._path)
        self._saved = {}
        self._written = time.monotonic()

    def _of_all(self, trainer: L.Trainer) -> dict[str, Any]:
        """Names, and the sums of every process (processes, names) float64."""
        held = {**dict(metrics_of(trainer)), **self._watch.sums()}
        device = trainer.strategy.root_device if trainer.world_size > 1 else torch.device("cpu")
        own = torch.stack([value.detach().to(device, torch.float64) for value in held.values()])
        sums = trainer.strategy.all_gather(own)
        return {"names": list(held), "sums": sums.reshape(-1, len(held)).cpu()}


def metrics_of(trainer: L.Trainer) -> Iterator[tuple[str, Tensor]]:
    """The sums of this epoch in Lightning's own metrics, by name. They may be changed in place."""
    for name, metric in (trainer._results or {}).items():
        for part in ("value", "cumulated_batch_size"):
            value = getattr(metric, part, None)
            if isinstance(value, Tensor):
                yield f"{name}.{part}", value
