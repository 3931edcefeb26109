"""Real runs of both trainers whose course is known beforehand, so that one number judges a whole rule.

The objective is replaced. Where the correction of the scale stands at t, its value is `losses[t]` (t rounded)
and its gradient is -1 for the correction, and -1 for both parts of every pixel of the probe where it trains.
With gradient descent at rate 1 the correction therefore counts the optimiser steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from both_backends import settings, silent

from ptycho import backends
from ptycho.run.job import Job
from ptycho.run.preparation import ensure_container
from ptycho.run.starting_probe import StartingProbe
from ptycho.scan.normalization import normalize_probe

#: where each backend looks for the objective
_OBJECTIVE = {"pytorch": "ptycho_torch.module.evaluate", "tensorflow": "ptycho.tf.model.evaluate"}
_SUFFIX = {"pytorch": ".ckpt", "tensorflow": ".safetensors"}
PLAIN = {"optimizer": "sgd", "momentum": 0.0, "batch_size": 64, "region_ratio": 0.0, "diagnostics": []}


@dataclass(frozen=True)
class Left:
    """What a run left: its history, the correction of the scale, how far the probe went, and the correction
    in every checkpoint by the name of its file without suffix."""

    history: dict[str, list[float]]
    scale: float
    probe_moved: np.ndarray
    files: dict[str, float]
    model: Any


def run_scripted(
    name: str,
    monkeypatch: Any,
    raw: Any,
    losses: list[float],
    *,
    folder: Path = Path(),
    resume: str | None = None,
    counted: bool = False,
    execution: dict[str, Any] | None = None,
    build: Callable[[Any, Any], Any] | None = None,
    progress: Any = None,
    **changes: Any,
) -> Left:
    """Train `raw` with these losses; keywords are fields of the settings.

    `counted`: the value of a batch is larger by the number of its patterns that count. `resume`: the
    checkpoint of that name in `folder`. `build`: a model of the caller's.
    """
    objective = _Torch(losses, counted) if name == "pytorch" else _Keras(losses, counted)
    monkeypatch.setattr(_OBJECTIVE[name], objective)
    config = settings(
        raw, output_dir=folder, backend=name, intensity_scale_trainable=True, **{**PLAIN, **changes}
    )
    given = {"learning_rate": 1.0, "enable_checkpointing": folder != Path(), "early_stop_patience": 100}
    asked = silent(**{**given, **(execution or {})})
    container = ensure_container(raw, config)
    start = StartingProbe(*normalize_probe(container.probe, config.model.probe_scale))
    path = None if resume is None else folder / "checkpoints" / f"{resume}{_SUFFIX[name]}"
    job = Job.of(container, None, config, asked, starts=(start,), resume=path, progress=progress)
    backend = backends.find(name)
    fitted = backend.fit(job, (build or backend.build)(job.config, job.execution))
    known = backend.known_scan(fitted.model, 0)
    found = {path.stem: _correction(path) for path in sorted(folder.glob(f"checkpoints/*{_SUFFIX[name]}"))}
    return Left(fitted.history, known.log_scale, known.probe - start.modes, found, fitted.model)


def _correction(path: Path) -> float:
    if path.suffix == ".ckpt":
        import torch

        return float(torch.load(path, weights_only=True)["state_dict"]["log_scale"])
    from ptycho.tf.fit.checkpoints import read_checkpoint

    return float(read_checkpoint(path)[0]["log_scale"])


class _Torch:
    """The objective in torch."""

    def __init__(self, losses: list[float], counted: bool) -> None:
        self._losses, self._counted = losses, counted

    def __call__(self, seen: Any, active: Any) -> dict[str, Any]:
        t = seen.model.log_scale
        moved = t + seen.model.probe.sum()
        value = self._losses[int(t.detach().round())]
        if self._counted:
            value = value + float(seen.batch["counted"].sum())
        return {"loss": value + moved.detach() - moved}


class _Keras:
    """The objective in TensorFlow."""

    def __init__(self, losses: list[float], counted: bool) -> None:
        self._losses, self._counted = losses, counted

    def __call__(self, seen: Any, active: Any) -> dict[str, Any]:
        import tensorflow as tf

        t = tf.convert_to_tensor(seen.model.log_scale)
        moved = t + tf.reduce_sum(tf.convert_to_tensor(seen.model.probe))
        value = tf.gather(tf.constant(self._losses, t.dtype), tf.cast(tf.round(t), tf.int32))
        if self._counted:
            value += tf.reduce_sum(tf.cast(seen.batch["counted"], t.dtype))
        return {"loss": value + tf.stop_gradient(moved) - moved}
