"""Callbacks of Lightning itself: average, plateau, rates, histograms, judged against formulas."""

from __future__ import annotations

import copy

import lightning_runs
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.run.preparation import train_and_test
from ptycho_torch.fit.stopping import Plateau
from ptycho_torch.fit.telling import row_of
from ptycho_torch.workflows import components


def execution(**changes) -> PyTorchExecutionConfig:
    return PyTorchExecutionConfig(**{"accelerator": "cpu", "enable_checkpointing": False, **changes})


def prepared(raw, config, settings, *more: Callback) -> lightning_runs.LightningRun:
    run = lightning_runs.prepare_lightning_run(*train_and_test(raw, None, config), config, settings)
    run.trainer.callbacks += list(more)
    return run


class Steps(Callback):
    """The weights after every optimiser step, and those that are validated."""

    def __init__(self) -> None:
        self.after: list[dict[str, torch.Tensor]] = []
        self.validated: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step > len(self.after):
            self.after.append(copy.deepcopy(dict(pl_module.named_parameters())))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self.validated.append(copy.deepcopy(dict(pl_module.named_parameters())))


def averages(steps: list[np.ndarray], decay: float) -> list[np.ndarray]:
    kept, made = steps[0], [steps[0]]
    for n, now in enumerate(steps[1:], 1):
        forget = 1 - min(decay, (1 + n) / (10 + n))
        kept = kept + forget * (now - kept)
        made.append(kept)
    return made


def test_the_moving_average_is_validated_and_kept(make_scan, small_config, tmp_path):
    raw, seen = make_scan(), Steps()
    config = small_config(raw, nepochs=3, ema_decay=0.3, output_dir=tmp_path)
    run = prepared(raw, config, execution(accum_steps=2), seen)
    results = lightning_runs.fit_lightning_run(run)
    final = dict(results["models"]["diffraction_to_obj"].named_parameters())
    assert len(seen.after) == 6  # four batches an epoch, two of them a step
    for name in ("log_scale", "network.weights.stem.weight"):
        wanted = averages([step[name].detach().double().numpy() for step in seen.after], 0.3)
        assert not np.allclose(wanted[-1], seen.after[-1][name].detach(), rtol=1e-3)
        for epoch, validated in enumerate(seen.validated):
            found = validated[name].detach()
            np.testing.assert_allclose(found, wanted[2 * epoch + 1], rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(final[name].detach(), wanted[-1], rtol=1e-5, atol=1e-8)
    assert torch.equal(final["probe"], seen.after[0]["probe"])  # it does not train


def test_the_plateau_lowers_the_rate_as_torch_does(make_scan, small_config):
    values = [3.0, 2.0, 2.0, 2.1, 2.2, 1.0, 1.0, 1.0, 1.0]
    rates = {}
    for cut in (False, True):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        trainer = type("T", (), {"optimizers": [optimizer], "callback_metrics": {}})()
        plateau, found = Plateau("val_loss", factor=0.3, patience=1, min_lr=1e-4), []
        plateau.on_train_start(trainer, None)
        for n, value in enumerate(values):
            if cut and n == 4:  # a resume: another callback, with what the checkpoint knew
                other = Plateau("val_loss", factor=0.3, patience=1, min_lr=1e-4)
                other.load_state_dict(plateau.state_dict())
                other.on_train_start(trainer, None)
                plateau = other
            trainer.callback_metrics["val_loss"] = torch.tensor(value)
            plateau.on_train_epoch_end(trainer, None)
            found.append(optimizer.param_groups[0]["lr"])
        rates[cut] = found
    own = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(own, factor=0.3, patience=1, min_lr=1e-4)
    wanted = []
    for value in values:
        theirs.step(value)
        wanted.append(own.param_groups[0]["lr"])
    assert rates[False] == rates[True] == wanted and len(set(wanted)) > 2


def test_every_group_of_an_optimiser_has_its_rate_in_the_row():
    groups = [{"lr": 0.1, "name": "decoder"}, {"lr": 0.0, "name": "probe"}]
    metrics = {
        "train_loss": torch.tensor(2.0),
        "_hidden": torch.tensor(1.0),
        "loss/a_step": torch.tensor(1.0),
    }
    fields = {"callback_metrics": metrics, "current_epoch": 3}
    trainer = type("T", (), {"optimizers": [type("O", (), {"param_groups": groups})()], **fields})()
    rates = {"learning_rate": 0.1, "learning_rate/decoder": 0.1, "learning_rate/probe": 0.0}
    assert row_of(trainer) == {"train_loss": 2.0, **rates, "epoch": 3.0}
    trainer.optimizers[0].param_groups = groups[:1]
    assert row_of(trainer) == {"train_loss": 2.0, "learning_rate": 0.1, "epoch": 3.0}


def test_tensorboard_gets_histograms_every_tenth_epoch(make_scan, small_config, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    raw = make_scan(n_positions=12)
    config = small_config(raw, nepochs=11, output_dir=tmp_path, probe_trainable=True)
    components.train_cdi_model_torch(raw, None, config, execution(logger_backend="tensorboard"))
    events = EventAccumulator(str(tmp_path / "logs"), size_guidance={"histograms": 0})
    events.Reload()
    tags = set(events.Tags()["histograms"])
    assert {"weights/probe", "gradients/probe", "weights/stem.weight", "gradients/stem.weight"} <= tags
    assert [image.step for image in events.Images("figures/sampler_coverage")] == [21]
    found = events.Histograms("gradients/probe")
    assert [event.step for event in found] == [19]  # two steps an epoch
    assert found[0].histogram_value.num == 2 * 32 * 32
