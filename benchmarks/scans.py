"""The scans that the figures of docs/benchmarks.md are made on, and one timed run of the whole job."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.evaluation import Evaluation, evaluate
from ptycho.scan.raw_data import RawData
from ptycho_torch.workflows.components import infer_scan, run_cdi_example_torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@dataclass(frozen=True)
class Known:
    """A scan whose object is known."""

    raw: RawData
    object_true: np.ndarray
    roi: tuple[int, int, int, int]


def bench_scan() -> Known:
    """The scan of ../shared/bench: corners (y, x) turned into our centres [x, y]; wrong probe guess."""
    with np.load(SHARED / "bench" / "scan_subpixel.npz") as d:
        y, x = d["positions_px"].T + d["diffraction"].shape[-1] // 2
        raw = RawData.from_coords_without_pc(x, y, d["diffraction"], d["probe_guess"])
        y0, y1, x0, x1 = (int(v) for v in d["roi"])
        return Known(raw, d["object_true"], (y0, y1, x0, x1))


def siemens_star() -> RawData:
    """The measured scan of ../shared/data, with its analytic probe guess."""
    return RawData.from_file(SHARED / "data" / "siemens_star_velociprobe.npz")


@dataclass(frozen=True)
class Run:
    """What one job took and gave."""

    train_s: float
    infer_s: float
    results: dict[str, Any]
    judged: Evaluation | None


def run(
    raw: RawData,
    *,
    truth: Known | None = None,
    model: dict[str, Any] | None = None,
    learning_rate: float = 2e-3,
    **settings: Any,
) -> Run:
    """Refine the probe, train, reconstruct, judge: wall-clock seconds of training include the probe."""
    config = TrainingConfig(
        model=ModelConfig(N=raw.N, **(model or {})),
        **{
            "scheduler": "WarmupCosine",
            "gradient_clip_val": 1.0,
            "probe_from": "refine",
            "output_dir": Path(),
            **settings,
        },
    )
    execution = PyTorchExecutionConfig(learning_rate=learning_rate, accelerator="cpu", logger_backend="none")
    begun = time.perf_counter()
    _, _, trained = run_cdi_example_torch(raw, None, config, execution_config=execution)
    train_s = time.perf_counter() - begun
    begun = time.perf_counter()
    shape = truth.object_true.shape if truth else None
    _, _, results = infer_scan(trained["models"]["autoencoder"], raw, canvas_shape=shape)
    infer_s = time.perf_counter() - begun
    judged = evaluate(results["object"], truth.object_true, truth.roi) if truth else None
    return Run(train_s, infer_s, {**trained, **results}, judged)
