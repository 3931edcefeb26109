"""The learning rate of every part of the network, where an optimiser has several groups."""

from __future__ import annotations

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from ptycho_torch.training import History


class LearningRates(Callback):
    """Adds `learning_rate/PART` at the end of every epoch to history and logs; one group alone is
    `learning_rate`, which the history has. Stands right after the history."""

    def __init__(self, history: History) -> None:
        self._history = history

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        groups = trainer.optimizers[0].param_groups
        if len(groups) < 2:
            return
        for number, group in enumerate(groups):
            name = f"learning_rate/{group.get('name', f'group_{number}')}"
            self._history.row[name] = float(group["lr"])
            self._history.epochs.setdefault(name, []).append(float(group["lr"]))
