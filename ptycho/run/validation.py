"""Checks of a whole configuration when a run starts: fields, grouping, objectives, files.

Each error is one line: the field, the value it got, and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ptycho.config.checks import Problem, field_problems, problem, raise_first
from ptycho.config.fields import shown
from ptycho.config.settings import InferenceConfig, ModelConfig, TrainingConfig
from ptycho.errors import ConfigError, MissingFileError


def validate_model_config(config: ModelConfig, *, architectures: Iterable[str] | None = None) -> None:
    """Check a model configuration.

    `architectures` are the known network names; None asks `ptycho.networks.graphs.available()`.
    Raises ConfigError with the first problem and the number of others.
    """
    raise_first(_model_problems(config, architectures))


def validate_training_config(
    config: TrainingConfig, *, require_files: bool = True, architectures: Iterable[str] | None = None
) -> None:
    """Check a training configuration and the model configuration in it.

    With `require_files` the training file must be given and be there, and so must a test file that is given;
    without it (data come as arrays) paths are not looked at.
    Raises ConfigError, or MissingFileError where a file is the first problem.
    """
    problems = _model_problems(config.model, architectures)
    fields = field_problems(config)
    problems += fields
    if not fields:
        problems += _grouping_problems(config)
        problems += _objective_problems(config)
        if not config.positions_provided:
            problems.append(problem(config, "positions_provided", "not supported: positions are required"))
        if require_files:
            problems += _path_problems(config, "train_data_file", Path.is_file, "a file", required=True)
            problems += _more_files_problems(config)
            problems += _path_problems(config, "test_data_file", Path.is_file, "a file", required=False)
            problems += _output_problems(config)
    raise_first(problems)


def validate_inference_config(
    config: InferenceConfig, *, require_files: bool = True, architectures: Iterable[str] | None = None
) -> None:
    """Check an inference configuration and the model configuration in it; as `validate_training_config`."""
    problems = _model_problems(config.model, architectures)
    fields = field_problems(config)
    problems += fields
    if not fields:
        problems += _grouping_problems(config)
        if require_files:
            problems += _path_problems(
                config, "model_path", Path.exists, "a bundle or its folder", required=False
            )
            problems += _path_problems(config, "test_data_file", Path.is_file, "a file", required=True)
            problems += _output_problems(config)
    raise_first(problems)


def _model_problems(config: ModelConfig, architectures: Iterable[str] | None) -> list[Problem]:
    if type(config).__name__ != "ModelConfig":
        raise ConfigError(f"model = {shown(config)}: must be a ptycho.config.config.ModelConfig")
    problems = field_problems(config)
    if architectures is None:
        from ptycho.networks.graphs import available  # NumPy is loaded only where a run is checked

        architectures = available()
    names = tuple(architectures)
    if isinstance(config.architecture, str) and config.architecture not in names:
        known = ", ".join(repr(name) for name in names)
        problems.append(problem(config, "architecture", f"must be a registered network: one of {known}"))
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
                problem(config, name, f"must be >= {others} = gridsize^2 - 1: raise it or lower gridsize")
            )
    if None not in (config.n_images, config.n_groups) and config.n_images != config.n_groups:
        problems.append(problem(config, "n_images", f"n_groups = {config.n_groups} differs: drop n_images"))
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
                else [problem(config, "output_dir", f"{path} is a file, must be a folder")]
            )
    return []
