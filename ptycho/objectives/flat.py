"""The weights of the data terms as the flat settings give them."""

from __future__ import annotations

from ptycho.config.config import TrainingConfig


def term_weights(config: TrainingConfig) -> dict[str, float]:
    """Weights of the two data terms; `torch_loss_mode` mae exchanges likelihood for amplitude error."""
    if config.torch_loss_mode == "mae":
        return {"poisson": 0.0, "mae": config.mae_weight or 1.0}
    return {"poisson": config.nll_weight, "mae": config.mae_weight}
