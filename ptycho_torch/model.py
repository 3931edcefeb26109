"""The module as clients make it, from four configurations, and open it, from one checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ptycho.clients import four_configs
from ptycho.clients.checkpoints import CLASSES, four_of, restored_config
from ptycho.clients.config_bridge import to_model_config, to_training_config
from ptycho.clients.finetuning import stages_of
from ptycho.errors import ConfigError
from ptycho.io.checksums import check_zip
from ptycho_torch.module import PtychoPINN, plain

__all__ = ["PtychoPINN_Lightning"]


class PtychoPINN_Lightning(PtychoPINN):
    """`ptycho_torch.module.PtychoPINN` with the clients' four configurations, which its checkpoints hold."""

    def __init__(
        self, model_config: Any, data_config: Any, training_config: Any, inference_config: Any = None
    ) -> None:
        given = (model_config, data_config, training_config)
        values = (*given, inference_config or four_configs.InferenceConfig())
        configs = {name: restored_config(name, value) for name, value in zip(CLASSES, values, strict=True)}
        network, data, training = (configs[name] for name in list(CLASSES)[:3])
        super().__init__(
            to_training_config(to_model_config(data, network), data, network, training),
            training.learning_rate,
            tuning=stages_of(training),
            noted={name: plain(asdict(value)) for name, value in configs.items()},
        )
        self.model_config, self.data_config, self.training_config = network, data, training
        self.inference_config = configs["inference_config"]

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> PtychoPINN_Lightning:
        """The module of a checkpoint, of a client's training or of this package's, with no further argument.

        Plain tensors and numbers only, so that reading it cannot run code. Raises ConfigError.
        """
        if not Path(checkpoint_path).is_file():
            raise ConfigError(f"{checkpoint_path}: no such checkpoint")
        kwargs["weights_only"] = True
        kwargs.setdefault("map_location", "cpu")
        if not all(name in kwargs for name in CLASSES):
            check_zip(Path(checkpoint_path))
            stored = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
            try:
                kwargs = {**four_of(stored["hyper_parameters"]), **kwargs}
            except (KeyError, TypeError):
                raise ConfigError(f"{checkpoint_path}: is no checkpoint of this package") from None
        made = super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        return made
