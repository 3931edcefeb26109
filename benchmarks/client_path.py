"""What a client's calls cost beside the workflow's own: CPU seconds and peak memory, training and inference.

    OMP_NUM_THREADS=1 python benchmarks/client_path.py [--N 64] [--positions 256] [--epochs 10] [--repeats 2]
Both learn the same NPZ file with the same settings and write their model before they reconstruct from it.
Each run is a process of its own, so that neither inherits the other's memory; the two take turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PATHS = ("client", "direct")


def configurations(arguments: argparse.Namespace):
    """The settings of both paths, as a client passes them."""
    from ptycho_torch.api.base_api import (
        ConfigManager,
        DataConfig,
        InferenceConfig,
        ModelConfig,
        TrainingConfig,
    )

    return ConfigManager(
        data_config=DataConfig(N=arguments.N, C=1, grid_size=(1, 1)),
        model_config=ModelConfig(C_model=1, C_forward=1, n_filters_scale=1),
        training_config=TrainingConfig(
            epochs=arguments.epochs, batch_size=8, learning_rate=2e-3, gradient_clip_val=1.0, device="cpu"
        ),
        inference_config=InferenceConfig(middle_trim=32),
    )


def through_the_client(data: Path, output: Path, arguments: argparse.Namespace) -> np.ndarray:
    """Train, checkpoint, load, reconstruct, by the calls that ptychodus makes."""
    from ptycho.scan.raw_data import RawData
    from ptycho_torch.api.base_api import InferenceEngine, PtychoDataLoader, PtychoModel, Trainer
    from ptycho_torch.lightning_utils import find_best_checkpoint
    from ptycho_torch.model import PtychoPINN_Lightning

    configs = configurations(arguments)
    loader = PtychoDataLoader(data_dir=data, config_manager=configs, output_dir=output)
    model = PtychoModel._new_model(model=PtychoPINN_Lightning, config_manager=configs)
    Trainer._from_lightning(model=model, dataloader=loader, config_manager=configs).train()
    found = find_best_checkpoint(loader.output_dir)
    assert found is not None
    names = ("data_config", "model_config", "training_config", "inference_config")
    kept = dict(zip(names, PtychoModel._extract_configs_from_checkpoint(found), strict=True))
    loaded = PtychoModel(**kept)
    loaded.model = PtychoPINN_Lightning.load_from_checkpoint(found, **kept)
    again = configurations(arguments).from_loaded_model(loaded)
    raw = RawData.from_file(data / "train_data.npz")
    scan = PtychoDataLoader.from_np(raw.diff3d, raw.probe_modes, raw.positions_px[:, ::-1], again)
    return InferenceEngine(config_manager=again, ptycho_model=loaded).predict_and_stitch(scan)


def directly(data: Path, output: Path, arguments: argparse.Namespace) -> np.ndarray:
    """The same by the workflow's own functions."""
    from ptycho.scan.raw_data import RawData
    from ptycho_torch.workflows.components import load_inference_bundle_torch, run_cdi_example_torch
    from ptycho_torch.workflows.trained import infer_scan

    configs = configurations(arguments)
    configs.settle(arguments.N)
    raw = RawData.from_file(data / "train_data.npz")
    run_cdi_example_torch(raw, None, configs.training(output), execution_config=configs.execution())
    model, _ = load_inference_bundle_torch(output)
    again = RawData.from_file(data / "train_data.npz")
    _, _, results = infer_scan(
        model,
        again,
        config=configs.inference(),
        execution_config=configs.execution(),
        M=32,
        weighting="probe",
    )
    return results["object"]


def one(path: str, data: Path, arguments: argparse.Namespace) -> None:
    """Run one path in this process and print what it took."""
    import torch  # noqa: F401  # what both need is loaded before the clock starts

    import ptycho_torch.api.base_api
    import ptycho_torch.workflows.components  # noqa: F401

    run = through_the_client if path == "client" else directly
    clock, begun = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        image = run(data, Path(folder), arguments)
    found = {
        "cpu_s": time.process_time() - clock,
        "wall_s": time.perf_counter() - begun,
        "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "covered": int((image != 0).sum()),
    }
    print(json.dumps(found))


def main() -> None:
    """Run every case in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("N", 64), ("positions", 256), ("epochs", 10), ("repeats", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--one", nargs=2, metavar=("PATH", "DATA"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], Path(arguments.one[1]), arguments)
        return

    from machine import describe

    from ptycho.simulation import Scenario, simulate

    print(describe(0))
    print(f"{arguments.positions} positions of {arguments.N} px, {arguments.epochs} epochs")
    made: dict[str, list[dict]] = {path: [] for path in PATHS}
    with tempfile.TemporaryDirectory() as folder:
        scan = simulate(Scenario(N=arguments.N, n_positions=arguments.positions, photons=2e5))
        scan.raw.to_file(Path(folder) / "train_data.npz")
        for _ in range(arguments.repeats):
            for path in PATHS:
                words = [sys.executable, __file__, "--one", path, folder, "--N", str(arguments.N)]
                words += ["--epochs", str(arguments.epochs)]
                said = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
                made[path].append(json.loads(said.splitlines()[-1]))
    print("\n| path | CPU s | wall s | peak MiB |\n|---|---|---|---|")
    for path, runs in made.items():
        columns = [", ".join(f"{run[key]:.1f}" for run in runs) for key in ("cpu_s", "wall_s", "peak_MiB")]
        print(f"| {path} | " + " | ".join(columns) + " |")
    for key, name in (("cpu_s", "CPU seconds"), ("peak_MiB", "memory")):
        least = [min(run[key] for run in made[path]) for path in PATHS]
        print(f"{name}: the client's path takes {least[0] / least[1]:.3f} of the direct one")


if __name__ == "__main__":
    main()
