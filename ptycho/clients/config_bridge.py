"""Between the canonical configurations and the four that clients pass, both ways, as tables.

A `Link` ties one canonical field to the torch fields that carry it.  Every field of either side is linked, or
listed with the reason why not; canonical -> torch -> canonical gives back what went in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from ptycho.clients.accepted import reasons
from ptycho.clients.four_configs import (
    DataConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
)
from ptycho.config import settings as canonical
from ptycho.config.fields import describe_fields, shown
from ptycho.errors import ConfigError

Four = tuple[DataConfig, ModelConfig, TrainingConfig, InferenceConfig]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Link:
    """One canonical field and the torch fields that carry it.

    `to_ours` takes the torch values in order; `to_theirs` gives them back as a tuple in the same order.
    """

    ours: str
    theirs: tuple[str, ...]
    to_ours: Callable[..., Any]
    to_theirs: Callable[[Any], tuple[Any, ...]]


def _gridsize(grid_size: Any, group: Any) -> int:
    pair = tuple(grid_size) if isinstance(grid_size, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(side, int) for side in pair):
        raise ConfigError(f"DataConfig.grid_size = {grid_size!r}: must be a pair of integers (rows, columns)")
    rows, columns = pair
    if rows != columns:
        raise ConfigError(f"DataConfig.grid_size = {pair}: must be square; take ({rows}, {rows})")
    if group != rows * columns:
        raise ConfigError(f"DataConfig.C = {group!r}: must be {rows} x {columns} = {rows * columns}")
    return int(rows)


def _mask(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise ConfigError(f"ModelConfig.probe_mask = {shown(value)}: must be True, False or None")


def _nll_weight(nll: Any, weight: Any) -> Any:
    if not isinstance(nll, bool):
        raise ConfigError(f"TrainingConfig.nll = {shown(nll)}: must be True or False; see nll_weight")
    return weight if nll else 0.0


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) else value


def _same(ours: str, theirs: str, to_ours: Callable[[Any], Any] = lambda value: value) -> Link:
    return Link(ours, (theirs,), to_ours, lambda value: (value,))


def _renamed(ours: str, theirs: str, table: dict[str, str]) -> Link:
    """A choice under another name; of two torch names for one canonical, the first is written back."""
    back = {value: key for key, value in reversed(table.items())}

    def to_ours(value: Any) -> str:
        if not isinstance(value, str) or value not in table:
            known = ", ".join(repr(name) for name in table)
            raise ConfigError(f"{theirs} = {shown(value)}: must be one of {known}")
        return table[value]

    return Link(ours, (theirs,), to_ours, lambda value: (back.get(value, value),))


def _alike(ours: str, theirs: str, names: str) -> tuple[Link, ...]:
    return tuple(_same(f"{ours}.{name}", f"{theirs}.{name}") for name in names.split())


SCHEDULERS = {
    "Default": "Default",
    "Exponential": "Exponential",
    "Cosine": "WarmupCosine",
    "WarmupCosine": "WarmupCosine",
    "ReduceLROnPlateau": "ReduceLROnPlateau",
    "OneCycle": "OneCycle",
}
ACTIVATIONS = {
    "silu": "swish",
    "swish": "swish",
    "sigmoid": "sigmoid",
    "softplus": "softplus",
    "relu": "relu",
}
DEVICES = {"auto": "auto", "cuda": "auto", "gpu": "auto", "cpu": "cpu", "mps": "mps"}

MODEL_LINKS: tuple[Link, ...] = (
    *_alike("ModelConfig", "DataConfig", "N probe_scale"),
    Link(
        "ModelConfig.gridsize",
        ("DataConfig.grid_size", "DataConfig.C"),
        _gridsize,
        lambda side: ((side, side), side**2),
    ),
    _renamed(
        "ModelConfig.model_type", "ModelConfig.mode", {"Unsupervised": "pinn", "Supervised": "supervised"}
    ),
    _renamed("ModelConfig.amp_activation", "ModelConfig.amp_activation", ACTIVATIONS),
    _same("ModelConfig.probe_mask", "ModelConfig.probe_mask", _mask),
    *_alike("ModelConfig", "ModelConfig", "architecture n_filters_scale object_big probe_big"),
    *_alike("ModelConfig", "ModelConfig", "pad_object merge_window"),
    *_alike("ModelConfig", "ModelConfig", "probe_mask_sigma probe_mask_diameter gaussian_smoothing_sigma"),
    *_alike("ModelConfig", "ModelConfig", "reference rounds"),
)

_SHARED_DATA = "enable_oversampling neighbor_pool_size subsample_seed"

LOSS_MODE = _renamed(
    "TrainingConfig.torch_loss_mode", "ModelConfig.loss_function", {"Poisson": "poisson", "MAE": "mae"}
)

TRAINING_LINKS: tuple[Link, ...] = (
    _same("TrainingConfig.neighbor_count", "DataConfig.K"),
    *_alike("TrainingConfig", "DataConfig", _SHARED_DATA),
    *_alike("TrainingConfig", "DataConfig", "nphotons sequential_sampling positions_provided probe_modes"),
    *_alike("TrainingConfig", "ModelConfig", "probe_trainable intensity_scale_trainable"),
    Link(
        "TrainingConfig.torch_loss_mode",
        ("ModelConfig.loss_function", "TrainingConfig.torch_loss_mode"),
        lambda loss, mode: mode or LOSS_MODE.to_ours(loss),
        lambda mode: (*LOSS_MODE.to_theirs(mode), None),
    ),
    _same("TrainingConfig.nepochs", "TrainingConfig.epochs"),
    Link(
        "TrainingConfig.nll_weight",
        ("TrainingConfig.nll", "TrainingConfig.nll_weight"),
        _nll_weight,
        lambda weight: (weight > 0, weight),
    ),
    _renamed("TrainingConfig.scheduler", "TrainingConfig.scheduler", SCHEDULERS),
    _same("TrainingConfig.lr_warmup_epochs", "TrainingConfig.warmup_epochs"),
    _same("TrainingConfig.lr_min_ratio", "TrainingConfig.min_lr_ratio"),
    _same(
        "TrainingConfig.gradient_clip_val", "TrainingConfig.gradient_clip_val", lambda value: value or None
    ),
    *(
        _same(f"TrainingConfig.{n}_file", f"TrainingConfig.{n}_file", _path)
        for n in ("train_data", "test_data")
    ),
    _same("TrainingConfig.output_dir", "TrainingConfig.output_dir", _path),
    *_alike(
        "TrainingConfig", "TrainingConfig", "batch_size mae_weight realspace_mae_weight realspace_weight"
    ),
    *_alike(
        "TrainingConfig", "TrainingConfig", "n_groups n_images n_subsample backend debug seed val_fraction"
    ),
    *_alike(
        "TrainingConfig", "TrainingConfig", "optimizer momentum weight_decay gradient_clip_algorithm lr_gamma"
    ),
    *_alike("TrainingConfig", "TrainingConfig", "plateau_factor plateau_patience plateau_min_lr ema_decay"),
    *_alike("TrainingConfig", "TrainingConfig", "probe_from probe_refine_sweeps region_ratio max_time_s"),
    *_alike("TrainingConfig", "TrainingConfig", "start_from"),
    *_alike("TrainingConfig", "TrainingConfig", "objectives diagnostics stages more_train_data_files"),
)

INFERENCE_LINKS: tuple[Link, ...] = (
    _same("InferenceConfig.neighbor_count", "DataConfig.K"),
    *_alike("InferenceConfig", "DataConfig", _SHARED_DATA),
    *_alike("InferenceConfig", "InferenceConfig", "n_groups n_images n_subsample trained_scan debug backend"),
    *(_same(f"InferenceConfig.{n}", f"InferenceConfig.{n}", _path) for n in ("model_path", "test_data_file")),
    _same("InferenceConfig.output_dir", "InferenceConfig.output_dir", _path),
)

EXECUTION_LINKS: tuple[Link, ...] = (
    *_alike("PyTorchExecutionConfig", "TrainingConfig", "learning_rate num_workers accum_steps strategy"),
    _same("PyTorchExecutionConfig.devices", "TrainingConfig.n_devices"),
    Link(
        "PyTorchExecutionConfig.accelerator",
        ("TrainingConfig.device",),
        _renamed("PyTorchExecutionConfig.accelerator", "TrainingConfig.device", DEVICES).to_ours,
        lambda value: (value,),
    ),
    _same("PyTorchExecutionConfig.inference_batch_size", "InferenceConfig.batch_size"),
)

_RUNTIME = (
    "deterministic",
    "precision",
    "patterns",
    "pin_memory",
    "persistent_workers",
    "prefetch_factor",
    "enable_progress_bar",
    "enable_checkpointing",
    "checkpoint_every_s",
    "checkpoint_save_top_k",
    "checkpoint_monitor_metric",
    "checkpoint_mode",
    "early_stop_patience",
    "logger_backend",
    "mlflow_uri",
    "run_name",
    "log_throughput",
    "recon_log_every_n_epochs",
    "recon_log_num_patches",
    "recon_log_stitch",
)
_MODEL_REASON = "the model configuration has links of its own"
_OVERRIDE_REASON = "overrides the training configuration's, which is linked"
_RUNTIME_REASON = "describes the machine or the bookkeeping of one run; clients of this side have no setting"

OURS_UNMAPPED: dict[str, str] = {
    "TrainingConfig.model": _MODEL_REASON,
    "InferenceConfig.model": _MODEL_REASON,
    "PyTorchExecutionConfig.gradient_clip_val": _OVERRIDE_REASON,
    "PyTorchExecutionConfig.scheduler": _OVERRIDE_REASON,
    **{f"PyTorchExecutionConfig.{name}": _RUNTIME_REASON for name in _RUNTIME},
}
"""Canonical field -> why no torch field carries it."""

_STITCH_REASON = "how patches are stitched is an argument of reassembly, which ptycho_torch.api passes"
_SCAN_REASON = "done to the scan by ptycho_torch.api before the workflow sees it"
_TUNING_REASON = "stages after the main epochs, read by ptycho.clients.finetuning"
_TUNING = (
    "epochs_fine_tune",
    "fine_tune_gamma",
    "enable_staged_finetuning",
    *(field.name for field in dataclasses.fields(TrainingConfig) if field.name.startswith("finetune_")),
)
_TORCH_ONLY = {
    "DataConfig.probe_ramp_removal": _SCAN_REASON,
    "DataConfig.phase_subtraction": _SCAN_REASON,
    **{f"TrainingConfig.{name}": _TUNING_REASON for name in _TUNING},
    "TrainingConfig.notes": "free text, kept in the checkpoint only",
    "TrainingConfig.model_name": "free text, kept in the checkpoint only",
    "InferenceConfig.middle_trim": _STITCH_REASON,
    "InferenceConfig.patch_weighting": _STITCH_REASON,
}
_ACCEPTED = reasons()
THEIRS_UNMAPPED: dict[str, str] = {**_TORCH_ONLY, **_ACCEPTED}
"""Torch field -> why no canonical field carries it."""


def to_model_config(
    data: DataConfig, model: ModelConfig, overrides: Mapping[str, Any] | None = None
) -> canonical.ModelConfig:
    """The canonical model configuration; `overrides` (canonical names) win.

    Raises ConfigError for a value that has no canonical meaning.
    """
    parts = {"DataConfig": data, "ModelConfig": model}
    return _to_ours(canonical.ModelConfig, MODEL_LINKS, parts, overrides)


def to_training_config(
    model: canonical.ModelConfig,
    data: DataConfig,
    pt_model: ModelConfig,
    training: TrainingConfig,
    overrides: Mapping[str, Any] | None = None,
) -> canonical.TrainingConfig:
    """The canonical training configuration around `model`; `overrides` win.  Raises ConfigError."""
    parts = {"DataConfig": data, "ModelConfig": pt_model, "TrainingConfig": training}
    return _to_ours(canonical.TrainingConfig, TRAINING_LINKS, parts, overrides, model=model)


def to_inference_config(
    model: canonical.ModelConfig,
    data: DataConfig,
    inference: InferenceConfig,
    overrides: Mapping[str, Any] | None = None,
) -> canonical.InferenceConfig:
    """The canonical inference configuration around `model`; `overrides` win.  Raises ConfigError."""
    parts = {"DataConfig": data, "InferenceConfig": inference}
    return _to_ours(canonical.InferenceConfig, INFERENCE_LINKS, parts, overrides, model=model)


def to_execution_config(
    training: TrainingConfig,
    inference: InferenceConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> canonical.PyTorchExecutionConfig:
    """The execution configuration that a training configuration of this side implies; `overrides` win.

    'cuda' becomes 'auto', so that a machine without a GPU computes on its CPU.  One device runs in this
    process whatever the strategy, so that callbacks given by the caller are the ones that are called.
    Raises ConfigError.
    """
    parts = {"TrainingConfig": training, "InferenceConfig": inference or InferenceConfig()}
    more = {"strategy": "auto"} if training.n_devices == 1 else {}
    return _to_ours(canonical.PyTorchExecutionConfig, EXECUTION_LINKS, parts, {**more, **(overrides or {})})


def from_training_config(
    config: canonical.TrainingConfig,
    execution: canonical.PyTorchExecutionConfig | None = None,
    *,
    base: Four | None = None,
) -> Four:
    """The four torch configurations of a canonical training run.

    Fields without a canonical counterpart come from `base`, or are defaults.  What `execution` overrides
    (scheduler, gradient_clip_val) is taken from there.
    """
    parts = _parts(base)
    _to_theirs(config.model, MODEL_LINKS, parts)
    _to_theirs(config, TRAINING_LINKS, parts)
    if execution is not None:
        _to_theirs(execution, EXECUTION_LINKS, parts)
        for link in TRAINING_LINKS:
            name = link.ours.split(".")[1]
            if f"PyTorchExecutionConfig.{name}" in OURS_UNMAPPED and getattr(execution, name) is not None:
                _to_theirs(execution, (link,), parts)
    return parts["DataConfig"], parts["ModelConfig"], parts["TrainingConfig"], parts["InferenceConfig"]


def from_inference_config(
    config: canonical.InferenceConfig, *, base: Four | None = None
) -> tuple[DataConfig, ModelConfig, InferenceConfig]:
    """The torch configurations of a canonical inference run; `base` as in `from_training_config`."""
    parts = _parts(base)
    _to_theirs(config.model, MODEL_LINKS, parts)
    _to_theirs(config, INFERENCE_LINKS, parts)
    return parts["DataConfig"], parts["ModelConfig"], parts["InferenceConfig"]


_CHANNELS = ("ModelConfig.C_model", "ModelConfig.C_forward", "ModelConfig.decoder_last_amp_channels")


def settings_without_effect(*configs: Any) -> list[str]:
    """One line for every torch field that differs from its default and does nothing here, with the reason.

    Channel numbers that say the same as a DataConfig among the configurations are not named.
    """
    channels = [config.C for config in configs if isinstance(config, DataConfig)]
    lines = []
    for config in configs:
        for info in describe_fields(type(config)):
            key, value = f"{type(config).__name__}.{info.name}", getattr(config, info.name)
            if key in _CHANNELS and value in channels:
                continue
            if key in _ACCEPTED and value != info.default:
                lines.append(f"{key} = {shown(value)}: no effect: {_ACCEPTED[key]}")
    return lines


def _parts(base: Four | None) -> dict[str, Any]:
    if base is None:
        base = (DataConfig(), ModelConfig(), TrainingConfig(), InferenceConfig())
    return {type(config).__name__: dataclasses.replace(config) for config in base}


def _to_ours(
    cls: type[T],
    links: tuple[Link, ...],
    parts: Mapping[str, Any],
    overrides: Mapping[str, Any] | None,
    **more: Any,
) -> T:
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in overrides or {}:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"override {name!r} is no field of {cls.__name__}; nearest: {near!r}")
    values = dict(more)
    for link in links:
        name = link.ours.split(".")[1]
        if name not in (overrides or {}):
            values[name] = link.to_ours(*(_read(parts, path) for path in link.theirs))
    return cls(**{**values, **(overrides or {})})


def _read(parts: Mapping[str, Any], path: str) -> Any:
    owner, name = path.split(".")
    return getattr(parts[owner], name)


def _to_theirs(config: Any, links: tuple[Link, ...], parts: Mapping[str, Any]) -> None:
    for link in links:
        values = link.to_theirs(getattr(config, link.ours.split(".")[1]))
        for path, value in zip(link.theirs, values, strict=True):
            owner, name = path.split(".")
            setattr(parts[owner], name, value)
