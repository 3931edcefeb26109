"""The calls of ptychodus' Lightning plugin, line by line, for the tests that stand in for it."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as L
import numpy as np

from ptycho.scan.labels import cut_patches
from ptycho.scan.raw_data import RawData
from ptycho_torch.api.base_api import (
    ConfigManager,
    DataConfig,
    DatagenConfig,
    DataloaderFormats,
    InferenceConfig,
    InferenceEngine,
    ModelConfig,
    PtychoDataLoader,
    PtychoModel,
    Trainer,
    TrainingConfig,
)
from ptycho_torch.lightning_utils import find_best_checkpoint
from ptycho_torch.model import PtychoPINN_Lightning

HALF = 0.5  # an even patch's middle lies half a pixel before pixel N // 2


def centred(raw: RawData) -> RawData:
    """The same scan on an object whose middle is the middle of the positions, as the client makes it."""
    low, high = raw.positions_px.min(0) - HALF, raw.positions_px.max(0) - HALF
    width, height = (round(side) for side in low + high + 1)
    return RawData(**{**raw.as_arrays(), "objectGuess": raw.objectGuess[:height, :width]})


def export(raw: RawData, path: Path, **changes) -> Path:
    """A training file as ptychodus 1.7 writes it."""
    arrays = {
        "xcoords": raw.xcoords - HALF,
        "ycoords": raw.ycoords - HALF,
        "xcoords_start": raw.xcoords - HALF,
        "ycoords_start": raw.ycoords - HALF,
        "diff3d": raw.diff3d,
        "bad_pixels": np.zeros(raw.diff3d.shape[1:], bool),
        "probeGuess": raw.probe_modes,
        "objectGuess": raw.objectGuess,
        "scan_index": np.zeros(raw.n_positions, int),
    }
    np.savez(path, **{**arrays, **changes})
    return path


def labels_of(raw: RawData) -> np.ndarray:
    return cut_patches(raw.objectGuess, raw.positions_px, raw.N)


def manager(N: int = 32, grid: int = 1, mode: str = "Unsupervised", **training) -> ConfigManager:
    """Configurations as the plugin passes them, settings of its user aside; short and small."""
    settings = dict(
        epochs=2, batch_size=8, learning_rate=1e-3, n_devices=1, num_workers=4, device="cuda",
        strategy="ddp_spawn", framework="Lightning", orchestrator="Lightning", scheduler="Default",
        warmup_epochs=0, min_lr_ratio=0.1, gradient_clip_val=None, nll=True, probe_refine_sweeps=2,
    )  # fmt: skip
    return ConfigManager(
        data_config=DataConfig(N=N, C=grid**2, K=6, grid_size=(grid, grid)),
        model_config=ModelConfig(
            mode=mode, amp_activation="silu", cbam_encoder=True, C_model=grid**2, C_forward=grid**2,
            decoder_last_amp_channels=grid**2, intensity_scale_trainable=False, n_filters_scale=1,
        ),
        training_config=TrainingConfig(**{**settings, **training}),
        inference_config=InferenceConfig(batch_size=1000, middle_trim=32, patch_weighting="probe"),
        datagen_config=DatagenConfig(),
    )  # fmt: skip


class Losses(L.Callback):
    """What the plugin appends to the trainer's callbacks."""

    def __init__(self, train_name: str, val_name: str) -> None:
        self.names = (train_name, val_name)
        self.train, self.validation, self.epochs = [], [], 0

    def on_train_epoch_end(self, trainer, pl_module):
        value = trainer.callback_metrics.get(self.names[0])
        if value is not None:
            self.train.append((trainer.current_epoch, float(value)))
        self.epochs = trainer.current_epoch + 1

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            value = trainer.callback_metrics.get(self.names[1])
            if value is not None:
                self.validation.append((trainer.current_epoch, float(value)))


def train(folder: Path, output: Path, configs: ConfigManager) -> tuple[Path, Losses, PtychoDataLoader]:
    """The plugin's `run_train`, line by line; returns the checkpoint it finds."""
    loader = PtychoDataLoader(
        data_dir=folder,
        config_manager=configs,
        data_format=DataloaderFormats("lightning_only_module"),
        output_dir=output,
    )
    model = PtychoModel._new_model(model=PtychoPINN_Lightning, config_manager=configs)
    trainer = Trainer._from_lightning(
        model=model, dataloader=loader, orchestration="lightning", config_manager=configs
    )
    losses = Losses(model.model.loss_name, model.model.val_loss_name)
    trainer._trainer.callbacks.append(losses)
    trainer.train(orchestration="lightning", experiment_name="")
    checkpoint = find_best_checkpoint(Path(loader.output_dir))
    assert checkpoint is not None
    return checkpoint, losses, loader


def load(checkpoint: Path) -> tuple[PtychoModel, ConfigManager]:
    """The plugin's `_load_ptycho_model`."""
    data, model, training, inference = PtychoModel._extract_configs_from_checkpoint(str(checkpoint))
    configs = dict(model_config=model, data_config=data, training_config=training, inference_config=inference)
    made = PtychoModel(**configs)
    made.model = PtychoPINN_Lightning.load_from_checkpoint(checkpoint, **configs)
    manager = ConfigManager.from_loaded_model(made)
    manager.validate_arch_compatibility(made)
    return made, manager


def reconstruct(checkpoint: Path, raw: RawData, model: PtychoModel | None = None) -> np.ndarray:
    """The plugin's `run_reconstruct`; `model` exchanges the loaded one."""
    made, configs = load(checkpoint)
    engine = InferenceEngine(config_manager=configs, ptycho_model=model or made)
    loader = PtychoDataLoader.from_np(
        diff_patterns=raw.diff3d,
        probe=raw.probe_modes,
        positions=np.column_stack((raw.ycoords - HALF, raw.xcoords - HALF)),
        config_manager=configs,
    )
    return np.asarray(engine.predict_and_stitch(loader))
