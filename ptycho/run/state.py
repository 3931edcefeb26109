"""Where a training run keeps what it needs to go on, and whether what is asked now is still the same run.

    RUN/config.yaml            every setting; written before anything else
    RUN/provenance.json        which files it was trained on, with their hashes
    RUN/checkpoints/last.*     the last state: .ckpt PyTorch, .safetensors TensorFlow; after a whole epoch, or
                               within one where `checkpoint_every_s` says so
    RUN/checkpoints/start.npz  the probes it began with, so that a resume does not refine them again

Every file is replaced by a rename, so a run killed at any moment leaves the former one whole.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.config.fields import describe_fields, shown
from ptycho.config.free import FREE
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError, DataError, InputError, MissingFileError
from ptycho.io.atomic import atomic_write
from ptycho.run.starting_probe import StartingProbe, Starts

CONFIG, CHECKPOINTS, START = "config.yaml", "checkpoints", "start.npz"
LAST = {"pytorch": "last.ckpt", "tensorflow": "last.safetensors"}
#: checkpoints of an earlier run in the same folder; one generation is kept
EARLIER = "checkpoints.earlier"

_OF_ALL_EPOCHS = ("WarmupCosine", "OneCycle")


@dataclass(frozen=True)
class Continued:
    """A resumed run: its settings, its last checkpoint (None: there is none, so it starts over), words for
    the user.
    """

    config: TrainingConfig
    execution: PyTorchExecutionConfig
    checkpoint: Path | None
    notes: tuple[str, ...]


def continued(folder: Path, overrides: Mapping[str, Any]) -> Continued:
    """The run in `folder` as it goes on, with what was typed beside it.

    Data files that are not where config.yaml says are looked for where provenance.json says. Raises
    MissingFileError where the folder holds no run, ConfigError for a setting that contradicts it, DataError
    for a data file that is not the one it was trained on. Time: one read of the data files.
    """
    from ptycho.config.yaml_io import load_yaml_config, training_config_from

    source = folder / CONFIG
    if not source.is_file():
        raise MissingFileError(
            f"--resume {folder}: no {CONFIG} in it; give the output folder of a ptycho train, or a checkpoint"
        )
    values = load_yaml_config(source)
    begun = training_config_from(values, source=source)
    if "output_dir" in overrides and Path(overrides["output_dir"]).resolve() != folder.resolve():
        wanted = overrides["output_dir"]
        raise ConfigError(f"--output_dir {wanted}: --resume {folder} goes on in its own folder; leave it out")
    _check_unchanged(folder, kept_settings(*begun))
    config, execution = training_config_from(values, {**overrides, "output_dir": folder}, source=source)
    _check_same(folder, _settings(*begun), _settings(config, execution))
    if _batches_a_step(execution) != _batches_a_step(begun[1]):
        raise _contradiction(folder, "devices", begun[1].devices, execution.devices)
    notes = []
    if config.nepochs < begun[0].nepochs:
        raise ConfigError(
            f"nepochs = {config.nepochs}: {folder} was begun with {begun[0].nepochs}, which may only grow"
        )
    scheduler = execution.scheduler or config.scheduler
    if config.nepochs > begun[0].nepochs and scheduler in _OF_ALL_EPOCHS:
        notes.append(f"scheduler {scheduler} spans all epochs: with more of them the learning rate jumps")
    _find_files(folder, begun[0], config, overrides)
    checkpoint: Path | None = folder / CHECKPOINTS / LAST[config.backend]
    assert checkpoint is not None
    if not checkpoint.is_file():
        checkpoint = None
        notes.append(f"{folder} was stopped before its first checkpoint: it starts over")
    return Continued(config, execution, checkpoint, tuple(notes))


def training_inputs(config: TrainingConfig) -> dict[str, Path]:
    """Role in the record of a run -> file: `train`, `train1`, ... in the order of the scans' numbers."""
    return {f"train{number or ''}": path for number, path in enumerate(config.train_data_files)}


def _find_files(
    folder: Path, begun: TrainingConfig, config: TrainingConfig, overrides: Mapping[str, Any]
) -> None:
    """Put the paths of the run's own data files into its configuration, wherever they are now."""
    recorded = _recorded_files(folder)
    for role, name in (("train", "train_data_file"), ("test", "test_data_file")):
        asked, wanted = getattr(begun, name), getattr(config, name)
        if (asked is None) != (wanted is None):
            raise _contradiction(folder, name, asked, wanted)
        if wanted is not None:
            setattr(config, name, _same_file(folder, wanted, recorded.get(role), typed=name in overrides))
    name = "more_train_data_files"
    asked, wanted = begun.more_train_data_files or [], config.more_train_data_files or []
    if len(asked) != len(wanted):
        raise _contradiction(folder, name, asked, wanted)
    if wanted:
        config.more_train_data_files = [
            str(_same_file(folder, Path(path), recorded.get(f"train{number}"), typed=name in overrides))
            for number, path in enumerate(wanted, 1)
        ]


def begin_anew(folder: Path) -> None:
    """Move the checkpoints of an earlier run in the folder aside; those moved aside before are deleted.

    A resume can then not mistake them for checkpoints of the new run.
    """
    found = folder / CHECKPOINTS
    if found.is_dir() and any(found.iterdir()):
        shutil.rmtree(folder / EARLIER, ignore_errors=True)
        found.rename(folder / EARLIER)


def sweep(checkpoints: Path) -> None:
    """Delete the temporary files of writes that were killed."""
    for last in LAST.values():
        for path in checkpoints.glob(f".*{Path(last).suffix}"):
            path.unlink(missing_ok=True)


def prepare(folder: Path, starts: Starts, *, resumes: bool) -> None:
    """Make the folder of checkpoints ready before the first step, and store the starting probes.

    A new run moves the checkpoints of an earlier one aside. A resumed run removes temporary files.
    """
    checkpoints = folder / CHECKPOINTS
    if resumes:
        sweep(checkpoints)
    else:
        begin_anew(folder)
    if not (checkpoints / START).is_file():
        keep_starts(checkpoints, starts)


def keep_starts(checkpoints: Path, starts: Starts) -> None:
    """Write the starting probes beside the checkpoints; atomic."""
    arrays: dict[str, Any] = {}
    for number, start in enumerate(starts):
        arrays |= {f"modes{_of(number)}": start.modes, f"factor{_of(number)}": np.float64(start.factor)}
    with atomic_write(checkpoints / START) as temporary:
        np.savez(temporary, **arrays)


def _of(number: int) -> str:
    return f"_{number}" if number else ""


def kept_starts(checkpoint: Path) -> Starts | None:
    """The starting probes (P, N, N), one a scan, of the run that a checkpoint belongs to; None: not kept.

    Raises DataError for a damaged file.
    """
    path = checkpoint.parent / START
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            count = sum(name.startswith("modes") for name in stored.files)
            named = [(f"modes{_of(number)}", f"factor{_of(number)}") for number in range(max(1, count))]
            return tuple(
                StartingProbe(stored[modes].astype(np.complex64), float(stored[factor]))
                for modes, factor in named
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        what = type(error).__name__
        raise DataError(f"{path} is damaged ({what}); delete it to refine the probe again") from None


def settings_checksum(config: TrainingConfig, execution: PyTorchExecutionConfig) -> str:
    """Sixteen hexadecimal digits, equal for runs whose settings give the same weights.

    Length, data and machine do not count.
    """
    import hashlib

    text = json.dumps(kept_settings(config, execution), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def kept_settings(config: TrainingConfig, execution: PyTorchExecutionConfig) -> dict[str, Any]:
    """Every setting that the weights depend on, by name, as JSON holds it."""
    kept = {name: value for name, value in _settings(config, execution).items() if name not in FREE}
    made: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return made


def _check_unchanged(folder: Path, now: Mapping[str, Any]) -> None:
    """ConfigError where config.yaml says something else than the record of the run it began."""
    from ptycho.run.provenance import read

    try:
        begun = (read(folder) or {}).get("settings")
    except InputError:
        return
    for name, value in begun.items() if isinstance(begun, Mapping) else ():
        if name in now and now[name] != value:
            said = f"{name} is {shown(now[name])}, but the run began with {shown(value)}"
            raise ConfigError(
                f"{folder / CONFIG}: {said}; put it back, or start another run with --config "
                f"{folder / CONFIG} -o OUT"
            )


def _settings(config: TrainingConfig, execution: PyTorchExecutionConfig) -> dict[str, Any]:
    """Every setting by the name of its flag; what the execution overrides has its value."""
    found: dict[str, Any] = {}
    parts = ((TrainingConfig, config), (ModelConfig, config.model), (PyTorchExecutionConfig, execution))
    for cls, part in parts:
        for info in describe_fields(cls):
            value = getattr(part, info.name)
            if info.name not in found or value is not None:
                found[info.name] = value
    return found


def _check_same(folder: Path, begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if name not in FREE and value != begun[name]:
            raise _contradiction(folder, name, begun[name], value)


def _batches_a_step(execution: PyTorchExecutionConfig) -> int:
    """Of all devices together, of which each takes at least one."""
    return max(execution.accum_steps, execution.devices)


def _contradiction(folder: Path, name: str, begun: Any, wanted: Any) -> ConfigError:
    return ConfigError(
        f"--{name} {shown(wanted)}: {folder} was begun with {shown(begun)}; leave it out, or start another "
        f"run with --config {folder / CONFIG}"
    )


def _recorded_files(folder: Path) -> dict[str, Mapping[str, Any]]:
    """role -> path and hash of the run's inputs; nothing where its record is missing or damaged."""
    from ptycho.run.provenance import read

    try:
        inputs = (read(folder) or {}).get("inputs")
    except InputError:
        return {}
    found = [given for given in inputs if isinstance(given, Mapping)] if isinstance(inputs, list) else []
    return {str(given.get("role")): given for given in found}


def _same_file(folder: Path, path: Path, recorded: Mapping[str, Any] | None, *, typed: bool) -> Path:
    from ptycho.run.provenance import sha256

    known = Path(str(recorded["path"])) if recorded and recorded.get("path") else None
    if not path.is_file() and not typed and known is not None and known.is_file():
        path = known
    digest = recorded.get("sha256") if recorded else None
    if path.is_file() and digest and sha256(path) != digest:
        raise DataError(
            f"{path}: is not the scan that {folder} was trained on (another SHA-256); put that one back, or "
            "start another run"
        )
    return path
