"""Fine-tuning after the main epochs: which part of the network trains in which stage, and how fast.

The settings are those of ptychodus: first the decoder, then the top of the encoder with the decoder, then
everything. Their learning rates are factors on `learning_rate`, as `fine_tune_gamma` is. Stages follow the
main epochs in the same Lightning run, so that callbacks, checkpoints and resume see one run. They are not
those of `ptycho_torch.stages`, whose length in steps is known before: these end early without progress.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from ptycho.errors import ConfigError
from ptycho.networks.parts import PARTS
from ptycho_torch.config_params import TrainingConfig
from ptycho_torch.stages import Freezer, parameter_groups, parts

__all__ = ["Finetuning", "Stage", "parameter_groups", "parts", "stages_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One stage: at most `epochs` long, the learning rate of each part that trains as a share of the run's,
    and the epochs without progress that end it early (None: never)."""

    name: str
    epochs: int
    factors: dict[str, float]
    patience: int | None = None


def stages_of(config: TrainingConfig) -> tuple[Stage, ...]:
    """The stages after the main epochs, in order; none where no setting asks for one.

    `epochs_fine_tune` epochs of everything at `fine_tune_gamma`, then the staged ones if they are enabled. A
    part whose factor is zero stands still. Raises ConfigError for a stage in which nothing moves.
    """
    made: list[Stage] = []
    if config.epochs_fine_tune:
        made.append(
            Stage("fine-tuning", config.epochs_fine_tune, dict.fromkeys(PARTS, config.fine_tune_gamma))
        )
    if config.enable_staged_finetuning:
        patience = config.finetune_early_stop_patience or None
        decoder = config.finetune_stage1_lr_decoder
        made.append(
            Stage(
                "decoder",
                config.finetune_stage1_epochs,
                dict.fromkeys(("decoder", "amplitude_head", "phase_head"), decoder),
                patience,
            )
        )
        made.append(
            Stage(
                "encoder top",
                config.finetune_stage2_epochs,
                {
                    "encoder_top": config.finetune_stage2_lr_encoder_top,
                    "decoder": config.finetune_stage2_lr_decoder,
                    "amplitude_head": config.finetune_stage2_lr_decoder,
                    "phase_head": config.finetune_stage2_lr_phase_head,
                },
                patience,
            )
        )
        if not config.finetune_skip_stage3:
            rate = config.finetune_stage3_lr_decoder
            made.append(
                Stage(
                    "everything",
                    config.finetune_stage3_epochs,
                    {
                        "encoder_bottom": config.finetune_stage3_lr_encoder_bottom,
                        "encoder_top": config.finetune_stage3_lr_encoder_top,
                        "decoder": rate,
                        "amplitude_head": rate,
                        "phase_head": config.finetune_stage3_lr_phase_head,
                        "probe": rate,
                        "scale": rate,
                    },
                    patience,
                )
            )
    kept = tuple(stage for stage in made if stage.epochs)
    for stage in kept:
        wrong = [part for part, factor in stage.factors.items() if not (0 <= factor < math.inf)]
        if wrong or not any(stage.factors.values()):
            raise ConfigError(
                f"fine-tuning stage {stage.name!r}: the learning rates {stage.factors} must be zero or more "
                "and not all zero - they are factors on learning_rate"
            )
    return kept


class Finetuning(Callback):
    """Runs the stages after `main_epochs` epochs: freezes, sets learning rates, ends stages early.

    Its state is in the checkpoint, so that a resume goes on inside a stage. What was trainable before is
    trainable again when the run ends.
    """

    def __init__(self, stages: tuple[Stage, ...], main_epochs: int) -> None:
        self.stages = stages
        self._ends_main = main_epochs
        self.current = -1
        self._begun = 0
        self._best = math.inf
        self._waited = 0
        self._freezer = Freezer()

    @property
    def extra_epochs(self) -> int:
        """Most epochs that the stages can take."""
        return sum(stage.epochs for stage in self.stages)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch
        if self.current < 0:
            if epoch >= self._ends_main:
                self._enter(0, trainer)
        elif epoch > self._begun and self._is_over(epoch):
            self._enter(self.current + 1, trainer)
        if self.current >= 0:  # again after a resume, which restores no flags
            module: Any = pl_module
            factors = self.stages[self.current].factors
            self._freezer.only(module, [part for part, factor in factors.items() if factor > 0])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # at every step, because the schedulers of the main epochs go on writing theirs
        self._set_rates(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.current < 0:
            return
        self._set_rates(trainer, pl_module)
        value = trainer.callback_metrics.get("val_loss", trainer.callback_metrics.get("train_loss"))
        if value is not None and float(value) < self._best:
            self._best, self._waited = float(value), 0
        else:
            self._waited += 1
        if self.current == len(self.stages) - 1 and self._is_over(trainer.current_epoch + 1):
            trainer.should_stop = True

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._freezer.restore()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._freezer.restore()

    def state_dict(self) -> dict[str, Any]:
        return {
            "current": self.current,
            "begun": self._begun,
            "best": self._best,
            "waited": self._waited,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.current, self._begun = state_dict["current"], state_dict["begun"]
        self._best, self._waited = state_dict["best"], state_dict["waited"]

    def _is_over(self, epoch: int) -> bool:
        stage = self.stages[self.current]
        too_long = stage.patience is not None and self._waited >= stage.patience
        return epoch - self._begun >= stage.epochs or too_long

    def _enter(self, number: int, trainer: L.Trainer) -> None:
        self.current, self._begun = number, trainer.current_epoch
        self._best, self._waited = math.inf, 0
        stage = self.stages[number]
        said = ", ".join(f"{part} {factor:g}" for part, factor in stage.factors.items())
        log.info("stage %r from epoch %d, learning rate times: %s", stage.name, trainer.current_epoch, said)

    def _set_rates(self, trainer: L.Trainer, module: Any) -> None:
        if self.current < 0:
            return
        factors = self.stages[self.current].factors
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = module.learning_rate * factors.get(group["name"], 0.0)
