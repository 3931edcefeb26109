"""The Lightning module: network, probe and scale, and the objective that ties them to the measured counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from ptycho.config.settings import TrainingConfig
from ptycho.forward.merging import group_views
from ptycho.forward.region import block_views
from ptycho.forward.seen import Seen, illumination
from ptycho.forward.terms import evaluate
from ptycho.models.trained_state import without_places
from ptycho.objectives.manifest import resolve
from ptycho.objectives.stages import Stage
from ptycho.run.tuning import TuningStage
from ptycho_torch.diagnostics import Watch
from ptycho_torch.imaging import Imaging
from ptycho_torch.optimizers import StagedRates, configure_optimizers
from ptycho_torch.refine.decoded_loss import decoded_deviance

__all__ = ["PtychoPINN"]


def plain(value: Any) -> Any:
    """Configuration values in a form that a checkpoint may hold: reading them runs no code."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


class PtychoPINN(Imaging, L.LightningModule):
    """Physics-informed network for one kind of scan, trained on diffraction alone (or on labels: supervised).

    Takes the canonical training configuration and the learning rate. `attach_scan` gives it the measured
    probe and the normalisation; all of it is stored in the checkpoint as plain numbers. `noted`: what the
    checkpoint holds instead of the configuration, where a client's model has others. With `attach_scans` it
    knows several scans, each with a probe and a scale of its own: `probe`, `log_scale`, `gauge` and
    `bad_pixels` then have a first axis over the scans, and whatever is asked without a number is of scan 0.

    forward: x (B, C, N, N) float32 in the gauge of `ptycho.scan.normalization` -> complex (B, C_out, N, N).
    """

    #: keys under which the objective is logged, for clients that follow a run by callback
    loss_name = "train_loss"
    val_loss_name = "val_loss"

    def __init__(
        self,
        config: TrainingConfig,
        learning_rate: float = 1e-3,
        *,
        tuning: tuple[TuningStage, ...] = (),
        noted: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        #: stages after the main epochs, where a client asks for them
        self.tuning = tuning
        told = plain(asdict(without_places(config)))  # a checkpoint that is passed on tells no folder
        self.save_hyperparameters(noted or {"config": told, "learning_rate": learning_rate})
        self.assemble(config)
        #: extent and object shape of the scans it was trained on, where a client told; kept in checkpoints
        self.trained_scans: list[dict[str, Any]] = []
        self.manifest = resolve(self.config)
        #: the learning rates of a run that has stages
        self.rates: StagedRates | None = None
        #: the stage that runs now, of a run that has stages
        self.stage: Stage | None = None
        self.watching = Watch(self.manifest.diagnostics)
        self.watching_validation = Watch(self.manifest.diagnostics)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Complex patches of one batch of groups."""
        patches: Tensor = self(batch["x"], batch.get("scan", 0), batch.get("reference"))
        return patches

    def views(self, patches: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """O'_k: what each pattern sees after the patches of its group, or of its region, were merged."""
        positions = batch["positions_xy"]
        lit = illumination(self.probe_of(batch.get("scan", 0)))
        reference = batch.get("reference")
        changed = patches if reference is None else patches - reference
        if batch["region"] and len(patches) > 1:
            made: Tensor = block_views(changed, positions, lit)
        else:
            made = group_views(changed, positions, self.config.model.merge_window, lit)
        return made if reference is None else made + reference

    # ---------------------------------------------------------------------------------------- the objective

    def decoded_deviance(self, seen: Seen, settings: Any) -> Tensor:
        """The term `decoded_positions`, see `ptycho_torch/refine/decoded_loss.py`."""
        return decoded_deviance(seen, settings)

    def terms(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Every term of the objective on one batch, and their weighted sum under `loss`."""
        return self._terms(Seen(self, batch))

    def _terms(self, seen: Seen) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, enabled=False):
            return evaluate(seen, self.manifest.active(self.stage))

    def _log_terms(self, terms: dict[str, Tensor], prefix: str, total: str, size: int) -> None:
        together = {f"{prefix}loss/{name}": value.detach() for name, value in terms.items() if name != "loss"}
        # Lightning takes the mean of the processes' weights as a whole number: of multiples it is exact
        size *= self.trainer.world_size if self._trainer is not None else 1
        self.log_dict(together, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        self.log(
            total,
            terms["loss"].detach(),
            on_step=False,
            on_epoch=True,
            batch_size=size,
            prog_bar=True,
            sync_dist=True,
        )

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step of either context; automatic optimisation does the rest."""
        seen = Seen(self, batch)
        terms = self._terms(seen)
        if batch.get("idle", False):  # another process trains on it; all must take as many steps
            self._log_terms(terms, "", self.loss_name, 0)
            return 0 * terms["loss"]
        self._log_terms(terms, "", self.loss_name, len(batch["x"]))
        self.watching.see(seen)
        return terms["loss"]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The same objective on held-out patterns."""
        seen = Seen(self, batch)
        judged = int(batch["counted"].sum())
        self._log_terms(self._terms(seen), "val/", self.val_loss_name, judged)
        if judged:  # or another process has it
            self.watching_validation.see(seen)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The gradient as it is before clipping."""
        self.watching.see_gradient(self.parameters())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return configure_optimizers(self)

    # ------------------------------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store which scans it was trained on, so that a client gets the same scan on the same canvas."""
        checkpoint["trained_scans"] = self.trained_scans

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the numbers of scans and of probe modes from the file instead of the constructor."""
        self.trained_scans = checkpoint.get("trained_scans", [])
        stored = checkpoint["state_dict"]
        for name in ("probe", "log_scale"):
            own = getattr(self, name)
            if stored[name].shape != own.shape:
                setattr(self, name, nn.Parameter(torch.zeros_like(stored[name]), own.requires_grad))
        for name in ("gauge", "bad_pixels", "guesses"):
            if name in stored:
                self.register_buffer(name, torch.zeros_like(stored[name]))
