"""From a scan and a configuration to what a backend trains on: groups, batches, labels; checked, and the same
for both backends."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import InferenceConfig, PyTorchExecutionConfig, TrainingConfig, resolve_n_groups
from ptycho.errors import ConfigError, DataError
from ptycho.objectives.manifest import resolve
from ptycho.run.batches import Batch, Index, compact_blocks, epoch_batches, label_scale, split_scans
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.grouping import possible_groups
from ptycho.scan.raw_data import RawData
from ptycho.scan.scan_set import Scan as Scan
from ptycho.scan.scan_set import ScanSet, acquisition_of, most_alike

#: what training takes: one scan, or several of them
Scans = Scan | ScanSet | Sequence[Scan]
#: what it makes of them
Grouped = PtychoDataContainer | ScanSet


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
    raw = data.subsample(config.n_subsample, seed)
    return PtychoDataContainer.from_raw(
        raw,
        config.model.gridsize,
        n_groups=_n_groups(config, raw, config.model.gridsize, config.neighbor_count),
        n_neighbors=config.neighbor_count,
        seed=seed,
        enable_oversampling=config.enable_oversampling,
        sequential=config.sequential_sampling,
        neighbor_pool_size=config.neighbor_pool_size,
        x_scale=x_scale,
        nphotons=nphotons or config.nphotons,
    )


def train_and_test(
    train_data: Scans, test_data: Scan | None, config: TrainingConfig
) -> tuple[Grouped, Grouped | None]:
    """Training and test scans, grouped. Every position of a test scan is used once, whatever `n_groups` is.

    One training scan gives containers, the test's in the normalisation of the other. Several give sets: each
    has a normalisation of its own, and the test scan is seen as the most alike of them, see
    `ptycho.scan.scan_set`.
    """
    given = [train_data] if isinstance(train_data, Scan) else train_data
    scans = given if isinstance(given, ScanSet) else ScanSet.of([ensure_container(x, config) for x in given])
    alone = len(scans.containers) == 1
    train = scans.containers[0] if alone else scans
    if test_data is None:
        return train, None
    number = 0
    if not alone:
        number = most_alike(*acquisition_of(test_data), [acquisition_of(one) for one in scans.containers])
    like = scans.containers[number]
    once = dataclasses.replace(config, n_groups=None, n_images=None, n_subsample=None)
    test = ensure_container(test_data, once, x_scale=like.x_scale, nphotons=like.nphotons)
    return train, test if alone else ScanSet((test,), (number,))


def first_scan(data: Scans) -> Scan:
    """The only scan, or the first of several."""
    if isinstance(data, Scan):
        return data
    return data.containers[0] if isinstance(data, ScanSet) else data[0]


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
    raw = raw.subsample(config.n_subsample, seed)
    gridsize = trained.model.gridsize
    neighbors = max(config.neighbor_count, gridsize**2 - 1)
    return PtychoDataContainer.from_raw(
        raw,
        gridsize,
        n_groups=_n_groups(config, raw, gridsize, neighbors),
        n_neighbors=neighbors,
        seed=seed,
        enable_oversampling=config.enable_oversampling,
        neighbor_pool_size=config.neighbor_pool_size,
        x_scale=x_scale,
        nphotons=nphotons,
    )


def _n_groups(
    config: TrainingConfig | InferenceConfig, raw: RawData, gridsize: int, n_neighbors: int
) -> int | None:
    """The number of groups asked for, or all that there are, with a warning."""
    return possible_groups(
        resolve_n_groups(config),
        raw.n_positions,
        gridsize,
        n_neighbors,
        config.enable_oversampling,
        config.neighbor_pool_size,
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

    `scans` holds the training groups of every scan, numbered through all of them. `held_out` (validation
    groups,) bool says whose patterns count in validation; None: all of them. Labels are multiplied by the
    `label_scales` entry of their scan; None: not needed.
    """

    scans: tuple[Index, ...]
    centres_xy: NDArray[np.float64]
    batch_size: int
    region_ratio: float
    seed: int
    validation_set: ScanSet
    validation: list[Batch]
    held_out: NDArray[np.bool_] | None
    label_scales: tuple[float, ...] | None

    @property
    def n_groups(self) -> int:
        """Groups that train."""
        return sum(len(groups) for groups in self.scans)

    @property
    def n_batches(self) -> int:
        """Batches of one epoch, before accumulation."""
        return sum(math.ceil(len(groups) / self.batch_size) for groups in self.scans)

    def epoch(self, number: int) -> list[Batch]:
        """The batches of one epoch, see `ptycho.run.batches.epoch_batches`."""
        return epoch_batches(
            self.scans,
            self.centres_xy,
            self.batch_size,
            region_ratio=self.region_ratio,
            seed=self.seed,
            epoch=number,
        )


def plan_training(train: Grouped, test: Grouped | None, config: TrainingConfig) -> TrainingPlan:
    """Decide batches and validation: the test container, or held-out groups of every training scan.

    Raises DataError where labels are needed and a scan has none. Time O(G log G), memory O(G).
    """
    scans, tests = ScanSet.of(train), None if test is None else ScanSet.of(test)
    supervised = config.model.model_type == "supervised"
    labels = resolve(config).needs_labels
    if labels:
        _check_labels(scans, tests)
    ratio = 0.0 if supervised else config.region_ratio
    first, centres = scans.first, scans.centres_xy
    held_out: NDArray[np.bool_] | None
    if tests is None:
        splits = split_scans(
            [centres[begin:end] for begin, end in pairwise(first)],
            val_fraction=config.val_fraction,
            batch_size=config.batch_size,
            region_ratio=ratio,
            seed=config.seed,
        )
        groups = tuple(split.train for split in splits)
        validation = [batch for split in splits for batch in split.validation]
        held_out = np.concatenate([split.held_out for split in splits])
    else:
        groups = tuple(np.arange(begin, end) for begin, end in pairwise(first))
        held_out = None
        blocks = compact_blocks(tests.centres_xy, config.batch_size, np.random.default_rng([config.seed, 1]))
        validation = [(block, ratio > 0) for block in blocks]
    return TrainingPlan(
        scans=groups,
        centres_xy=centres,
        batch_size=config.batch_size,
        region_ratio=ratio,
        seed=config.seed,
        validation_set=tests or scans,
        validation=validation,
        held_out=held_out,
        label_scales=tuple(label_scale(one, config.model.probe_scale) for one in scans.containers)
        if labels
        else None,
    )


def _check_labels(train: ScanSet, test: ScanSet | None) -> None:
    several = len(train.containers) > 1
    named = [
        (f"training scan {n}" if several else "training data", c) for n, c in enumerate(train.containers)
    ]
    named += [("test data", one) for one in (test.containers if test is not None else ())]
    for name, one in named:
        if not one.has_labels:
            raise DataError(
                f"{name}: labels are needed (model_type supervised, or a term that compares with them), "
                "but the scan has no objectGuess - add one, e.g. a refined object, or use model_type pinn"
            )
