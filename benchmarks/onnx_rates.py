"""Rate of exported networks in onnxruntime beside torch's in the same run, and how far their answers differ.

    python benchmarks/onnx_rates.py [--sides 64 128] [--repeats 6] [--seed 0]

Each rate is counts in, complex patches out, on batches of 64 patterns: the best of several calls, torch and
onnxruntime taking turns so that a busy machine slows both. The weights are random; the difference is the
largest of the complex patches over the largest patch value.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import describe
from ptycho.config.config import ModelConfig, TrainingConfig
from ptycho.models.onnx_export import write_onnx
from ptycho.models.onnx_model import open_onnx
from ptycho.scan.normalization import normalize_probe, x_scale
from ptycho.simulation import Scenario, simulate
from ptycho.workflows.trained import state_of
from ptycho_torch.config_bridge import from_training_config
from ptycho_torch.model import PtychoPINN_Lightning

BATCH = 64


def random_module(name: str, N: int, gridsize: int, seed: int) -> tuple[PtychoPINN_Lightning, np.ndarray]:
    """A network whose heads do not answer zero, and counts (B, C, N, N) float32 of a simulated scan."""
    raw = simulate(Scenario(N=N, n_positions=BATCH, seed=seed)).raw
    config = TrainingConfig(model=ModelConfig(N=N, architecture=name, gridsize=gridsize), seed=seed)
    data, model, training, inference = from_training_config(config)
    module = PtychoPINN_Lightning(model, data, training, inference)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.network.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    probe, factor = normalize_probe(raw.probe_modes, config.model.probe_scale)
    module.attach_scan(probe, x_scale=x_scale(raw.amplitude()), nphotons=1e6, probe_factor=factor)
    counts = np.square(raw.amplitude()).reshape(-1, gridsize**2, N, N)
    return module.eval(), counts


def measure(name: str, N: int, gridsize: int, repeats: int, seed: int) -> tuple[float, float, float]:
    """(torch patterns/s, onnxruntime patterns/s, relative difference)."""
    module, counts = random_module(name, N, gridsize, seed)
    with tempfile.TemporaryDirectory() as folder:
        model = open_onnx(write_onnx(state_of(module), Path(folder) / "model.onnx"))
    scale = np.float32(module.x_scale)

    @torch.inference_mode()
    def by_torch() -> np.ndarray:
        return np.asarray(module(torch.from_numpy(np.sqrt(counts) * scale)).numpy())

    ways: list[Callable[[], np.ndarray]] = [by_torch, lambda: model.predict(counts)]
    wanted, found = (way() for way in ways)
    best = [np.inf, np.inf]
    for _ in range(repeats):
        for i, way in enumerate(ways):
            begun = time.perf_counter()
            way()
            best[i] = min(best[i], time.perf_counter() - begun)
    difference = np.abs(found - wanted).max() / np.abs(wanted).max()
    return BATCH / best[0], BATCH / best[1], float(difference)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # read by open_onnx
    import onnxruntime

    print(f"{describe(options.seed)}, onnxruntime {onnxruntime.__version__}\n")
    print("| network | N | gridsize | torch patterns/s | onnxruntime patterns/s | ratio | difference |")
    print("|---|---|---|---|---|---|---|")
    for N in options.sides:
        for name in ("swift", "cnn"):
            for gridsize in (1, 2):
                torch_rate, onnx_rate, difference = measure(name, N, gridsize, options.repeats, options.seed)
                print(
                    f"| {name} | {N} | {gridsize} | {torch_rate:.0f} | {onnx_rate:.0f} | "
                    f"{onnx_rate / torch_rate:.2f} | {difference:.0e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
