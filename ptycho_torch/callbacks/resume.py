"""What a resume needs beyond Lightning: whole files, a probe that is not refined twice, patience and plateaus
that go on where they were."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from ptycho.io.atomic import atomic_write
from ptycho.io.checksums import check_zip
from ptycho.run.starting_probe import Starts
from ptycho.run.state import prepare


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints replaced by a rename in their own folder.

    Lightning moves a file from the system's folder for temporary files, which copies where that is another
    disk, and a copy may be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        check_zip(Path(path))
        found: dict[str, Any] = super().load_checkpoint(path, *arguments, **options)
        return found


class RunStart(Callback):
    """Sets the checkpoints of an earlier run aside and keeps the starting probes, before the first step."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.starts: Starts | None = None
        self.resumes = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and self.starts is not None:
            prepare(self._directory, self.starts, resumes=self.resumes)


class Patience(EarlyStopping):
    """Early stopping that a resume does not give another epoch: a run that had ended is over."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class Plateau(Callback):
    """Lowers the rate when the validation loss stops falling: torch's ReduceLROnPlateau, stepped before the
    checkpoint of the epoch is written. Lightning steps it after, and a resume would lose that step."""

    def __init__(self, monitor: str, **options: Any) -> None:
        self._monitor, self._options = monitor, options
        self._scheduler: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._known: dict[str, Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(trainer.optimizers[0], **self._options)
        if self._known is not None:
            self._scheduler.load_state_dict(self._known)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._scheduler is not None
        self._scheduler.step(float(trainer.callback_metrics[self._monitor]))

    def state_dict(self) -> dict[str, Any]:
        scheduler = self._scheduler
        return scheduler.state_dict() if scheduler is not None else (self._known or {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._known = dict(state_dict) or None


class BestAndLast(ModelCheckpoint):
    """Lightning's checkpoints, the last one after every epoch (Lightning's own writes it beside a new best
    only), in a folder that may be moved between a break and the resume."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing: the last epoch is written, and the weights may be the averaged ones by now."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        former, here = str(state_dict.get("dirpath")), str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(here) / Path(path).name) if path and str(Path(path).parent) == former else path

        state = dict(state_dict)
        state["dirpath"] = self.dirpath
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[name] = moved(state.get(name) or "")
        state["best_k_models"] = {moved(path): value for path, value in state["best_k_models"].items()}
        super().load_state_dict(state)


def tell_start(callbacks: Iterable[Any], starts: Starts, *, resumes: bool) -> None:
    """Tell the run's `RunStart`, where it has one, what it starts from."""
    for made in callbacks:
        if isinstance(made, RunStart):
            made.starts, made.resumes = starts, resumes
