# ruff: noqa: D103, T201
"""CPU seconds of two trees of this repository in turns: python two_trees.py BEFORE AFTER [seconds]

Each tree runs in a process of its own and waits; the parent asks one, then the other, in changing order, so
that a busy machine slows both. Processor seconds of one thread; the least and the median of all turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time


def jobs():
    """name -> call, of the tree that is on the path."""
    import numpy as np
    import tensorflow as tf
    import torch
    from ptycho.tf.inference import predict_groups as predict_tf
    from ptycho.tf.inference import reconstruct_container as image_tf
    from ptycho_torch.training import configure_optimizers
    from ptycho_torch.workflows.inference import predict_groups as predict_torch
    from ptycho_torch.workflows.inference import reconstruct_container as image_torch

    from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
    from ptycho.run.preparation import ensure_container
    from ptycho.run.starting_probe import starting_probe
    from ptycho.simulation import Scenario, simulate
    from ptycho.tf.optimizers import Optimizer
    from ptycho.workflows.parity.pair import Pair, tf_batch, torch_batch
    from ptycho_torch.refine.starting import refined_modes

    torch.set_num_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    labels = [{"name": n} for n in ("poisson_nll", "label_phase", "label_ssim", "label_edges")]
    kinds = {
        "swift N64, region": ("swift", 64, 1, True, {}),
        "cnn N64, region": ("cnn", 64, 1, True, {}),
        "swift N64, groups of 4": ("swift", 64, 2, False, {}),
        "swift N64, labels": ("swift", 64, 1, True, {"objectives": labels}),
        "swift N128, region": ("swift", 128, 1, True, {}),
    }
    chosen = os.environ.get("KINDS", "").split(";")
    kinds = {title: kind for title, kind in kinds.items() if chosen == [""] or title in chosen}
    found = {}
    for title, (network, N, gridsize, region, settings) in kinds.items():
        raw = simulate(Scenario(N=N, n_positions=64, seed=0)).raw
        model = ModelConfig(N=N, architecture=network, gridsize=gridsize)
        config = TrainingConfig(model=model, seed=0, probe_from="guess", **settings)
        container = ensure_container(raw, config)
        probe = starting_probe(container, config, refined_modes)
        pair = Pair.of(container, config, probe, "float32", PyTorchExecutionConfig(logger_backend="none"))
        batch = pair.batch(0) | {"region": np.asarray(region)}
        ours, theirs = torch_batch(batch), tf_batch(batch)
        optimizer = configure_optimizers(pair.torch)
        pair.keras.steps = Optimizer(pair.keras.trained(), config, pair.torch.learning_rate)
        step = tf.function(pair.keras.train_step, autograph=False, reduce_retracing=True)
        x = container.patterns[container.nn_indices[:64]]

        def train_torch(pair=pair, ours=ours, optimizer=optimizer):
            optimizer.zero_grad()
            pair.torch.terms(ours)["loss"].backward()
            optimizer.step()

        def train_tf(pair=pair, theirs=theirs, step=step):
            step(theirs)
            pair.keras.last_loss.numpy()

        def infer_torch(pair=pair, x=x):
            with torch.no_grad():
                predict_torch(pair.torch, torch.from_numpy(x)).numpy()

        found[f"{title}: step, PyTorch"] = train_torch
        found[f"{title}: step, TensorFlow"] = train_tf
        if settings:
            continue
        found[f"{title}: inference, PyTorch"] = infer_torch
        found[f"{title}: inference, TensorFlow"] = lambda p=pair, x=x: predict_tf(p.keras, x).numpy()
        if N == 64 and network == "swift":
            found[f"{title}: image, PyTorch"] = lambda p=pair, c=container: image_torch(p.torch, c)
            found[f"{title}: image, TensorFlow"] = lambda p=pair, c=container: image_tf(p.keras, c)
    return found


def serve() -> None:
    """Answer on standard output: the names, then the processor seconds of every call asked for."""
    made = jobs()
    for call in made.values():
        call(), call()
    print("READY " + json.dumps(list(made)), flush=True)
    for line in sys.stdin:
        call = made[line.strip()]
        begun = time.process_time()
        call()
        print(f"TOOK {time.process_time() - begun}", flush=True)


def answer(process: subprocess.Popen[str], word: str) -> str:
    for line in process.stdout:
        if line.startswith(word):
            return line[len(word) :]
    raise SystemExit("a tree has died")


def main(before: str, after: str, seconds: float) -> None:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    children = [
        subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "serve"], cwd=tree, text=True,
            env={**os.environ, **quiet, "TF_NUM_INTEROP_THREADS": "1", "PYTHONPATH": os.path.abspath(tree)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        for tree in (before, after)
    ]  # fmt: skip
    names = [json.loads(answer(child, "READY ")) for child in children][0]
    took = {name: ([], []) for name in names}
    begun, turn = time.perf_counter(), 0
    while turn < 3 or time.perf_counter() - begun < seconds:
        turn += 1
        for name in names:
            for i in (0, 1) if turn % 2 else (1, 0):
                print(name, file=children[i].stdin, flush=True)
                took[name][i].append(float(answer(children[i], "TOOK ")))
    print(f"{turn} turns\n")
    print("| job | before, least CPU ms | after | ratio of least | ratio of medians |")
    print("|---|---|---|---|---|")
    for name, (one, other) in took.items():
        medians = statistics.median(other) / statistics.median(one)
        print(
            f"| {name} | {min(one) * 1e3:.2f} | {min(other) * 1e3:.2f} | {min(other) / min(one):.3f} | "
            f"{medians:.3f} |"
        )
    for child in children:
        child.stdin.close()
        child.wait()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 300)
