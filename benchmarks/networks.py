"""Training and inference rates of the two networks, and the share of the machine's matrix-multiply rate they
reach.

    python benchmarks/networks.py [--sides 64 128] [--seed 0]

A training step is forward, region merge, diffraction, likelihood, backward and Adam on 16 patterns; inference
is the network alone on 64. Each rate is the best of several timed batches; multiply-adds are those of the
convolutions, three times the forward ones for a training step.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import describe, matmul_gflops
from ptycho.config.config import ModelConfig, TrainingConfig
from ptycho.networks import graphs as architectures
from ptycho.networks.graphs import NetworkSpec
from ptycho.run.preparation import ensure_container, plan_training
from ptycho.run.starting_probe import starting_probe
from ptycho.simulation import Scenario, simulate
from ptycho_torch.config_bridge import from_training_config
from ptycho_torch.data import GroupDataset
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.refine.starting import refined_modes


def best_seconds(step, repeats: int) -> float:
    """Shortest of several calls, after one to warm up."""
    step()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return min(times)


def measure(name: str, N: int, seed: int) -> tuple[float, float, float]:
    """(training patterns/s, inference patterns/s, multiply-adds of one forward pattern)."""
    scan = simulate(Scenario(N=N, n_positions=64, seed=seed)).raw
    config = TrainingConfig(model=ModelConfig(N=N, architecture=name), seed=seed)
    data, model, training, inference = from_training_config(config)
    module = PtychoPINN_Lightning(model, data, training, inference)
    container = ensure_container(scan, config)
    start = starting_probe(container, config, refined_modes)
    module.attach_scan(
        start.modes, x_scale=container.x_scale, nphotons=container.nphotons, probe_factor=start.factor
    )
    batch = GroupDataset(container)[plan_training(container, None, config).epoch(0)[0]]
    optimizer = torch.optim.Adam(p for p in module.parameters() if p.requires_grad)

    def train() -> None:
        optimizer.zero_grad()
        module.terms(batch)["loss"].backward()
        optimizer.step()

    x = torch.from_numpy(container.patterns[:64, None])

    @torch.inference_mode()
    def infer() -> None:
        module(x)

    spec = NetworkSpec(N=N)
    cost = architectures.count_multiply_adds(architectures.describe(name, spec), spec)
    repeats = 3 if name == "cnn" else 10
    return 16 / best_seconds(train, repeats), 64 / best_seconds(infer, repeats), cost


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    peak = matmul_gflops()
    print(describe(options.seed))
    print(f"float32 matrix multiply: {peak:.0f} GFLOP/s\n")
    print("| network | N | multiply-adds | training patterns/s | share | inference patterns/s | share |")
    print("|---|---|---|---|---|---|---|")
    for N in options.sides:
        for name in ("cnn", "swift"):
            train, infer, cost = measure(name, N, options.seed)
            shares = [rate * passes * 2 * cost / 1e9 / peak for rate, passes in ((train, 3), (infer, 1))]
            print(
                f"| {name} | {N} | {cost / 1e6:.1f} M | {train:.0f} | {shares[0]:.0%} | "
                f"{infer:.0f} | {shares[1]:.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
