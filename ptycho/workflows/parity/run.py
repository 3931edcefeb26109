"""The whole comparison on one scan, and what it found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho import backends
from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import MissingDependencyError
from ptycho.run.preparation import ensure_container
from ptycho.run.starting_probe import starting_probe
from ptycho.scan.raw_data import RawData
from ptycho.workflows.parity import checks
from ptycho.workflows.parity.pair import Pair
from ptycho.workflows.parity.rows import Row

PRECISIONS = ("float32", "float64")
#: standard deviation of what is added to the starting weights before gradients are compared
NUDGE = 0.02


@dataclass
class Parity:
    """Every row, the two stitched images (H, W) complex64, and what was compared."""

    rows: list[Row]
    torch_image: NDArray[np.complex64]
    tf_image: NDArray[np.complex64]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every row is within its tolerance."""
        return all(row.passed for row in self.rows)

    def worst(self) -> list[Row]:
        """Of every section and precision the row nearest to, or furthest beyond, its tolerance."""
        found: dict[tuple[str, str], Row] = {}
        for row in self.rows:
            key = (row.section, row.precision)
            if key not in found or _excess(row) > _excess(found[key]):
                found[key] = row
        return list(found.values())


def _excess(row: Row) -> float:
    error = max(row.error, row.oracle_error or 0.0)
    return error / row.tolerance if row.tolerance else error * float("inf") if error else 0.0


def run_parity(
    raw: RawData,
    config: TrainingConfig,
    execution: PyTorchExecutionConfig,
    *,
    precisions: tuple[str, ...] = PRECISIONS,
    steps: tuple[int, ...] = checks.STEPS,
    progress: Callable[[int, int], None] | None = None,
) -> Parity:
    """Compare both backends on a scan: same weights, same batches, the settings of `config`.

    Grouping, normalisation, operators, forward pass, objective, every gradient, every weight after some
    optimiser steps, patches and the stitched image. Time: some hundred training steps in each backend, some
    seconds for a small scan; memory: the scan and both models. Raises MissingDependencyError without
    TensorFlow.
    """
    if not backends.is_installed("tensorflow"):
        raise MissingDependencyError("ptycho parity needs TensorFlow: pip install 'ptychopinn[tf]'")
    rows = checks.preparation(raw, config)
    container = ensure_container(raw, config)
    probe = starting_probe(container, config, backends.refined_modes)
    total, done = len(precisions) * max(steps), 0
    images: tuple[Any, Any] | None = None
    for precision in precisions:
        away = Pair.of(container, config, probe, precision, execution, nudge=NUDGE)
        rows += checks.operators(away) + checks.network(away)
        pair = Pair.of(container, config, probe, precision, execution)

        def step(now: int, _: int, before: int = done) -> None:
            if progress is not None:
                progress(before + now, total)

        rows += checks.training(pair, steps, step)
        done += max(steps)
        if images is None:
            found, *images_now = checks.inference(pair, raw)
            rows += found
            images = (images_now[0], images_now[1])
    assert images is not None, "at least one precision is compared"
    return Parity(rows, images[0], images[1], _about(raw, config, execution, steps))


def _about(
    raw: RawData, config: TrainingConfig, execution: PyTorchExecutionConfig, steps: tuple[int, ...]
) -> dict[str, Any]:
    versions = {}
    for package in ("ptychopinn", "torch", "tensorflow-cpu", "tensorflow", "keras", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "positions": raw.n_positions,
        "model": dataclasses.asdict(config.model),
        "batch_size": config.batch_size,
        "optimizer": config.optimizer,
        "learning_rate": execution.learning_rate,
        "steps": list(steps),
        "seed": config.seed,
        "versions": versions,
    }
