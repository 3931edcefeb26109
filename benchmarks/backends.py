"""Both backends side by side: rates of training and of inference, and TensorFlow's time over PyTorch's.

    OMP_NUM_THREADS=1 python benchmarks/backends.py [--sides 64 128] [--seconds 6] [--seed 0]

A training step is a region batch of 16 groups, gradient and Adam included, in the form that each backend
trains with (TensorFlow: one traced graph). Inference is 64 patterns in, complex patches out. The four take
turns, and the best of several calls counts, so that a busy machine slows all of them; CPU is processor
seconds, which do not count what others took.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tensorflow as tf
import torch

from benchmarks.machine import describe
from ptycho.backends import predictor_of
from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.run.preparation import ensure_container
from ptycho.run.starting_probe import starting_probe
from ptycho.simulation import Scenario, simulate
from ptycho.tf.optimizers import Optimizer
from ptycho.workflows.parity.pair import Pair, tf_batch, torch_batch
from ptycho_torch.optimizers import configure_optimizers
from ptycho_torch.refine.starting import refined_modes

PATTERNS = {"training": 16, "inference": 64}


def calls(name: str, N: int, seed: int) -> dict[tuple[str, str], Callable[[], Any]]:
    """What is timed, by (job, backend)."""
    raw = simulate(Scenario(N=N, n_positions=64, seed=seed)).raw
    config = TrainingConfig(model=ModelConfig(N=N, architecture=name), seed=seed)
    container = ensure_container(raw, config)
    probe = starting_probe(container, config, refined_modes)
    pair = Pair.of(container, config, probe, "float32", PyTorchExecutionConfig(logger_backend="none"))
    batch = pair.batch(0)
    ours, theirs = torch_batch(batch), tf_batch(batch)
    optimizer = configure_optimizers(pair.torch)
    pair.keras.steps = Optimizer(pair.keras.trained(), config, pair.torch.learning_rate)
    step = tf.function(pair.keras.train_step, autograph=False, reduce_retracing=True)

    def train_torch() -> None:
        optimizer.zero_grad()
        pair.torch.terms(ours)["loss"].backward()
        optimizer.step()

    def train_tf() -> None:
        step(theirs)
        pair.keras.last_loss.numpy()

    x = container.patterns[:64, None]
    return {
        ("training", "PyTorch"): train_torch,
        ("training", "TensorFlow"): train_tf,
        ("inference", "PyTorch"): lambda: predict(pair.torch, x),
        ("inference", "TensorFlow"): lambda: predict(pair.keras, x),
    }


def predict(model: Any, x: Any) -> Any:
    """Patches of a batch in either backend, as inference computes them."""
    seen = predictor_of(model)
    return seen.as_numpy(seen.predict(x))


def page_faults() -> int:
    """Pages that the system has handed to this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


Best = dict[Any, tuple[float, float, int]]


def best_of(jobs: dict[tuple[str, str], Callable[[], Any]], seconds: float) -> Best:
    """Least wall seconds, processor seconds and page faults of every call, in turns for so many seconds."""
    for call in jobs.values():
        call()
    best: Best = dict.fromkeys(jobs, (float("inf"), float("inf"), sys.maxsize))
    begun, turns = time.perf_counter(), 0
    while turns < 3 or time.perf_counter() - begun < seconds:
        turns += 1
        for key, call in jobs.items():
            wall, cpu, faults = time.perf_counter(), time.process_time(), page_faults()
            call()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            found = (wall, cpu, page_faults() - faults)
            best[key] = tuple(map(min, best[key], found))  # type: ignore[assignment]
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--networks", nargs="+", default=["swift", "cnn"])
    parser.add_argument("--seconds", type=float, default=6.0, help="for each network and side")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(f"{describe(options.seed)}, tensorflow {tf.__version__}\n")
    head = "PyTorch patterns/s | TensorFlow patterns/s | PyTorch CPU s | TensorFlow CPU s | ratio"
    print(f"| network | N | job | {head} | page faults |")
    print("|---|---|---|---|---|---|---|---|---|")
    for N in options.sides:
        for name in options.networks:
            best = best_of(calls(name, N, options.seed), options.seconds)
            for job, patterns in PATTERNS.items():
                wall, cpu, faults = best[job, "PyTorch"]
                tf_wall, tf_cpu, tf_faults = best[job, "TensorFlow"]
                print(
                    f"| {name} | {N} | {job} | {patterns / wall:.0f} | {patterns / tf_wall:.0f} | "
                    f"{cpu:.3f} | {tf_cpu:.3f} | {tf_cpu / cpu:.2f} | {faults} / {tf_faults} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
