"""The moving average of the weights in a run with stages: it goes on across them, is kept, and resumes."""

from __future__ import annotations

import copy
from pathlib import Path

import lightning.pytorch as L
import lightning_runs
import numpy as np
import pytest
import torch

from ptycho.config.config import PyTorchExecutionConfig
from ptycho_torch.workflows import components

DECAY = 0.4
#: 27 training groups are four batches, so two optimiser steps an epoch; two stages begin within one
STAGES = [
    {"name": "heads", "steps": 3, "trainable": "decoder", "objectives": "amplitude_mae"},
    {"name": "probe", "steps": 2, "trainable": "probe"},
    {"name": "all", "epochs": 2, "learning_rate": {"encoder": 1e-3}},
]
OBJECTIVES = [{"name": "amplitude_mae"}, {"name": "poisson_nll", "weight": 0.5}]


class Steps(L.Callback):
    """The weights after every optimiser step, and those that are validated; ends the process at an epoch."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.after: list[dict[str, torch.Tensor]] = []
        self.validated: list[dict[str, torch.Tensor]] = []
        self._killed_at = killed_at

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self._killed_at:
            raise RuntimeError("killed")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step > len(self.after):
            self.after.append(copy.deepcopy(dict(pl_module.named_parameters())))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self.validated.append(copy.deepcopy(dict(pl_module.named_parameters())))


@pytest.fixture
def train(make_scan, small_config):
    """Train in the stages with an average; (steps, module, results)."""

    def build(folder: Path, *, resume: Path | None = None, killed_at: int | None = None):
        raw = make_scan()
        config = small_config(
            raw, probe_from="guess", probe_trainable=True, ema_decay=DECAY, stages=STAGES,
            objectives=OBJECTIVES, scheduler="WarmupCosine", output_dir=folder,
        )  # fmt: skip
        execution = PyTorchExecutionConfig(
            accelerator="cpu", logger_backend="none", learning_rate=5e-3, accum_steps=2
        )
        run = lightning_runs.prepare_lightning_run(
            components._ensure_container(raw, config), None, config, execution
        )
        steps = Steps(killed_at)
        run.trainer.callbacks.append(steps)
        return steps, run.module, lightning_runs.fit_lightning_run(run, resume=resume)

    return build


def averages(steps: list[np.ndarray]) -> list[np.ndarray]:
    """The average after every step: the n-th forgets by min(decay, (1 + n) / (10 + n)), the first copies."""
    made = [steps[0]]
    for n, now in enumerate(steps[1:], 1):
        made.append(made[-1] + (1 - min(DECAY, (1 + n) / (10 + n))) * (now - made[-1]))
    return made


def test_the_average_goes_on_across_stages_and_is_validated_and_kept(train, tmp_path):
    steps, module, _ = train(tmp_path)
    assert len(steps.after) == 9 and len(steps.validated) == 5
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    final = dict(module.named_parameters())
    for name in ("probe", "log_scale", "network.weights.stem.weight"):
        wanted = averages([step[name].detach().double().numpy() for step in steps.after])
        assert not np.allclose(wanted[-1], steps.after[-1][name].detach(), rtol=1e-3)
        for after, validated in zip((2, 4, 6, 8, 9), steps.validated, strict=True):
            found = validated[name].detach()
            np.testing.assert_allclose(found, wanted[after - 1], rtol=1e-5, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(final[name].detach(), wanted[-1], rtol=1e-5, atol=1e-7)
        assert torch.equal(stored["state_dict"][name], final[name].detach())
        assert torch.equal(stored["current_model_state"][name], steps.after[-1][name].detach())
    assert module.stage is None and all(p.requires_grad for p in module.parameters())


def test_a_run_broken_inside_a_stage_ends_with_the_average_of_the_unbroken_one(train, tmp_path):
    _, module, wanted = train(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "cut", killed_at=2)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    _, resumed, found = train(tmp_path / "cut", resume=last)
    assert str(found["history"]) == str(wanted["history"])  # no number is not equal to itself
    state = module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.state_dict().items())
    lasts = [tmp_path / folder / "checkpoints" / "last.ckpt" for folder in ("whole", "cut")]
    one, other = (torch.load(path, weights_only=True) for path in lasts)
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert one[key].keys() == other[key].keys()
        assert all(torch.equal(value, other[key][name]) for name, value in one[key].items()), key
