"""The configurations that the Lightning module takes, with every keyword that ptychodus passes.

They stand beside the canonical dataclasses of `ptycho.config.settings`; `config_bridge` translates.  Where a
field has a canonical counterpart its default is the canonical one.  A field whose help begins with "accepted"
has no effect: the bridge lists the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho.clients.accepted import accepting
from ptycho.clients.synonyms import synonyms
from ptycho.config.fields import option
from ptycho.config.settings import BACKENDS, CLIP_ALGORITHMS, DEFAULT_ARCHITECTURE

ACTIVATIONS = ("silu", "sigmoid", "swish", "softplus", "relu")
TORCH_SCHEDULERS = ("Default", "Exponential", "Cosine", "WarmupCosine", "ReduceLROnPlateau", "OneCycle")


@dataclass
@accepting("DataConfig")
class DataConfig:
    """What is solved together and how the data are scaled."""

    N: int = option(64, ge=32, multiple_of=2, help="side of a diffraction pattern, px")
    C: int = option(0, ge=0, help="patterns per group; 0: rows x columns of grid_size")
    grid_size: tuple[int, int] = option((1, 1), help="rows and columns of a group; must be equal")
    K: int = option(4, ge=0, help="nearest neighbours from which a group is drawn")
    nphotons: float | None = option(None, gt=0, help="mean photons per pattern; None: from the data")
    probe_scale: float = option(4.0, gt=0, help="gauge of the probe")
    enable_oversampling: bool = option(False, help="allow more groups than positions")
    neighbor_pool_size: int | None = option(None, ge=1, help="pool to draw from when oversampling; None: K")
    subsample_seed: int | None = option(None, ge=0, help="seed of subsampling and grouping")
    sequential_sampling: bool = option(False, help="take the first positions, not random ones")
    positions_provided: bool = option(True, help="scan positions are known; False is not supported")
    probe_modes: int | None = option(None, ge=1, help="incoherent probe modes; None: as in the file")
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
    architecture: str = option(DEFAULT_ARCHITECTURE, help="registered network")
    object_big: bool = option(True, help="one patch for each pattern of a group")
    probe_big: bool = option(True, help="the patch also fills the border outside its well-posed centre")
    pad_object: bool = option(True, help="solve the central N/2 x N/2 of a patch")
    merge_window: str = option(
        "central", choices=("central", "probe", "uniform"), help="weight of a patch where patches overlap"
    )
    loss_function: str = option("Poisson", choices=("Poisson", "MAE"), help="data term")
    amp_activation: str = option("sigmoid", choices=ACTIVATIONS, help="last activation of the amplitude")
    n_filters_scale: int = option(2, ge=1, help="multiplies the number of filters")
    intensity_scale_trainable: bool = option(True, help="train the intensity scale")
    probe_trainable: bool = option(False, help="train the probe")
    probe_mask: bool | None = option(None, help="multiply the probe by a disk; None: no")
    probe_mask_sigma: float = option(1.0, ge=0, help="softness of the disk's edge, px")
    probe_mask_diameter: float | None = option(None, gt=0, help="diameter of the disk, px; None: from N")
    gaussian_smoothing_sigma: float = option(0.0, ge=0, help="Gaussian smoothing of the probe, px")


@synonyms(lr_warmup_epochs="warmup_epochs", lr_min_ratio="min_lr_ratio")
@dataclass
@accepting("TrainingConfig")
class TrainingConfig:
    """One training run, and the machine it runs on."""

    epochs: int = option(50, ge=1, help="passes over the training groups")
    batch_size: int = option(16, ge=1, help="groups per step")
    learning_rate: float = option(1e-3, gt=0, help="learning rate at its highest")
    nll: bool = option(True, help="whether the Poisson likelihood counts")
    nll_weight: float = option(1.0, ge=0, help="its weight where it counts")
    mae_weight: float = option(0.0, ge=0, help="weight of the mean absolute error of diffraction amplitude")
    realspace_mae_weight: float = option(0.0, ge=0, help="weight of the mean absolute error in real space")
    realspace_weight: float = option(0.0, ge=0, help="weight of the total variation of the object")
    train_data_file: Path | None = option(None, help="scan to train on")
    more_train_data_files: list[Any] | None = option(None, help="further scans to train on together")
    test_data_file: Path | None = option(None, help="scan to test on")
    output_dir: Path = option(Path("training_outputs"), help="folder for everything the run writes")
    n_groups: int | None = option(None, ge=1, help="groups to draw; None: one for every position")
    n_images: int | None = option(None, ge=1, help="deprecated alias of n_groups")
    n_subsample: int | None = option(None, ge=1, help="patterns kept of the scan before grouping; None: all")
    optimizer: str = option("adam", choices=("adam", "adamw", "sgd"), help="optimizer")
    momentum: float = option(0.9, ge=0, lt=1, help="momentum of sgd")
    weight_decay: float = option(0.0, ge=0, help="weight decay")
    gradient_clip_val: float | None = option(None, ge=0, help="largest gradient; None or 0: any")
    gradient_clip_algorithm: str = option("norm", choices=CLIP_ALGORITHMS, help="clip by norm or by value")
    scheduler: str = option("Default", choices=TORCH_SCHEDULERS, help="course of the learning rate")
    warmup_epochs: int = option(2, ge=0, help="Cosine: epochs of linear warm-up")
    min_lr_ratio: float = option(0.05, ge=0, le=1, help="Cosine: last learning rate over the first")
    lr_gamma: float = option(0.95, gt=0, le=1, help="Exponential: factor per epoch")
    plateau_factor: float = option(0.5, gt=0, lt=1, help="ReduceLROnPlateau: factor of one reduction")
    plateau_patience: int = option(5, ge=0, help="ReduceLROnPlateau: epochs without progress before it")
    plateau_min_lr: float = option(1e-6, ge=0, help="ReduceLROnPlateau: smallest learning rate")
    ema_decay: float | None = option(None, gt=0, lt=1, help="moving average of the weights; None: no")
    seed: int = option(0, ge=0, help="seed of weights, split and batch order")
    val_fraction: float = option(0.1, gt=0, lt=0.5, help="share of the groups kept for validation")
    probe_from: str = option("refine", choices=("guess", "refine"), help="where the probe starts")
    probe_refine_sweeps: int = option(20, ge=1, help="sweeps of the iterative engine when it is refined")
    region_ratio: float = option(1.0, ge=0, le=1, help="share of steps on a block of neighbouring groups")
    max_time_s: float | None = option(None, gt=0, help="stop after so many seconds; None: no limit")
    objectives: list[Any] | None = option(None, help="what is minimised; None: what the weights say")
    diagnostics: list[Any] | None = option(None, help="what is watched; None: the usual")
    stages: list[Any] | None = option(None, help="stages run one after another; None: one")
    debug: bool = option(False, help="more checks and more output")
    backend: str = option("pytorch", choices=BACKENDS, help="kept so that a round trip loses nothing")
    device: str = option(
        "auto", choices=("auto", "cuda", "gpu", "cpu", "mps"), help="cuda falls back to the CPU"
    )
    n_devices: int = option(1, ge=1, help="number of devices")
    strategy: str = option("auto", help="how several devices share the work; one device runs in this process")
    num_workers: int = option(0, ge=0, help="processes that load data")
    accum_steps: int = option(1, ge=1, help="batches whose gradients are added before a step")
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
    model_path: Path | None = option(None, help="bundle wts.h5.zip, or the folder that holds it")
    test_data_file: Path | None = option(None, help="scan to reconstruct")
    output_dir: Path = option(Path("inference_outputs"), help="folder for everything the run writes")
    n_groups: int | None = option(None, ge=1, help="groups to draw; None: one for every position")
    n_images: int | None = option(None, ge=1, help="deprecated alias of n_groups")
    n_subsample: int | None = option(None, ge=1, help="patterns kept of the scan before grouping; None: all")
    trained_scan: int | None = option(
        None, ge=0, help="training scan whose probe and scale are used; None: the most similar"
    )
    debug: bool = option(False, help="more checks and more output")
    backend: str = option("pytorch", choices=BACKENDS, help="kept so that a round trip loses nothing")


@dataclass
class DatagenConfig:
    """Data generation; `ptycho.simulation` has its own arguments, so this is empty and only accepted."""
