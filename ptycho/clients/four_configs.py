"""The configurations that the Lightning module takes, with every keyword that ptychodus passes.

They stand beside the canonical dataclasses of `ptycho.config.settings`; `config_bridge` translates. A field
with a canonical counterpart is the `same`: its default, limits and help. A field whose help begins with
"accepted" has no effect: the bridge lists the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho.clients.accepted import accepting
from ptycho.clients.synonyms import synonyms
from ptycho.config import settings
from ptycho.config.fields import option, same
from ptycho.config.settings import BACKENDS

ACTIVATIONS = ("silu", "sigmoid", "swish", "softplus", "relu")
TORCH_SCHEDULERS = ("Default", "Exponential", "Cosine", "WarmupCosine", "ReduceLROnPlateau", "OneCycle")


@dataclass
@accepting("DataConfig")
class DataConfig:
    """What is solved together and how the data are scaled."""

    N: int = same(settings.ModelConfig, "N")
    C: int = option(0, ge=0, help="patterns per group; 0: rows x columns of grid_size")
    grid_size: tuple[int, int] = option((1, 1), help="rows and columns of a group; must be equal")
    K: int = same(settings.TrainingConfig, "neighbor_count")
    nphotons: float | None = same(settings.TrainingConfig, "nphotons")
    probe_scale: float = same(settings.ModelConfig, "probe_scale")
    enable_oversampling: bool = same(settings.TrainingConfig, "enable_oversampling")
    neighbor_pool_size: int | None = same(settings.TrainingConfig, "neighbor_pool_size")
    subsample_seed: int | None = same(settings.TrainingConfig, "subsample_seed")
    sequential_sampling: bool = same(settings.TrainingConfig, "sequential_sampling")
    positions_provided: bool = same(settings.TrainingConfig, "positions_provided")
    probe_modes: int | None = same(settings.TrainingConfig, "probe_modes")
    probe_ramp_removal: bool = option(False, help="take the phase ramp out of the starting probe")
    phase_subtraction: bool = option(True, help="take the mean phase out of supervised labels")

    def __post_init__(self) -> None:
        if self.C == 0 and isinstance(self.grid_size, (tuple, list)) and len(self.grid_size) == 2:
            self.C = self.grid_size[0] * self.grid_size[1]


@dataclass
@accepting("ModelConfig")
class ModelConfig:
    """The network and its forward model."""

    mode: str = option("Unsupervised", choices=("Unsupervised", "Supervised"), help="what is learned from")
    architecture: str = same(settings.ModelConfig, "architecture")
    object_big: bool = same(settings.ModelConfig, "object_big")
    probe_big: bool = same(settings.ModelConfig, "probe_big")
    pad_object: bool = same(settings.ModelConfig, "pad_object")
    merge_window: str = same(settings.ModelConfig, "merge_window")
    loss_function: str = option("Poisson", choices=("Poisson", "MAE"), help="data term")
    amp_activation: str = option("sigmoid", choices=ACTIVATIONS, help="last activation of the amplitude")
    n_filters_scale: int = same(settings.ModelConfig, "n_filters_scale")
    intensity_scale_trainable: bool = same(settings.TrainingConfig, "intensity_scale_trainable")
    probe_trainable: bool = same(settings.TrainingConfig, "probe_trainable")
    probe_mask: bool | None = option(None, help="multiply the probe by a disk; None: no")
    probe_mask_sigma: float = same(settings.ModelConfig, "probe_mask_sigma")
    probe_mask_diameter: float | None = same(settings.ModelConfig, "probe_mask_diameter")
    gaussian_smoothing_sigma: float = same(settings.ModelConfig, "gaussian_smoothing_sigma")
    reference: str = same(settings.ModelConfig, "reference")
    rounds: int = same(settings.ModelConfig, "rounds")


@synonyms(lr_warmup_epochs="warmup_epochs", lr_min_ratio="min_lr_ratio")
@dataclass
@accepting("TrainingConfig")
class TrainingConfig:
    """One training run, and the machine it runs on."""

    epochs: int = same(settings.TrainingConfig, "nepochs")
    batch_size: int = same(settings.TrainingConfig, "batch_size")
    learning_rate: float = same(settings.PyTorchExecutionConfig, "learning_rate")
    nll: bool = option(True, help="whether the Poisson likelihood counts")
    nll_weight: float = option(1.0, ge=0, help="its weight where it counts")
    mae_weight: float = same(settings.TrainingConfig, "mae_weight")
    realspace_mae_weight: float = same(settings.TrainingConfig, "realspace_mae_weight")
    realspace_weight: float = same(settings.TrainingConfig, "realspace_weight")
    train_data_file: Path | None = same(settings.TrainingConfig, "train_data_file")
    more_train_data_files: list[Any] | None = same(settings.TrainingConfig, "more_train_data_files")
    test_data_file: Path | None = same(settings.TrainingConfig, "test_data_file")
    output_dir: Path = same(settings.TrainingConfig, "output_dir")
    n_groups: int | None = same(settings.TrainingConfig, "n_groups")
    n_images: int | None = same(settings.TrainingConfig, "n_images")
    n_subsample: int | None = same(settings.TrainingConfig, "n_subsample")
    optimizer: str = same(settings.TrainingConfig, "optimizer")
    momentum: float = same(settings.TrainingConfig, "momentum")
    weight_decay: float = same(settings.TrainingConfig, "weight_decay")
    gradient_clip_val: float | None = option(None, ge=0, help="largest gradient; None or 0: any")
    gradient_clip_algorithm: str = same(settings.TrainingConfig, "gradient_clip_algorithm")
    scheduler: str = option("Default", choices=TORCH_SCHEDULERS, help="course of the learning rate")
    warmup_epochs: int = same(settings.TrainingConfig, "lr_warmup_epochs")
    min_lr_ratio: float = same(settings.TrainingConfig, "lr_min_ratio")
    lr_gamma: float = same(settings.TrainingConfig, "lr_gamma")
    plateau_factor: float = same(settings.TrainingConfig, "plateau_factor")
    plateau_patience: int = same(settings.TrainingConfig, "plateau_patience")
    plateau_min_lr: float = same(settings.TrainingConfig, "plateau_min_lr")
    ema_decay: float | None = same(settings.TrainingConfig, "ema_decay")
    seed: int = same(settings.TrainingConfig, "seed")
    val_fraction: float = same(settings.TrainingConfig, "val_fraction")
    probe_from: str = same(settings.TrainingConfig, "probe_from")
    probe_refine_sweeps: int = same(settings.TrainingConfig, "probe_refine_sweeps")
    start_from: str = same(settings.TrainingConfig, "start_from")
    region_ratio: float = same(settings.TrainingConfig, "region_ratio")
    max_time_s: float | None = same(settings.TrainingConfig, "max_time_s")
    objectives: list[Any] | None = same(settings.TrainingConfig, "objectives")
    diagnostics: list[Any] | None = same(settings.TrainingConfig, "diagnostics")
    stages: list[Any] | None = same(settings.TrainingConfig, "stages")
    debug: bool = same(settings.TrainingConfig, "debug")
    backend: str = option("pytorch", choices=BACKENDS, help="kept so that a round trip loses nothing")
    device: str = option(
        "auto", choices=("auto", "cuda", "gpu", "cpu", "mps"), help="cuda falls back to the CPU"
    )
    n_devices: int = option(1, ge=1, help="number of devices")
    strategy: str = option("auto", help="how several devices share the work; one device runs in this process")
    num_workers: int = same(settings.PyTorchExecutionConfig, "num_workers")
    accum_steps: int = same(settings.PyTorchExecutionConfig, "accum_steps")
    torch_loss_mode: str | None = option(
        None, choices=("poisson", "mae"), help="data term; None: as ModelConfig.loss_function says"
    )
    notes: str = option("", help="free text")
    model_name: str = option("", help="free text")
    epochs_fine_tune: int = option(0, ge=0, help="epochs of everything after the main ones")
    fine_tune_gamma: float = option(0.1, ge=0, help="their learning rate, as a factor on learning_rate")
    enable_staged_finetuning: bool = option(False, help="stages after the main epochs, part by part")
    finetune_stage1_epochs: int = option(7, ge=0, help="epochs of stage 1: the decoder")
    finetune_stage2_epochs: int = option(7, ge=0, help="epochs of stage 2: top of the encoder, decoder")
    finetune_stage3_epochs: int = option(5, ge=0, help="epochs of stage 3: everything")
    finetune_stage1_lr_decoder: float = option(0.1, ge=0, help="factor on learning_rate in stage 1")
    finetune_stage2_lr_encoder_top: float = option(0.01, ge=0, help="factor on learning_rate in stage 2")
    finetune_stage2_lr_decoder: float = option(0.05, ge=0, help="factor on learning_rate in stage 2")
    finetune_stage2_lr_phase_head: float = option(0.1, ge=0, help="factor on learning_rate in stage 2")
    finetune_stage3_lr_encoder_bottom: float = option(0.005, ge=0, help="factor on learning_rate in stage 3")
    finetune_stage3_lr_encoder_top: float = option(0.01, ge=0, help="factor on learning_rate in stage 3")
    finetune_stage3_lr_decoder: float = option(0.02, ge=0, help="factor on learning_rate in stage 3")
    finetune_stage3_lr_phase_head: float = option(0.05, ge=0, help="factor on learning_rate in stage 3")
    finetune_skip_stage3: bool = option(True, help="end after stage 2")
    finetune_early_stop_patience: int = option(3, ge=0, help="epochs without progress that end a stage")
    finetune_val_split: float = option(
        0.05, ge=0, le=1, help="val_fraction of a run with stages, in the main epochs too; 0: val_fraction"
    )


@dataclass
@accepting("InferenceConfig")
class InferenceConfig:
    """One reconstruction with a trained model."""

    batch_size: int | None = option(None, ge=1, help="groups per batch; None: by memory")
    middle_trim: int | None = option(
        None, ge=0, help="side of the window stitched from a patch, px; None or 0: what the probe lights"
    )
    patch_weighting: str = option(
        "probe", choices=("probe", "uniform"), help="weight of a patch when stitched"
    )
    model_path: Path | None = same(settings.InferenceConfig, "model_path")
    test_data_file: Path | None = same(settings.InferenceConfig, "test_data_file")
    output_dir: Path = same(settings.InferenceConfig, "output_dir")
    n_groups: int | None = same(settings.InferenceConfig, "n_groups")
    n_images: int | None = same(settings.InferenceConfig, "n_images")
    n_subsample: int | None = same(settings.InferenceConfig, "n_subsample")
    trained_scan: int | None = same(settings.InferenceConfig, "trained_scan")
    debug: bool = same(settings.InferenceConfig, "debug")
    backend: str = option("pytorch", choices=BACKENDS, help="kept so that a round trip loses nothing")


@dataclass
class DatagenConfig:
    """Data generation; `ptycho.simulation` has its own arguments, so this is empty and only accepted."""
