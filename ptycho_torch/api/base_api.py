"""The names that ptychodus' Lightning plugin imports, 1.3.2 to 1.7; each a thin cover over the workflow.

| call of the client | what runs |
|---|---|
| `PtychoDataLoader(data_dir, ...)`, `.from_np(...)` | `ptycho.scan.raw_data.RawData` |
| `PtychoModel._new_model(...)` | `ptycho_torch.model.PtychoPINN_Lightning` |
| `Trainer._from_lightning(...)`, `.train()` | `ptycho_torch.fit` |
| `InferenceEngine.predict_and_stitch(...)` | `ptycho.workflows.infer.infer` |
"""

from __future__ import annotations

from ptycho.clients.config_manager import ConfigManager
from ptycho.clients.dataloader import DataloaderFormats, PtychoDataLoader
from ptycho.clients.four_configs import (
    DataConfig,
    DatagenConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
)
from ptycho_torch.api.engines import InferenceEngine, Trainer
from ptycho_torch.api.models import PtychoModel

__all__ = [
    "ConfigManager",
    "DataConfig",
    "DataloaderFormats",
    "DatagenConfig",
    "InferenceConfig",
    "InferenceEngine",
    "ModelConfig",
    "PtychoDataLoader",
    "PtychoModel",
    "Trainer",
    "TrainingConfig",
]
