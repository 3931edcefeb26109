"""The five configurations of a client as one thing, settled against the data and handed to the workflow."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ptycho import backends
from ptycho.clients import config_bridge as bridge
from ptycho.clients.four_configs import (
    DataConfig,
    DatagenConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
)
from ptycho.config.fields import shown
from ptycho.config.settings import InferenceConfig as OurInferenceConfig
from ptycho.config.settings import PyTorchExecutionConfig
from ptycho.config.settings import TrainingConfig as OurTrainingConfig
from ptycho.errors import ConfigError
from ptycho.run.reconstruction import PATTERNS_A_BATCH

log = logging.getLogger(__name__)


class Holds(Protocol):
    """What a client calls its model; see `ptycho_torch.api.models.PtychoModel`."""

    @property
    def module(self) -> Any:
        """The module, with its four configurations."""


#: what the client passes when its user changed nothing: named in the log, but no reason for a warning
_CLIENT_DEFAULTS = {"ModelConfig.cbam_encoder": True}


@dataclass
class ConfigManager:
    """The configurations of one run; the loader settles them, so that model and trainer see the same."""

    data_config: DataConfig = field(default_factory=DataConfig)
    model_config: ModelConfig = field(default_factory=ModelConfig)
    training_config: TrainingConfig = field(default_factory=TrainingConfig)
    inference_config: InferenceConfig = field(default_factory=InferenceConfig)
    datagen_config: DatagenConfig = field(default_factory=DatagenConfig)

    @classmethod
    def from_loaded_model(cls, ptycho_model: Holds) -> ConfigManager:
        """The configurations that a loaded model was trained with."""
        module = ptycho_model.module
        return cls(module.data_config, module.model_config, module.training_config, module.inference_config)

    def validate_arch_compatibility(self, ptycho_model: Holds) -> None:
        """Raise ConfigError where the network in the model is not the one these configurations describe."""
        asked = bridge.to_model_config(self.data_config, self.model_config)
        built = ptycho_model.module.config.model
        for name in ("N", "gridsize", "architecture", "n_filters_scale", "model_type", "object_big"):
            ours, theirs = getattr(asked, name), getattr(built, name)
            if ours != theirs:
                raise ConfigError(
                    f"the checkpoint's network has {name} = {shown(theirs)}, its configuration says "
                    f"{shown(ours)}: the checkpoint is damaged or was edited"
                )

    def settle(self, N: int | None = None) -> None:
        """Make the settings fit each other and patterns of N x N px; every change is said in the log.

        The size of the patterns wins over the size that was set, since a network of another size has nothing
        to learn from them. Without any data term amplitude errors count. Raises ConfigError.
        """
        data, training = self.data_config, self.training_config
        if N is not None and data.N != N:
            log.warning(
                "model size is set to %d, but the patterns are %d x %d px: %d is used", data.N, N, N, N
            )
            data.N = N
        likelihood = training.nll and training.nll_weight > 0
        others = (training.mae_weight, training.realspace_mae_weight, training.realspace_weight)
        if not likelihood and not any(others) and training.objectives is None:
            log.info("likelihood is switched off: amplitude errors are minimised")
            training.mae_weight = 1.0
        if training.enable_staged_finetuning and training.finetune_val_split > 0:
            if training.finetune_val_split >= 0.5:
                raise ConfigError(
                    f"finetune_val_split = {training.finetune_val_split}: must be below 0.5, more than half "
                    "of the patterns must train"
                )
            # one split for all stages: what was trained on before would not validate later
            training.val_fraction = training.finetune_val_split

    def announce(self) -> None:
        """Say once what the client set that has no effect here, and why; a warning where its user set it."""
        configs = (self.data_config, self.model_config, self.training_config, self.inference_config)
        lines = bridge.settings_without_effect(*configs)
        usual = tuple(f"{key} = {shown(value)}:" for key, value in _CLIENT_DEFAULTS.items())
        chosen = [line for line in lines if not line.startswith(usual)]
        for line in lines:
            if line not in chosen:
                log.info("%s", line)
        if chosen:
            log.warning("settings without effect: %s", "; ".join(chosen))

    def training(self, output_dir: Path) -> OurTrainingConfig:
        """The canonical training configuration, writing into `output_dir` (`Path()`: nothing)."""
        model = bridge.to_model_config(self.data_config, self.model_config)
        return bridge.to_training_config(
            model, self.data_config, self.model_config, self.training_config, {"output_dir": output_dir}
        )

    def inference(self) -> OurInferenceConfig:
        """The canonical inference configuration: every position once."""
        model = bridge.to_model_config(self.data_config, self.model_config)
        once = {"n_groups": None, "n_images": None, "n_subsample": None, "enable_oversampling": False}
        return bridge.to_inference_config(model, self.data_config, self.inference_config, once)

    def execution(self) -> PyTorchExecutionConfig:
        """How the machine runs it: one device of this process, patterns from memory.

        'cuda' without a GPU is the CPU, said once. Several devices would leave the client's callbacks in
        other processes, so one is used.
        """
        training = self.training_config
        has_gpu = backends.find("pytorch").has_gpu()
        if training.device in ("cuda", "gpu") and not has_gpu:
            log.info("device = %r: no GPU here, computing on the CPU", training.device)
        if training.n_devices > 1:
            log.warning("n_devices = %d: one device is used by this surface", training.n_devices)
        limit = self.inference_config.batch_size
        if limit is not None and not has_gpu:
            # on a CPU larger batches cost memory and give no speed
            limit = min(limit, max(1, PATTERNS_A_BATCH // max(1, self.data_config.C)))
        # the patterns are in memory already: loading processes would copy them
        alone: dict[str, Any] = {"devices": 1, "strategy": "auto", "num_workers": 0}
        return bridge.to_execution_config(
            training, self.inference_config, {**alone, "inference_batch_size": limit}
        )
