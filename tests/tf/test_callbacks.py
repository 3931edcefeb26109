"""Callbacks of Keras runs: what each adds, judged against formulas, files, and what torch writes."""

from __future__ import annotations

import csv
from pathlib import Path

import keras
import numpy as np
import pytest

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.io.resources import MEMORY, RATE
from ptycho.run.image_quality import PSNR, SSIM
from ptycho.workflows import components


class Steps(keras.callbacks.Callback):
    """The scale after every optimiser step, and the one that is validated."""

    def __init__(self) -> None:
        super().__init__()
        self.after: list[float] = []
        self.validated: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.steps.iterations.numpy()) > len(self.after):
            self.after.append(float(self.model.log_scale.numpy()))

    def on_test_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.validated.append(float(self.model.log_scale.numpy()))


def averages(steps: list[float], decay: float) -> list[float]:
    kept, made = steps[0], [steps[0]]
    for n, now in enumerate(steps[1:], 1):
        kept += (1 - min(decay, (1 + n) / (10 + n))) * (now - kept)
        made.append(kept)
    return made


def test_a_run_leaves_what_torch_leaves_and_the_average_is_validated_and_kept(
    make_scan, small_config, tmp_path, monkeypatch
):
    from ptycho.tf import training

    raw, seen, told = make_scan(n_positions=49), Steps(), []
    plain = training.make_callbacks
    monkeypatch.setattr(training, "make_callbacks", lambda *a, **k: [*plain(*a, **k), seen])
    execution = PyTorchExecutionConfig(
        accelerator="cpu", accum_steps=2, log_throughput=True, recon_log_every_n_epochs=2,
        recon_log_stitch=True, checkpoint_save_top_k=0,
    )  # fmt: skip
    config = small_config(raw, nepochs=3, ema_decay=0.3, output_dir=tmp_path)
    results = components.train_cdi_model(
        raw, None, config, execution, progress=lambda done, total, shown: told.append(set(shown))
    )
    wanted = averages(seen.after, 0.3)
    per_epoch = len(seen.after) // 3
    np.testing.assert_allclose(seen.validated, wanted[per_epoch - 1 :: per_epoch], rtol=1e-5)
    final = float(results["models"]["diffraction_to_obj"].log_scale.numpy())
    assert final == pytest.approx(wanted[-1], rel=1e-5) and abs(final - seen.after[-1]) > 1e-4 * abs(final)

    assert told == [{"train_loss", "val_loss"}, {"train_loss", "val_loss", "psnr", "ssim"}, told[0]]
    with (tmp_path / "logs" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row[RATE]) > 0 and 0.01 < float(row[MEMORY]) < 1000 for row in rows)
    assert [bool(row[PSNR]) for row in rows] == [bool(row[SSIM]) for row in rows] == [False, True, False]
    assert not {RATE, PSNR} & set(results["history"])

    lines = [line.split(" ", 1)[1] for line in (tmp_path / "training.log").read_text().splitlines()]
    assert lines[0].startswith("start: backend tensorflow, settings ")
    shown = f"epoch 1: train_loss {results['history']['train_loss'][1]:.6g} val_loss "
    assert lines[2].startswith(shown) and lines[4:] == ["end: done after 3 epochs"]
    with np.load(tmp_path / "coverage.npz") as stored:
        assert sorted(set(stored["counts"])) == [0, 3] and int(stored["epochs"]) == 3
    assert (tmp_path / "figures" / "sampler_coverage.png").is_file()


def test_no_logger_still_leaves_text_log_and_coverage_and_no_folder_leaves_nothing(
    make_scan, small_config, tmp_path, monkeypatch, silent
):
    raw, settings = make_scan(n_positions=16), silent
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in (tmp_path / "run", Path()):
        components.train_cdi_model(raw, None, small_config(raw, nepochs=1, output_dir=folder), settings)
    assert not list(Path().iterdir())
    found = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert found == {"training.log", "coverage.npz", "figures/sampler_coverage.png"}
    assert (tmp_path / "run" / "training.log").read_text().endswith("end: done after 1 epochs\n")


def test_tensorboard_gets_the_histograms_of_torch(make_scan, small_config, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ptycho_torch.workflows import components as torch_components

    raw, found = make_scan(n_positions=12), []
    execution = PyTorchExecutionConfig(
        accelerator="cpu", enable_checkpointing=False, logger_backend="tensorboard"
    )
    for name, train, backend in (
        ("tf", components.train_cdi_model, "tensorflow"),
        ("torch", torch_components.train_cdi_model_torch, "pytorch"),
    ):
        config = small_config(
            raw, nepochs=10, output_dir=tmp_path / name, probe_trainable=True, backend=backend
        )
        train(raw, None, config, execution)
        events = EventAccumulator(str(tmp_path / name / "logs"), size_guidance={"histograms": 0})
        events.Reload()
        found.append({tag: events.Histograms(tag)[0] for tag in events.Tags()["histograms"]})
        assert [image.step for image in events.Images("figures/sampler_coverage")] == [19]
    assert found[0].keys() == found[1].keys()
    for tag, histogram in found[0].items():
        assert histogram.step == found[1][tag].step == 19
        assert histogram.histogram_value.num == found[1][tag].histogram_value.num, tag
