"""What training leaves behind, without a backend: everything that either backend needs to infer or go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.bundle import load_bundle, save_bundle
from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import BundleError, ConfigError, DataError
from ptycho.group_merge import merge_groups
from ptycho.normalization import intensity_scale
from ptycho.objectives.manifest import resolve


@dataclass(frozen=True)
class TrainedState:
    """A trained network as arrays: `weights` by neutral name, the probe (P, N, N) in the network's gauge, the
    numbers of `ptycho.normalization`, the log of the trained correction to the scale, bad pixels (N, N)."""

    config: TrainingConfig
    weights: dict[str, NDArray[Any]]
    probe: NDArray[np.complex64]
    bad_pixels: NDArray[np.bool_]
    x_scale: float
    nphotons: float
    probe_factor: float
    log_scale: float

    @property
    def intensity_scale(self) -> float:
        """s = 2 sqrt(nphotons) / N: s * x has nphotons counts a pattern."""
        return intensity_scale(self.nphotons, self.config.model.N)

    def save(self, directory: Path, backend: str) -> Path:
        """Write `wts.h5.zip` into a folder, atomically; `backend` says who trained it."""
        model, manifest = self.config.model, resolve(self.config)
        return save_bundle(
            directory,
            weights=self.weights,
            config=dataclasses.asdict(self.config),
            state={
                "x_scale": self.x_scale,
                "nphotons": self.nphotons,
                "probe_factor": self.probe_factor,
                "intensity_scale": self.intensity_scale,
                "log_scale": self.log_scale,
                "N": model.N,
                "gridsize": model.gridsize,
                "manifest": manifest.as_dict(),
                "objectives_checksum": manifest.checksum,
            },
            backend=backend,
            extra_arrays={"probe": self.probe, "bad_pixels": self.bad_pixels},
        )


def load_trained_state(path: Path) -> tuple[TrainedState, PyTorchExecutionConfig]:
    """The state in a bundle (zip, its folder, or the unpacked contents), whichever backend wrote it.

    Raises BundleError naming what is missing or does not fit.
    """
    from ptycho.config.yaml_io import training_config_from

    bundle = load_bundle(Path(path))
    try:
        config, execution = training_config_from(bundle.config, source=str(path))
        state, extra = bundle.state, bundle.extra_arrays
        N = config.model.N
        made = TrainedState(
            config=config,
            weights=dict(bundle.weights),
            probe=extra["probe"],
            bad_pixels=extra.get("bad_pixels", np.zeros((N, N), bool)),
            x_scale=float(state["x_scale"]),
            nphotons=float(state["nphotons"]),
            probe_factor=float(state["probe_factor"]),
            log_scale=float(state["log_scale"]),
        )
    except KeyError as error:
        raise BundleError(
            f"{path}: the bundle lacks {error.args[0]!r}; was it written by this package?"
        ) from None
    except ConfigError as error:
        raise BundleError(f"{path}: {error}") from None
    return made, execution


def predict_scaled(
    inputs: Sequence[Any],
    model: ModelConfig,
    scale: float,
    predict: Callable[[NDArray[np.float32]], NDArray[np.complex64]],
    batch_size: int,
    *,
    window: NDArray[Any] | None = None,
) -> NDArray[np.complex64]:
    """The call that clients know: patches from [X * intensity_scale (B, N, N, C), local_offsets].

    `predict` takes x (b, C, N, N) and gives (b, C_out, N, N). Without offsets, or with one patch a group, the
    answer is (B, N, N, C_out). With offsets (B, 1, 2, C) and a `window` (N, N) of weights, such as |P|^2, the
    patches of a group are merged around the group's mean, which is where clients put them: (B, N, N, 1).
    Raises DataError for another shape. Memory: the answer and one batch.
    """
    scaled = np.asarray(inputs[0], np.float32)
    wanted = (model.N, model.N, model.gridsize**2)
    if scaled.ndim != 4 or scaled.shape[1:] != wanted:
        raise DataError(
            f"predict: input has shape {scaled.shape}; this model takes "
            f"(B, {wanted[0]}, {wanted[1]}, {wanted[2]})"
        )
    offsets = np.asarray(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else None
    if offsets is not None and len(offsets) != len(scaled):
        raise DataError(f"predict: {len(scaled)} groups but local_offsets of {len(offsets)}")
    x = np.ascontiguousarray(np.moveaxis(scaled, -1, 1)) / np.float32(scale)
    parts = []
    for begin in range(0, len(x), batch_size):
        patches = predict(x[begin : begin + batch_size])
        if offsets is not None and window is not None and patches.shape[1] > 1:
            patches = merge_groups(patches, offsets[begin : begin + batch_size], window)[:, None]
        parts.append(patches)
    return np.moveaxis(np.concatenate(parts), 1, -1)
