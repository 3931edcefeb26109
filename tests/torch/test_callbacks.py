"""Callbacks of Lightning runs: what each adds, judged against formulas and against the files it wrote."""

from __future__ import annotations

import copy
import csv
import logging
from pathlib import Path

import lightning_runs
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.errors import RunError
from ptycho.io.resources import MEMORY, RATE
from ptycho.run.image_quality import PSNR, SSIM
from ptycho.run.preparation import train_and_test
from ptycho.tracking.names import in_contract
from ptycho_torch.callbacks.learning_rate import LearningRates
from ptycho_torch.callbacks.resume import Plateau
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


def test_a_run_leaves_a_text_log_coverage_and_speed(make_scan, small_config, tmp_path):
    raw = make_scan()
    before = {name: list(logging.getLogger(name).handlers) for name in ("", "ptycho", "ptycho_torch")}
    config = small_config(raw, nepochs=3, output_dir=tmp_path)
    history = components.train_cdi_model_torch(raw, None, config, execution(log_throughput=True))["history"]
    assert before == {name: list(logging.getLogger(name).handlers) for name in before}

    lines = [line.split(" ", 1)[1] for line in (tmp_path / "training.log").read_text().splitlines()]
    assert lines[0].startswith("start: backend pytorch, settings ") and "seed 0, epochs 3" in lines[0]
    shown = f"epoch 1: train_loss {history['train_loss'][1]:.6g} val_loss {history['val_loss'][1]:.6g} "
    assert lines[2].startswith(f"{shown}learning_rate 0.001 ") and lines[4:] == ["end: done after 3 epochs"]

    with np.load(tmp_path / "coverage.npz") as stored:
        counts, places = stored["counts"], stored["positions_px"]
    assert places.shape == (30, 2) and sorted(set(counts)) == [0, 3] and (counts == 0).sum() == 3
    assert (tmp_path / "figures" / "sampler_coverage.png").read_bytes().startswith(b"\x89PNG")

    with (tmp_path / "logs" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row[RATE]) > 0 and 0.01 < float(row[MEMORY]) < 1000 for row in rows)
    assert in_contract(RATE) and in_contract(MEMORY) and RATE not in history


def test_no_logger_still_leaves_text_log_and_coverage_and_no_folder_leaves_nothing(
    make_scan, small_config, tmp_path, monkeypatch
):
    raw, settings = make_scan(n_positions=16), execution(logger_backend="none")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in (tmp_path / "run", Path()):
        components.train_cdi_model_torch(raw, None, small_config(raw, nepochs=1, output_dir=folder), settings)
    assert not list(Path().iterdir())
    found = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert found == {"training.log", "coverage.npz", "figures/sampler_coverage.png"}
    assert (tmp_path / "run" / "training.log").read_text().endswith("end: done after 1 epochs\n")


def test_the_text_log_tells_of_a_failure_and_keeps_earlier_ones(make_scan, small_config, tmp_path):
    raw = make_scan()
    config = small_config(raw, nepochs=2, optimizer="sgd", momentum=0.0, output_dir=tmp_path)
    for _ in range(2):
        with pytest.raises(RunError):
            components.train_cdi_model_torch(raw, None, config, execution(learning_rate=1e30))
    for name in ("training.log", "training.1.log"):
        assert " end: failed after " in (tmp_path / name).read_text().splitlines()[-1]


def test_every_group_of_an_optimiser_has_its_rate_in_the_history(make_scan, small_config, silent):
    from ptycho_torch.training import History

    history = History()
    groups = [{"lr": 0.1, "name": "decoder"}, {"lr": 0.0, "name": "probe"}]
    trainer = type("T", (), {"optimizers": [type("O", (), {"param_groups": groups})()]})()
    LearningRates(history).on_train_epoch_end(trainer, None)
    assert history.epochs == {"learning_rate/decoder": [0.1], "learning_rate/probe": [0.0]}
    trainer.optimizers[0].param_groups = groups[:1]
    LearningRates(history).on_train_epoch_end(trainer, None)
    assert len(history.epochs["learning_rate/decoder"]) == 1


def test_psnr_and_ssim_stand_beside_the_bar_where_the_truth_is_known(make_scan, small_config, tmp_path):
    told = []
    for name, truth in (("known", True), ("unknown", False)):
        raw = make_scan(n_positions=49) if truth else make_scan(n_positions=49, objectGuess=None)
        config = small_config(raw, nepochs=2, output_dir=tmp_path / name, probe_from="guess")
        settings = execution(recon_log_every_n_epochs=2, recon_log_stitch=True)
        components.train_cdi_model_torch(
            raw, None, config, settings, progress=lambda done, total, shown: told.append(shown)
        )
    more = [set(shown) - {"train_loss", "val_loss"} for shown in told]
    assert more == [set(), {"psnr", "ssim"}, set(), set()]
    with (Path(tmp_path) / "known" / "logs" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row[PSNR]) for row in rows] == [False, True]
    assert float(rows[1][PSNR]) == told[1]["psnr"] and -1 <= float(rows[1][SSIM]) <= 1


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
