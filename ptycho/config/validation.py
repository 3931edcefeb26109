"""Validation of a configuration when a run starts: names the field, what it got, and what is allowed.

Values that only have the wrong clothes are put right in place (text to path, NumPy scalar to Python number);
everything else is a ConfigError of one line.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.config.fields import Unfit, all_fields, coerce, shown
from ptycho.errors import ConfigError, MissingFileError

if TYPE_CHECKING:
    from ptycho.config.config import InferenceConfig, ModelConfig, PyTorchExecutionConfig, TrainingConfig

Problem = ConfigError | MissingFileError


def validate_model_config(config: ModelConfig, *, architectures: Iterable[str] | None = None) -> None:
    """Check a model configuration.

    `architectures` are the known network names; None asks `ptycho.networks.graphs.available()`.
    Raises ConfigError with the first problem and the number of others.
    """
    _raise_first(_model_problems(config, architectures))


def validate_training_config(
    config: TrainingConfig, *, require_files: bool = True, architectures: Iterable[str] | None = None
) -> None:
    """Check a training configuration and the model configuration in it.

    With `require_files` the training file must be given and be there, and so must a test file that is given;
    without it (data come as arrays) paths are not looked at.
    Raises ConfigError, or MissingFileError where a file is the first problem.
    """
    problems = _model_problems(config.model, architectures)
    fields = _field_problems(config)
    problems += fields
    if not fields:
        problems += _grouping_problems(config)
        problems += _objective_problems(config)
        if not config.positions_provided:
            problems.append(_problem(config, "positions_provided", "not supported: positions are required"))
        if require_files:
            problems += _path_problems(config, "train_data_file", Path.is_file, "a file", required=True)
            problems += _more_files_problems(config)
            problems += _path_problems(config, "test_data_file", Path.is_file, "a file", required=False)
            problems += _output_problems(config)
    _raise_first(problems)


def validate_inference_config(
    config: InferenceConfig, *, require_files: bool = True, architectures: Iterable[str] | None = None
) -> None:
    """Check an inference configuration and the model configuration in it; as `validate_training_config`."""
    problems = _model_problems(config.model, architectures)
    fields = _field_problems(config)
    problems += fields
    if not fields:
        problems += _grouping_problems(config)
        if require_files:
            problems += _path_problems(
                config, "model_path", Path.exists, "a bundle or its folder", required=True
            )
            problems += _path_problems(config, "test_data_file", Path.is_file, "a file", required=True)
            problems += _output_problems(config)
    _raise_first(problems)


def check_execution_config(config: PyTorchExecutionConfig) -> None:
    """Check an execution configuration; called when one is built.  Raises ConfigError."""
    problems = _field_problems(config)
    if not problems and config.logger_backend != "none" and "none" in config.logger_backend.split(","):
        problems.append(_problem(config, "logger_backend", "'none' stands alone: drop it or the others"))
    if not problems and config.patterns == "disk" and config.strategy == "ddp_spawn":
        must = "must be another where patterns = 'disk': processes started so cannot share the file"
        problems.append(_problem(config, "strategy", must))
    if not problems and config.num_workers == 0:
        if config.persistent_workers:
            problems.append(_problem(config, "persistent_workers", "needs num_workers >= 1"))
        if config.prefetch_factor is not None:
            problems.append(_problem(config, "prefetch_factor", "needs num_workers >= 1"))
    _raise_first(problems)


def resolve_n_groups(config: TrainingConfig | InferenceConfig) -> int | None:
    """The number of groups asked for, whichever name it was given under; None for one per position.

    Warns (DeprecationWarning) when the old name n_images is set; ConfigError when both are and they differ.
    """
    if config.n_images is None:
        return config.n_groups
    warnings.warn("n_images is the old name of n_groups: use n_groups", DeprecationWarning, stacklevel=2)
    if config.n_groups is not None and config.n_groups != config.n_images:
        raise _problem(
            config, "n_images", f"n_groups = {config.n_groups} says otherwise: drop n_images, its old name"
        )
    return config.n_images


def known_architectures() -> tuple[str, ...] | None:
    """Names in the registry of networks; None where the registry is not installed."""
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("ptycho.networks.graphs") is None:
        return None
    return tuple(import_module("ptycho.networks.graphs").available())


def _model_problems(config: ModelConfig, architectures: Iterable[str] | None) -> list[Problem]:
    if type(config).__name__ != "ModelConfig":
        raise ConfigError(f"model = {shown(config)}: must be a ptycho.config.config.ModelConfig")
    problems = _field_problems(config)
    names = known_architectures() if architectures is None else tuple(architectures)
    if names is not None and isinstance(config.architecture, str) and config.architecture not in names:
        known = ", ".join(repr(name) for name in names)
        problems.append(_problem(config, "architecture", f"must be a registered network: one of {known}"))
    return problems


def _field_problems(config: Any) -> list[Problem]:
    problems: list[Problem] = []
    for info in all_fields(type(config)):
        value = getattr(config, info.name)
        try:
            fit = coerce(info, value)
        except Unfit as unfit:
            problems.append(_problem(config, info.name, str(unfit)))
            continue
        if type(fit) is not type(value) or info.several:
            setattr(config, info.name, fit)
    return problems


def _grouping_problems(config: TrainingConfig | InferenceConfig) -> list[Problem]:
    gridsize = config.model.gridsize
    if not isinstance(gridsize, int) or gridsize < 1:
        return []
    others = gridsize**2 - 1
    problems: list[Problem] = []
    for name in ("neighbor_count", "neighbor_pool_size"):
        got = getattr(config, name)
        if got is not None and got < others:
            problems.append(
                _problem(config, name, f"must be >= {others} = gridsize^2 - 1: raise it or lower gridsize")
            )
    if None not in (config.n_images, config.n_groups) and config.n_images != config.n_groups:
        problems.append(_problem(config, "n_images", f"n_groups = {config.n_groups} differs: drop n_images"))
    return problems


def _objective_problems(config: TrainingConfig) -> list[Problem]:
    from ptycho.objectives.manifest import resolve
    from ptycho.objectives.stages import resolve_stages

    try:
        resolve_stages(config)
        resolve(config)
    except ConfigError as error:
        return [error]
    return []


def _path_problems(
    config: Any, name: str, is_right: Callable[[Path], bool], wanted: str, *, required: bool
) -> list[Problem]:
    path = getattr(config, name)
    label = f"{type(config).__name__}.{name}"
    if path is None or path == Path():
        return [ConfigError(f"{label} = {shown(path)}: must be {wanted}; give {name}")] if required else []
    if not path.exists():
        return [MissingFileError(f"{label} = {shown(path)}: no such file; must be {wanted}")]
    return [] if is_right(path) else [ConfigError(f"{label} = {shown(path)}: must be {wanted}")]


def _more_files_problems(config: TrainingConfig) -> list[Problem]:
    """Each of them a file, and none given twice."""
    label, seen = "TrainingConfig.more_train_data_files", {config.train_data_file}
    for given in config.more_train_data_files or []:
        if not isinstance(given, (str, Path)):
            return [ConfigError(f"{label}: {shown(given)} must be a path")]
        path = Path(given)
        if not path.is_file():
            return [MissingFileError(f"{label}: {shown(path)}: no such file")]
        if path in seen:
            return [ConfigError(f"{label}: {shown(path)} is given twice: a scan counts once")]
        seen.add(path)
    return []


def _output_problems(config: TrainingConfig | InferenceConfig) -> list[Problem]:
    for path in (config.output_dir, *config.output_dir.parents):
        if path.exists():
            return (
                []
                if path.is_dir()
                else [_problem(config, "output_dir", f"{path} is a file, must be a folder")]
            )
    return []


def _problem(config: Any, name: str, must: str) -> ConfigError:
    return ConfigError(f"{type(config).__name__}.{name} = {shown(getattr(config, name))}: {must}")


def _raise_first(problems: list[Problem]) -> None:
    if not problems:
        return
    first, others = problems[0], len(problems) - 1
    raise type(first)(f"{first}{f' (and {others} more)' if others else ''}")
