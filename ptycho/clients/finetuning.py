"""Fine-tuning as ptychodus sets it: first the decoder, then the top of the encoder too, then everything.

The learning rates of its stages are factors on `learning_rate`, as `fine_tune_gamma` is. PyTorch runs them
after the main epochs, see `ptycho_torch.fit`.
"""

from __future__ import annotations

import math

from ptycho.clients.four_configs import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.networks.parts import PARTS
from ptycho.run.tuning import TuningStage


def stages_of(config: TrainingConfig) -> tuple[TuningStage, ...]:
    """The stages after the main epochs, in order; none where no setting asks for one.

    `epochs_fine_tune` epochs of everything at `fine_tune_gamma`, then the staged ones if they are enabled. A
    part whose factor is zero stands still. Raises ConfigError for a stage in which nothing moves.
    """
    stages: list[TuningStage] = []
    if config.epochs_fine_tune:
        stages.append(
            TuningStage("fine-tuning", config.epochs_fine_tune, dict.fromkeys(PARTS, config.fine_tune_gamma))
        )
    if config.enable_staged_finetuning:
        patience = config.finetune_early_stop_patience or None
        decoder = config.finetune_stage1_lr_decoder
        stages.append(
            TuningStage(
                "decoder",
                config.finetune_stage1_epochs,
                dict.fromkeys(("decoder", "amplitude_head", "phase_head"), decoder),
                patience,
            )
        )
        stages.append(
            TuningStage(
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
            stages.append(
                TuningStage(
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
    running = tuple(stage for stage in stages if stage.epochs)
    for stage in running:
        wrong = [part for part, factor in stage.factors.items() if not (0 <= factor < math.inf)]
        if wrong or not any(stage.factors.values()):
            raise ConfigError(
                f"fine-tuning stage {stage.name!r}: the learning rates {stage.factors} must be zero or more "
                "and not all zero - they are factors on learning_rate"
            )
    return running
