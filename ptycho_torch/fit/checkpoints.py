"""Checkpoints of a run, the best and the last. Files are whole or absent; what a resume needs is beside
them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from ptycho.errors import ConfigError, MissingFileError
from ptycho.io.atomic import atomic_write
from ptycho.io.checksums import check_zip
from ptycho.io.inputs import check_input
from ptycho.run.starting_probe import Starts
from ptycho.run.state import prepare
from ptycho_torch.fit.within_epoch import Place, place_of

log = logging.getLogger(__name__)

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints replaced by a rename in their own folder.

    Lightning writes to the system's temporary folder and moves the file. From another disk a move is a copy,
    which may be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # torch closes its archive after a failed write, and that complaint hides the failure
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

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


class BestAndLast(ModelCheckpoint):
    """Lightning's checkpoints, the last one after every epoch (Lightning's own writes it beside a new best
    only), in a folder that may be moved between a break and the resume."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Does nothing: the last epoch is written already, and the weights may now be the averaged ones."""

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state with the names of files alone: a checkpoint that is passed on tells no folder."""
        state = dict(super().state_dict())
        state["dirpath"] = "."
        for name in _PATHS:
            state[name] = Path(state[name]).name if state.get(name) else ""
        state["best_k_models"] = {Path(path).name: value for path, value in state["best_k_models"].items()}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        former, here = str(state_dict.get("dirpath")), str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(here) / Path(path).name) if path and str(Path(path).parent) == former else path

        state = dict(state_dict)
        state["dirpath"] = self.dirpath
        for name in _PATHS:
            state[name] = moved(state.get(name) or "")
        state["best_k_models"] = {moved(path): value for path, value in state["best_k_models"].items()}
        super().load_state_dict(state)


def tell_start(callbacks: Iterable[Any], starts: Starts, *, resumes: bool) -> None:
    """Tell the run's `RunStart`, where it has one, what it starts from."""
    for made in callbacks:
        if isinstance(made, RunStart):
            made.starts, made.resumes = starts, resumes


def fit_from(
    trainer: L.Trainer, module: L.LightningModule, loaders: tuple[Any, Any], resume: Path | None
) -> None:
    """Fit from the start, or from a checkpoint; the module then has its best weights. Reading runs no code.

    Raises KeyboardInterrupt where Lightning ended on Ctrl-C.
    """
    trainer.fit(
        module,
        *loaders,
        ckpt_path=str(resume) if resume else None,
        weights_only=True if resume else None,
    )
    if trainer.interrupted:
        raise KeyboardInterrupt
    restore_best(module, trainer)


def restore_best(module: L.LightningModule, trainer: L.Trainer) -> None:
    """Put the weights of the best checkpoint into the module, if checkpoints were kept and one was best."""
    checkpoint = trainer.checkpoint_callback
    best = getattr(checkpoint, "best_model_path", "")
    if best and Path(best).is_file() and getattr(checkpoint, "monitor", None) is not None:
        check_zip(Path(best))
        stored = torch.load(best, map_location="cpu", weights_only=True)
        module.load_state_dict(stored["state_dict"])
        log.info("weights of the best epoch taken from %s", best)


def check_checkpoint(path: Path, module: L.LightningModule) -> Place:
    """Where a checkpoint goes on. One that cannot go on as this run is refused, before anything starts;
    reading it runs no code."""
    if not check_input(path).is_file():
        raise MissingFileError(f"{path}: no such checkpoint")
    try:
        check_zip(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: value.shape for name, value in stored["state_dict"].items()}
    except Exception as error:  # torch raises whatever its reader stumbled over
        raise ConfigError(f"{path}: cannot be read as a checkpoint ({type(error).__name__})") from None
    own = {name: value.shape for name, value in module.state_dict().items()}
    if found != own:
        raise ConfigError(
            f"{path}: does not belong to this run (another network, N, gridsize or number of probe modes) - "
            "resume with the config.yaml beside it"
        )
    return place_of(stored)
