"""A run that is broken off in the middle of an epoch goes on to the bytes of an unbroken one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.errors import ConfigError
from ptycho.workflows import train as training
from ptycho_torch.fit.checkpoints import AtomicCheckpoints
from ptycho_torch.fit.within_epoch import place_of
from ptycho_torch.workflows import components

#: every diagnostic, a schedule by steps, a moving average: all that has a state of its own
SETTINGS = {
    "nepochs": 3, "batch_size": 4, "probe_from": "guess", "ema_decay": 0.9, "scheduler": "WarmupCosine",
    "probe_trainable": True,
    "diagnostics": [{"name": "r_factor"}, {"name": "gradient_norm"}, {"name": "photons"}],
}  # fmt: skip
#: a checkpoint after every optimiser step
EVERY_STEP = 1e-9


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def kept(monkeypatch, folder: Path) -> list[Path]:
    """Copies of every `last.ckpt` that a run writes from now on, in order."""
    write = AtomicCheckpoints.save_checkpoint
    found: list[Path] = []

    def and_keep(self, checkpoint, path, storage_options=None):
        write(self, checkpoint, path, storage_options)
        if Path(path).name == "last.ckpt":
            found.append(folder / f"{len(found)}.ckpt")
            shutil.copy(path, found[-1])

    monkeypatch.setattr(AtomicCheckpoints, "save_checkpoint", and_keep)
    return found


@pytest.mark.parametrize("accumulate, workers", [(1, 0), (2, 0), (1, 1)])
def test_every_step_is_a_place_to_go_on_from(
    make_scan, small_config, tmp_path, monkeypatch, accumulate, workers
):
    raw = make_scan(n_positions=21)  # 19 train: five batches an epoch, the last of three
    execution = PyTorchExecutionConfig(
        accelerator="cpu", accum_steps=accumulate, num_workers=workers, logger_backend="none"
    )
    whole = small_config(raw, output_dir=tmp_path / "whole", **SETTINGS)
    wanted = components.train_cdi_model_torch(raw, None, whole, execution)["history"]

    stepwise = PyTorchExecutionConfig(
        accelerator="cpu", accum_steps=accumulate, num_workers=workers, logger_backend="none",
        checkpoint_every_s=EVERY_STEP,
    )  # fmt: skip
    copies = kept(monkeypatch, tmp_path)
    config = small_config(raw, output_dir=tmp_path / "steps", **SETTINGS)
    assert components.train_cdi_model_torch(raw, None, config, stepwise)["history"] == wanted
    places = [place_of(torch.load(path, weights_only=True)) for path in copies]
    within = [1, 2, 3, 4] if accumulate == 1 else [2, 4]
    assert [tuple(p) for p in places if p.batches] == [(e, b) for e in range(3) for b in within]
    monkeypatch.undo()

    # within the first and the second epoch; with workers, which read ahead, also after a whole one
    chosen = {1: [1, 8], 2: [4]}[accumulate] if not workers else [4, 8]
    assert [bool(places[n].batches) for n in chosen] == (
        [True] * len(chosen) if not workers else [False, True]
    )
    for number in chosen:
        folder = tmp_path / f"from_{number}"
        (folder / "checkpoints").mkdir(parents=True)
        shutil.copy(tmp_path / "steps" / "checkpoints" / "start.npz", folder / "checkpoints")
        last = folder / "checkpoints" / "last.ckpt"
        shutil.copy(copies[number], last)
        again = small_config(raw, output_dir=folder, **SETTINGS)
        resumed = components.train_cdi_model_torch(raw, None, again, execution, resume=last)
        assert resumed["history"] == wanted
        one, other = weights(tmp_path / "whole"), weights(folder)
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_goes_on_with_as_many_processes_as_wrote_it(make_scan, small_config, tmp_path, monkeypatch):
    raw = make_scan(n_positions=21)
    execution = PyTorchExecutionConfig(
        accelerator="cpu", logger_backend="none", checkpoint_every_s=EVERY_STEP
    )
    copies = kept(monkeypatch, tmp_path)
    config = small_config(raw, output_dir=tmp_path / "run", **(SETTINGS | {"nepochs": 1}))
    components.train_cdi_model_torch(raw, None, config, execution)
    stored = torch.load(copies[0], weights_only=True)
    own = stored["callbacks"]["WithinEpoch"]
    own["sums"] = own["sums"].repeat(2, 1)
    torch.save(stored, copies[0])
    monkeypatch.setattr(training, "train_and_test", None)  # refused before the scan is prepared
    with pytest.raises(ConfigError, match="written within an epoch by 2, .* set devices to 2"):
        components.train_cdi_model_torch(raw, None, config, execution, resume=copies[0])
