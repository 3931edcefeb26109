"""Trainings by several processes of this machine, as torchrun starts them; one import for all of them."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.normalization import normalize_probe
from ptycho.scan.raw_data import RawData
from ptycho.simulation import Scenario, simulate
from ptycho.workflows.train import train
from ptycho_torch import data
from ptycho_torch.fit.trainer import make_trainer, quiet_lightning
from ptycho_torch.module import PtychoPINN

_PRELOADED = ["ptycho_torch.fit.run", "ptycho.workflows.train", "ptycho.simulation"]


def together(
    count: int, job: Callable[..., None], *arguments: Any, timeout_s: float = 240
) -> list[int | None]:
    """Run `job(*arguments)` in `count` processes of one run; their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = [context.Process(target=_one, args=(rank, count, port, job, arguments)) for rank in range(count)]
    for process in made:
        process.start()
    for process in made:
        process.join(timeout_s)
    late = [process for process in made if process.is_alive()]
    for process in late:
        process.kill()
        process.join()
    return [process.exitcode for process in made]


def _one(rank: int, count: int, port: int, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    torch.set_num_threads(1)
    job(*arguments)


def trained(
    folder: Path,
    changes: dict[str, Any],
    execution: dict[str, Any],
    *,
    resume: Path | None = None,
) -> None:
    """Train on a small scan; the first process leaves history and weights in `folder`."""
    raw = simulate(Scenario(N=32, n_positions=46, step_px=3.0, photons=1e4, seed=2)).raw
    settings = {
        "batch_size": 4, "val_fraction": 0.15, "nepochs": 2, "probe_from": "guess", "optimizer": "sgd",
        "gradient_clip_val": 1.0, "output_dir": folder, **changes,
    }  # fmt: skip
    config = TrainingConfig(model=ModelConfig(N=32, n_filters_scale=1), **settings)
    quiet = {"accelerator": "cpu", "logger_backend": "none", **execution}
    made = train(raw, None, config, PyTorchExecutionConfig(**quiet), resume=resume)
    if os.environ.get("RANK", "0") == "0":
        torch.save(made.history, folder / "history.pt")
        torch.save(made.model.state_dict(), folder / "weights.pt")


def first_step(folder: Path, sizes: list[int], devices: int, accumulate: int) -> None:
    """One step of SGD over batches of these sizes, one after another; the weights it leaves."""
    raw = simulate(Scenario(N=32, n_positions=16, step_px=3.0, photons=1e4, seed=2)).raw
    config = TrainingConfig(
        model=ModelConfig(N=32, n_filters_scale=1), nepochs=1, optimizer="sgd", output_dir=Path()
    )
    container = PtychoDataContainer.from_raw(raw, 1)
    module = PtychoPINN(config, 1e-3)
    modes, factor = normalize_probe(container.probe, config.model.probe_scale)
    module.attach_scan(modes, x_scale=container.x_scale, nphotons=container.nphotons, probe_factor=factor)
    ends = np.cumsum([0, *sizes])
    batches = [(np.arange(a, b), False) for a, b in pairwise(ends)]
    loader = data.make_loader(data.GroupDataset(container), data.FixedBatches(batches))
    execution = PyTorchExecutionConfig(
        accelerator="cpu", logger_backend="none", enable_checkpointing=False, devices=devices,
        accum_steps=accumulate,
    )  # fmt: skip
    before = {name: value.clone() for name, value in module.named_parameters()}
    with quiet_lightning():
        trainer = make_trainer(config, execution, [], None)
        trainer.fit(module, loader, loader)
    assert trainer.global_step == 1
    if trainer.is_global_zero:
        moved = {name: (value - before[name]).detach() for name, value in module.named_parameters()}
        torch.save(moved, folder / "moved.pt")


def broken(folder: Path, changes: dict[str, Any], execution: dict[str, Any], fault: str, at: int) -> None:
    """`trained`, in which something befalls a process at its training step `at`; what ended the others is in
    `error.RANK`, with the seconds since then.

    fault: `killed`, process 1; `full`, the disk of process 0, for whom no file may grow beyond 20 kB.
    """
    rank, step, count = int(os.environ["RANK"]), PtychoPINN.training_step, 0

    def befallen(self: PtychoPINN, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        nonlocal count, begun
        count += 1
        if count == at:
            begun = time.monotonic()
            if fault == "killed" and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "full" and rank == 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        return step(self, batch, batch_idx)

    begun = 0.0
    PtychoPINN.training_step = befallen  # type: ignore[method-assign]
    try:
        trained(folder, changes, execution)
    except Exception as error:
        said = f"{time.monotonic() - begun}\n{type(error).__name__}: {error}"
        (folder / f"error.{rank}").write_text(said)
        os._exit(1)  # as a program ends, without waiting for the others


def counted(folder: Path) -> None:
    """Train an epoch on the scans `0.npz`, `1.npz`, ... of a folder, from disk; `rows.RANK.npy` are the rows
    (scan, pattern) that this process read for its training batches."""
    read, rows = data.GroupDataset.__getitem__, []

    def noted(self: data.GroupDataset, batch: Any) -> dict[str, Any]:
        if self.held_out is None and not isinstance(batch, data.Repeated):
            place, local = self.scans.where(batch[0])
            container = self.scans.containers[place]
            assert isinstance(container.patterns, np.memmap)
            rows.extend((place, row) for row in container.nn_indices[local].reshape(-1).tolist())
        return read(self, batch)

    data.GroupDataset.__getitem__ = noted  # type: ignore[method-assign]
    scans = [RawData.from_file(path, patterns="disk") for path in sorted(folder.glob("[0-9].npz"))]
    config = TrainingConfig(
        model=ModelConfig(N=32, n_filters_scale=1), nepochs=1, batch_size=4, probe_from="guess",
        output_dir=folder,
    )  # fmt: skip
    execution = PyTorchExecutionConfig(
        accelerator="cpu", logger_backend="none", patterns="disk", devices=int(os.environ["WORLD_SIZE"])
    )
    train(scans, None, config, execution)
    np.save(folder / f"rows.{os.environ['RANK']}.npy", np.array(rows))


def resumed(folder: Path, changes: dict[str, Any], execution: dict[str, Any]) -> None:
    """`trained` from the last checkpoint in the folder."""
    trained(folder, changes, execution, resume=folder / "checkpoints" / "last.ckpt")
