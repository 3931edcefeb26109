"""Checkpoints as clients use them: which one of a run is the model, and which configurations it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptycho.clients import four_configs
from ptycho.clients.config_bridge import from_training_config
from ptycho.config.settings import PyTorchExecutionConfig
from ptycho.config.yaml_io import training_config_from

CLASSES: dict[str, type[Any]] = {
    "model_config": four_configs.ModelConfig,
    "data_config": four_configs.DataConfig,
    "training_config": four_configs.TrainingConfig,
    "inference_config": four_configs.InferenceConfig,
}


def four_of(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The four configurations in a checkpoint's hyper-parameters, by the names of `CLASSES`.

    A client's training leaves those four; a training of this package the canonical one, from which they are
    made. KeyError for a file that holds neither.
    """
    if "config" not in stored:
        return {name: restored_config(name, stored[name]) for name in CLASSES}
    config, _ = training_config_from(stored["config"])
    execution = PyTorchExecutionConfig(learning_rate=stored["learning_rate"])
    data, model, training, inference = from_training_config(config, execution)
    return {
        "model_config": model,
        "data_config": data,
        "training_config": training,
        "inference_config": inference,
    }


def restored_config(name: str, value: Any) -> Any:
    """A configuration from a checkpoint's plain dict; configurations pass through."""
    if not isinstance(value, Mapping):
        return value
    known = CLASSES[name].__dataclass_fields__
    made = CLASSES[name](**{key: item for key, item in value.items() if key in known})
    for key, fallback in ((k, getattr(CLASSES[name](), k)) for k in known):
        if isinstance(fallback, tuple) and isinstance(getattr(made, key), list):
            setattr(made, key, tuple(getattr(made, key)))
        if key.endswith(("_file", "_path", "_dir")) and isinstance(getattr(made, key), str):
            setattr(made, key, Path(getattr(made, key)))
    return made


def find_best_checkpoint(run_dir: str | Path) -> Path | None:
    """The best checkpoint under a run's folder, or None where there is none.

    The one that validated best; of several the newest; without one, the state after the last epoch.
    """
    folder = Path(run_dir)
    found = sorted(folder.rglob("*.ckpt"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    best = [path for path in found if path.name.startswith("best")]
    candidates = best or found
    return candidates[-1] if candidates else None
