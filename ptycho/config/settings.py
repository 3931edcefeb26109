"""The configuration dataclasses, mutable and plain, so that clients build, change and pickle them freely.

They are checked when a run starts (`ptycho.run.validation`), not when built: a client writes
`ModelConfig(N=0)` and sets N later. `None` and `Path()` mean "unused".
Clients import these names from `ptycho.config.config`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho.config.checks import field_problems, problem, raise_first
from ptycho.config.fields import option

DEFAULT_ARCHITECTURE = "swift"
SCHEDULERS = ("Default", "Exponential", "WarmupCosine", "ReduceLROnPlateau", "OneCycle")
CLIP_ALGORITHMS = ("norm", "value")
BACKENDS = ("pytorch", "tensorflow")


@dataclass
class ModelConfig:
    """What the network and its forward model are; stored in every bundle."""

    N: int = option(64, ge=32, multiple_of=2, help="side of a diffraction pattern and of a patch, px")
    gridsize: int = option(1, ge=1, le=8, help="a group holds gridsize^2 patterns")
    n_filters_scale: int = option(2, ge=1, help="multiplies the number of filters of every layer")
    model_type: str = option(
        "pinn", choices=("pinn", "supervised"), help="learn from diffraction alone, or from object patches"
    )
    architecture: str = option(
        DEFAULT_ARCHITECTURE,
        help="registered network: the default is the efficient one, 'cnn' is the literature's",
    )
    amp_activation: str = option(
        "sigmoid",
        choices=("sigmoid", "swish", "softplus", "relu"),
        synonyms={"silu": "swish"},
        help="last activation of the amplitude",
    )
    object_big: bool = option(True, help="one patch for each pattern of a group, merged where they overlap")
    probe_big: bool = option(True, help="the patch also fills the border outside its well-posed centre")
    probe_mask: bool = option(False, help="multiply the probe by a disk")
    probe_mask_sigma: float = option(1.0, ge=0, help="softness of the disk's edge, px")
    probe_mask_diameter: float | None = option(None, gt=0, help="diameter of the disk, px; None: from N")
    pad_object: bool = option(True, help="solve the central N/2 x N/2 of a patch, zeros or border outside")
    merge_window: str = option(
        "central",
        choices=("central", "probe", "uniform"),
        help="weight of a patch where the patches of a group overlap",
    )
    probe_scale: float = option(
        4.0, gt=0, help="probe gauge: an object of rms amplitude 2/probe_scale explains the mean pattern"
    )
    gaussian_smoothing_sigma: float = option(0.0, ge=0, help="Gaussian smoothing of the probe, px; 0: none")
    reference: str = option(
        "flat",
        choices=("flat", "coarse"),
        help="what the network corrects: a flat object, or the coarse image that all patterns give together",
    )
    rounds: int = option(
        1, ge=1, le=16, help="coarse: parts of the scan, each seen on the image that the parts before it gave"
    )


@dataclass
class TrainingConfig:
    """One training run: data, grouping, objective, optimisation; the same for both backends."""

    model: ModelConfig = option(ModelConfig, help="the network")
    train_data_file: Path | None = option(None, help="scan to train on")
    more_train_data_files: list[Any] | None = option(
        None, help="further scans to train on together, each with a probe and scale of its own"
    )
    test_data_file: Path | None = option(None, help="scan to test on")
    batch_size: int = option(16, ge=1, help="groups per step")
    nepochs: int = option(50, ge=1, help="passes over the training groups")
    mae_weight: float = option(0.0, ge=0, help="weight of the mean absolute error of diffraction amplitude")
    nll_weight: float = option(1.0, ge=0, help="weight of the Poisson negative log-likelihood")
    realspace_mae_weight: float = option(0.0, ge=0, help="weight of the mean absolute error in real space")
    realspace_weight: float = option(0.0, ge=0, help="weight of the total variation of the object")
    nphotons: float | None = option(None, gt=0, help="mean photons per pattern; None: from the data")
    n_groups: int | None = option(None, ge=1, help="groups to draw; None: one for every position")
    n_images: int | None = option(None, ge=1, help="deprecated alias of n_groups")
    n_subsample: int | None = option(None, ge=1, help="patterns kept of the scan before grouping; None: all")
    subsample_seed: int | None = option(None, ge=0, help="seed of subsampling and grouping; None: seed")
    neighbor_count: int = option(4, ge=0, help="nearest neighbours K from which a group is drawn")
    enable_oversampling: bool = option(False, help="allow more groups than positions")
    neighbor_pool_size: int | None = option(None, ge=1, help="pool to draw from when oversampling; None: K")
    positions_provided: bool = option(True, help="scan positions are known; False is not supported")
    probe_trainable: bool = option(False, help="train the probe")
    intensity_scale_trainable: bool = option(True, help="train the intensity scale")
    output_dir: Path = option(Path("training_outputs"), help="folder for everything the run writes")
    sequential_sampling: bool = option(False, help="take the first n_groups positions, not random ones")
    backend: str = option("pytorch", choices=BACKENDS, help="library that runs the network")
    torch_loss_mode: str = option("poisson", choices=("poisson", "mae"), help="data term on PyTorch")
    optimizer: str = option("adam", choices=("adam", "adamw", "sgd"), help="optimizer")
    momentum: float = option(0.9, ge=0, lt=1, help="momentum of sgd")
    weight_decay: float = option(0.0, ge=0, help="weight decay")
    gradient_clip_val: float | None = option(None, gt=0, help="largest gradient norm or value; None: any")
    gradient_clip_algorithm: str = option("norm", choices=CLIP_ALGORITHMS, help="clip by norm or by value")
    scheduler: str = option("Default", choices=SCHEDULERS, help="course of the learning rate; Default: flat")
    lr_gamma: float = option(0.95, gt=0, le=1, help="Exponential: factor per epoch")
    lr_warmup_epochs: int = option(2, ge=0, help="WarmupCosine: epochs of linear warm-up")
    lr_min_ratio: float = option(0.05, ge=0, le=1, help="WarmupCosine: last learning rate over the first")
    plateau_factor: float = option(0.5, gt=0, lt=1, help="ReduceLROnPlateau: factor of one reduction")
    plateau_patience: int = option(5, ge=0, help="ReduceLROnPlateau: epochs without progress before it")
    plateau_min_lr: float = option(1e-6, ge=0, help="ReduceLROnPlateau: smallest learning rate")
    ema_decay: float | None = option(
        None, gt=0, lt=1, help="validate and keep a moving average of the weights, e.g. 0.999; None: no"
    )
    debug: bool = option(False, help="more checks and more output")
    seed: int = option(0, ge=0, help="seed of weights, split and batch order")
    val_fraction: float = option(0.1, gt=0, lt=0.5, help="share of the groups kept for validation")
    probe_from: str = option(
        "refine", choices=("guess", "refine"), help="refine the file's probe in sweeps, or take it as it is"
    )
    probe_refine_sweeps: int = option(
        20, ge=1, help="sweeps of the iterative engine when probe_from is refine"
    )
    start_from: str = option(
        "scratch",
        choices=("scratch", "shipped"),
        help="weights to start from: new ones from the seed, or those of the network that ships",
    )
    probe_modes: int | None = option(None, ge=1, help="incoherent probe modes; None: as many as the file has")
    region_ratio: float = option(
        1.0,
        ge=0,
        le=1,
        help="share of steps on a block of neighbouring groups, judged by their common canvas",
    )
    max_time_s: float | None = option(None, gt=0, help="stop training after so many seconds; None: no limit")
    objectives: list[Any] | None = option(
        None, help="what is minimised, a list of modules; None: what the weights above say"
    )
    diagnostics: list[Any] | None = option(None, help="what is watched, a list of modules; None: the usual")
    stages: list[Any] | None = option(None, help="stages run one after another; None: nepochs of one kind")

    @property
    def train_data_files(self) -> tuple[Path, ...]:
        """Every scan to train on, in the order of their numbers."""
        first = () if self.train_data_file is None else (self.train_data_file,)
        return (*first, *map(Path, self.more_train_data_files or ()))


@dataclass
class InferenceConfig:
    """One reconstruction with a trained model."""

    model: ModelConfig = option(ModelConfig, help="the network; the bundle's own wins")
    model_path: Path | None = option(
        None, help="bundle wts.h5.zip, or its folder; None: the network that ships"
    )
    test_data_file: Path | None = option(None, help="scan to reconstruct")
    trained_scan: int | None = option(
        None, ge=0, help="which training scan's probe and scale it is seen with; None: the most similar"
    )
    n_groups: int | None = option(None, ge=1, help="groups to draw; None: one for every position")
    n_images: int | None = option(None, ge=1, help="deprecated alias of n_groups")
    n_subsample: int | None = option(None, ge=1, help="patterns kept of the scan before grouping; None: all")
    subsample_seed: int | None = option(None, ge=0, help="seed of subsampling and grouping; None: 0")
    neighbor_count: int = option(4, ge=0, help="nearest neighbours K from which a group is drawn")
    enable_oversampling: bool = option(False, help="allow more groups than positions")
    neighbor_pool_size: int | None = option(None, ge=1, help="pool to draw from when oversampling; None: K")
    debug: bool = option(False, help="more checks and more output")
    output_dir: Path = option(Path("inference_outputs"), help="folder for everything the run writes")
    backend: str = option("pytorch", choices=BACKENDS, help="library that runs the network")


@dataclass
class PyTorchExecutionConfig:
    """How the machine runs a PyTorch job; never part of a model; checked when built."""

    accelerator: str = option("auto", choices=("auto", "cpu", "gpu", "cuda", "mps"), help="where to compute")
    devices: int = option(1, ge=1, help="number of devices")
    strategy: str = option(
        "auto",
        choices=("auto", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_find_unused_parameters_true"),
        help="how several devices share the work",
    )
    deterministic: bool = option(True, help="the same seed gives the same weights")
    precision: str = option("32-true", choices=("32-true", "16-mixed", "bf16-mixed"), help="number format")
    gradient_clip_val: float | None = option(None, gt=0, help="overrides the training configuration's")
    accum_steps: int = option(
        1,
        ge=1,
        help="batches whose gradients are added before a step, of all devices; each takes at least one",
    )
    patterns: str = option(
        "auto",
        choices=("auto", "memory", "disk"),
        help="where patterns are kept; auto: on disk where they need over half of the free memory",
    )
    num_workers: int = option(0, ge=0, le=256, help="processes that load data; 0: this one")
    pin_memory: bool = option(False, help="page-locked memory, for faster copies to a GPU")
    persistent_workers: bool = option(False, help="keep the loading processes between epochs")
    prefetch_factor: int | None = option(None, ge=1, help="batches loaded ahead by each process")
    learning_rate: float = option(1e-3, gt=0, help="learning rate at its highest")
    scheduler: str | None = option(None, choices=SCHEDULERS, help="overrides the training configuration's")
    enable_progress_bar: bool = option(False, help="show Lightning's progress bar")
    enable_checkpointing: bool = option(True, help="keep checkpoints while training")
    checkpoint_every_s: float | None = option(
        None, gt=0, help="seconds between checkpoints within an epoch; None: after whole epochs only"
    )
    checkpoint_save_top_k: int = option(1, ge=-1, help="best checkpoints kept; -1: all, 0: none")
    checkpoint_monitor_metric: str = option("val_loss", help="metric that decides which checkpoint is best")
    checkpoint_mode: str = option("min", choices=("min", "max"), help="whether small or large is best")
    early_stop_patience: int = option(100, ge=1, help="epochs without progress before training stops")
    logger_backend: str = option(
        "csv",
        choices=("csv", "tensorboard", "mlflow", "none"),
        several=True,
        synonyms={None: "none"},
        help="where metrics are logged",
    )
    mlflow_uri: str | None = option(
        None, help="MLflow's store; None: MLFLOW_TRACKING_URI, else mlflow.db in output_dir"
    )
    run_name: str | None = option(None, help="how MLflow shows the run; None: the name of output_dir")
    log_throughput: bool = option(False, help="log patterns per second and peak memory as well")
    inference_batch_size: int | None = option(None, ge=1, help="groups per inference batch; None: by memory")
    recon_log_every_n_epochs: int | None = option(
        None, ge=1, help="epochs between logged patches; None: never"
    )
    recon_log_num_patches: int = option(4, ge=1, help="how many example patches are logged")
    recon_log_stitch: bool = option(False, help="log the stitched image as well")

    def __post_init__(self) -> None:
        problems = field_problems(self)
        if not problems and self.logger_backend != "none" and "none" in self.logger_backend.split(","):
            problems.append(problem(self, "logger_backend", "'none' stands alone: drop it or the others"))
        if not problems and self.patterns == "disk" and self.strategy == "ddp_spawn":
            must = "must be another where patterns = 'disk': processes started so cannot share the file"
            problems.append(problem(self, "strategy", must))
        if not problems and self.num_workers == 0:
            if self.persistent_workers:
                problems.append(problem(self, "persistent_workers", "needs num_workers >= 1"))
            if self.prefetch_factor is not None:
                problems.append(problem(self, "prefetch_factor", "needs num_workers >= 1"))
        raise_first(problems)


def resolve_n_groups(config: TrainingConfig | InferenceConfig) -> int | None:
    """The number of groups asked for, whichever name it was given under; None for one per position.

    Warns (DeprecationWarning) when the old name n_images is set; ConfigError when both are and they differ.
    """
    if config.n_images is None:
        return config.n_groups
    warnings.warn("n_images is the old name of n_groups: use n_groups", DeprecationWarning, stacklevel=2)
    if config.n_groups is not None and config.n_groups != config.n_images:
        raise problem(
            config, "n_images", f"n_groups = {config.n_groups} says otherwise: drop n_images, its old name"
        )
    return config.n_images
