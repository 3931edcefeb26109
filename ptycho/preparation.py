"""From a scan and a configuration to what a backend trains on: groups, batches, labels; checked, and the same
for both backends."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.batches import (
    Batch,
    Index,
    compact_blocks,
    epoch_batches,
    group_centres,
    label_scale,
    split_groups,
)
from ptycho.config.config import (
    InferenceConfig,
    PyTorchExecutionConfig,
    TrainingConfig,
    resolve_n_groups,
)
from ptycho.errors import ConfigError, DataError
from ptycho.loader import PtychoDataContainer
from ptycho.objectives.manifest import resolve
from ptycho.raw_data import RawData

Scan = RawData | PtychoDataContainer


def ensure_container(
    data: Scan, config: TrainingConfig, *, x_scale: float | None = None, nphotons: float | None = None
) -> PtychoDataContainer:
    """A grouped container from a scan; a container passes through.

    Give the training set's `x_scale` and `nphotons` for a test scan: they are never taken from test data.
    Raises ConfigError where N is not the scan's. Time and memory as `PtychoDataContainer.from_raw`.
    """
    if isinstance(data, PtychoDataContainer):
        return data
    if config.model.N != data.N:
        raise ConfigError(
            f"ModelConfig.N = {config.model.N}, but the patterns are {data.N} x {data.N} px: set --N {data.N}"
        )
    seed = config.seed if config.subsample_seed is None else config.subsample_seed
    return PtychoDataContainer.from_raw(
        data.subsample(config.n_subsample, seed),
        config.model.gridsize,
        n_groups=resolve_n_groups(config),
        n_neighbors=config.neighbor_count,
        seed=seed,
        enable_oversampling=config.enable_oversampling,
        sequential=config.sequential_sampling,
        neighbor_pool_size=config.neighbor_pool_size,
        x_scale=x_scale,
        nphotons=nphotons or config.nphotons,
    )


def train_and_test(
    train_data: Scan, test_data: Scan | None, config: TrainingConfig
) -> tuple[PtychoDataContainer, PtychoDataContainer | None]:
    """Both containers in the training set's normalisation; a test scan is covered once, whatever n_groups."""
    train = ensure_container(train_data, config)
    if test_data is None:
        return train, None
    once = dataclasses.replace(config, n_groups=None, n_images=None, n_subsample=None)
    return train, ensure_container(test_data, once, x_scale=train.x_scale, nphotons=train.nphotons)


def inference_container(
    raw: RawData, trained: TrainingConfig, config: InferenceConfig, *, x_scale: float, nphotons: float
) -> PtychoDataContainer:
    """A scan grouped for a trained model, in the normalisation of its training set.

    Raises DataError where the patterns are not as large as those it was trained on.
    """
    if raw.N != trained.model.N:
        raise DataError(
            f"the patterns are {raw.N} x {raw.N} px, the model was trained on {trained.model.N}: "
            "train one for this size"
        )
    seed = config.subsample_seed or 0
    return PtychoDataContainer.from_raw(
        raw.subsample(config.n_subsample, seed),
        trained.model.gridsize,
        n_groups=resolve_n_groups(config),
        n_neighbors=max(config.neighbor_count, trained.model.gridsize**2 - 1),
        seed=seed,
        enable_oversampling=config.enable_oversampling,
        neighbor_pool_size=config.neighbor_pool_size,
        x_scale=x_scale,
        nphotons=nphotons,
    )


def with_execution(config: TrainingConfig, execution: PyTorchExecutionConfig) -> TrainingConfig:
    """The configuration with what the execution overrides."""
    changes: dict[str, Any] = {}
    if execution.scheduler is not None:
        changes["scheduler"] = execution.scheduler
    if execution.gradient_clip_val is not None:
        changes["gradient_clip_val"] = execution.gradient_clip_val
    return dataclasses.replace(config, **changes)


@dataclass(frozen=True)
class TrainingPlan:
    """Which groups train in which order, and on which batches the run is validated.

    `held_out` (validation groups,) bool says whose patterns count in validation; None: all of them. Labels
    are multiplied by `label_scale`; None: not needed.
    """

    groups: Index
    centres_xy: NDArray[np.float64]
    batch_size: int
    region_ratio: float
    seed: int
    validation_container: PtychoDataContainer
    validation: list[Batch]
    held_out: NDArray[np.bool_] | None
    label_scale: float | None

    def epoch(self, number: int) -> list[Batch]:
        """The batches of one epoch, see `ptycho.batches.epoch_batches`."""
        return epoch_batches(
            self.groups,
            self.centres_xy,
            self.batch_size,
            region_ratio=self.region_ratio,
            seed=self.seed,
            epoch=number,
        )


def plan_training(
    train: PtychoDataContainer, test: PtychoDataContainer | None, config: TrainingConfig
) -> TrainingPlan:
    """Decide batches and validation: the test container, or held-out groups of the training container.

    Raises DataError where labels are needed and the scan has none. Time O(G log G), memory O(G).
    """
    supervised = config.model.model_type == "supervised"
    labels = resolve(config).needs_labels
    for name, container in (("training", train), ("test", test)):
        if labels and container is not None and not container.has_labels:
            raise DataError(
                f"{name} data: labels are needed (model_type supervised, or a term that compares with them), "
                "but the scan has no objectGuess - add one, e.g. a refined object, or use model_type pinn"
            )
    ratio = 0.0 if supervised else config.region_ratio
    centres = group_centres(train)
    groups: Index
    held_out: NDArray[np.bool_] | None
    if test is None:
        split = split_groups(
            centres,
            val_fraction=config.val_fraction,
            batch_size=config.batch_size,
            region_ratio=ratio,
            seed=config.seed,
        )
        groups, validation, held_out = split.train, split.validation, split.held_out
    else:
        groups, held_out = np.arange(len(train)), None
        blocks = compact_blocks(
            group_centres(test), config.batch_size, np.random.default_rng([config.seed, 1])
        )
        validation = [(block, ratio > 0) for block in blocks]
    return TrainingPlan(
        groups=groups,
        centres_xy=centres,
        batch_size=config.batch_size,
        region_ratio=ratio,
        seed=config.seed,
        validation_container=train if test is None else test,
        validation=validation,
        held_out=held_out,
        label_scale=label_scale(train, config.model.probe_scale) if labels else None,
    )
