"""A model as the client holds it: new, or from one checkpoint that holds everything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from ptycho.clients.checkpoints import find_best_checkpoint, four_of
from ptycho.clients.config_manager import ConfigManager
from ptycho.clients.four_configs import DataConfig, InferenceConfig, ModelConfig, TrainingConfig
from ptycho.errors import ConfigError, MissingFileError
from ptycho.io.checksums import check_zip
from ptycho_torch.model import PtychoPINN_Lightning

_ORDER = ("data_config", "model_config", "training_config", "inference_config")


class PtychoModel:
    """The Lightning module under `model`, and the four configurations it was made from."""

    def __init__(
        self,
        model_config: ModelConfig | None = None,
        data_config: DataConfig | None = None,
        training_config: TrainingConfig | None = None,
        inference_config: InferenceConfig | None = None,
        model: PtychoPINN_Lightning | None = None,
    ) -> None:
        self.model_config = model_config
        self.data_config = data_config
        self.training_config = training_config
        self.inference_config = inference_config
        self.model = model

    @property
    def module(self) -> PtychoPINN_Lightning:
        """The module; ConfigError where none was made or loaded yet."""
        if self.model is None:
            raise ConfigError("no model: make one with _new_model or load a checkpoint")
        return self.model

    @classmethod
    def _new_model(cls, model: type[PtychoPINN_Lightning], config_manager: ConfigManager) -> PtychoModel:
        """An untrained model; made after the loader, which settles N. A scan is attached when it trains."""
        config_manager.settle()
        configs = (
            config_manager.model_config,
            config_manager.data_config,
            config_manager.training_config,
            config_manager.inference_config,
        )
        return cls(*configs, model(*configs))

    @staticmethod
    def _extract_configs_from_checkpoint(
        checkpoint_path: str | Path,
    ) -> tuple[DataConfig, ModelConfig, TrainingConfig, InferenceConfig]:
        """(data, model, training, inference) configuration of a checkpoint; reading it runs no code.

        Raises MissingFileError, or ConfigError for a file that is no checkpoint of this package.
        """
        path = Path(checkpoint_path)
        if not path.is_file():
            raise MissingFileError(f"{path}: no such checkpoint")
        try:
            check_zip(path)
            stored = four_of(torch.load(path, map_location="cpu", weights_only=True)["hyper_parameters"])
            made = tuple(stored[name] for name in _ORDER)
        except Exception as error:  # torch raises whatever its reader stumbled over
            raise ConfigError(
                f"{path}: is no checkpoint of this package ({type(error).__name__}); it must be a .ckpt that "
                "ptycho_torch trained"
            ) from None
        return made[0], made[1], made[2], made[3]

    @classmethod
    def _load(
        cls,
        config_manager: ConfigManager | None = None,
        strategy: str = "lightning",
        run_path: str | Path = ".",
        model_class: type[PtychoPINN_Lightning] = PtychoPINN_Lightning,
    ) -> PtychoModel:
        """The model of a checkpoint, or the best in a run's folder; the checkpoint's configurations count.

        Kept for ptychodus 1.3.2, whose `config_manager` is not the model's.
        """
        path = Path(run_path)
        found = find_best_checkpoint(path) if path.is_dir() else path
        if found is None:
            raise MissingFileError(f"{path} holds no checkpoint (*.ckpt)")
        data, model, training, inference = cls._extract_configs_from_checkpoint(found)
        return cls(model, data, training, inference, model_class.load_from_checkpoint(found))

    def save(
        self, path: str | Path, source_run_path: str | Path | None = None, strategy: str = "lightning"
    ) -> Path:
        """Copy the best checkpoint of a run to `path`: that one file is the whole model."""
        found = find_best_checkpoint(Path(source_run_path)) if source_run_path is not None else None
        if found is None:
            raise MissingFileError(f"{source_run_path} holds no checkpoint (*.ckpt): nothing to save")
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, target)
        return target


def as_module(model: PtychoModel | Any) -> PtychoPINN_Lightning:
    """The Lightning module of what a client passes as its model."""
    return model if isinstance(model, PtychoPINN_Lightning) else model.module
