"""A Keras run killed at any moment goes on to the weights of an unbroken one, and its logs with it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ptycho import backends
from ptycho.cli.main import main
from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.config.yaml_io import dump_yaml
from ptycho.workflows import components

TRAIN = "--backend tensorflow --n_filters_scale 1 --batch_size 8 --accelerator cpu --ema_decay 0.9"
TRAIN += " --scheduler ReduceLROnPlateau --plateau_patience 0 --probe_trainable --probe_refine_sweeps 2"
SCAN = "--object gaussian_random_field --N 32 --n_positions 36 --step_px 3 --photons 1e4"
EPOCHS = 6


def command(words: str) -> list[str]:
    return [sys.executable, "-m", "ptycho.cli", "train", *words.split(), "--quiet"]


def killed(words: str, folder: Path) -> bool:
    """Run a training and kill it after its second epoch; whether it was still at work."""
    shutil.rmtree(folder, ignore_errors=True)
    # as many threads of TensorFlow as in this process: another number rounds sums differently
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "0"}
    process = subprocess.Popen(command(words), cwd=folder.parent, env=environment)
    log, deadline = folder / "training.log", time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if log.is_file() and log.read_text().count(" epoch ") > 2:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.returncode == -signal.SIGKILL and not (folder / "wts.h5.zip").exists()


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def epochs_in(folder: Path) -> list[str]:
    lines = (folder / "training.log").read_text().splitlines()
    return [line.split()[2] for line in lines if line.split()[1] == "epoch"]


def test_a_killed_run_goes_on_to_the_weights_of_an_unbroken_one(tmp_path, monkeypatch):
    from ptycho.tf.fit.checkpoints import model_arrays, read_checkpoint
    from ptycho.workflows.trained import open_bundle

    assert main(["simulate", "-o", str(tmp_path / "scan.npz"), *SCAN.split(), "--quiet"]) == 0
    monkeypatch.chdir(tmp_path)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train = f"scan.npz --nepochs {EPOCHS} {TRAIN}"
    assert any(killed(f"{train} -o cut", cut) for _ in range(3))  # a busy machine may look too late
    assert not (cut / "wts.h5.zip").exists()

    assert main(["train", *f"{train} -o whole --quiet".split()]) == 0

    def refine(*arguments):
        raise AssertionError("the probe was refined again")

    monkeypatch.setattr(backends, "refined_modes", refine)
    assert main(["train", "--resume", "cut", "--quiet"]) == 0

    one, other = (read_checkpoint(folder / "checkpoints" / "last.safetensors") for folder in (whole, cut))
    for ours, theirs in zip(one[:2], other[:2], strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            np.testing.assert_allclose(theirs[key], value, rtol=1e-6, atol=1e-6, err_msg=key)
    final = [model_arrays(open_bundle(folder, "tensorflow")) for folder in (whole, cut)]
    for key, value in final[0].items():
        np.testing.assert_allclose(final[1][key], value, rtol=1e-6, atol=1e-6, err_msg=key)
    histories = [json.loads((folder / "history.json").read_text()) for folder in (whole, cut)]
    assert histories[0].keys() == histories[1].keys()
    for key, value in histories[0].items():
        np.testing.assert_allclose(histories[1][key], value, rtol=1e-5, atol=1e-7, err_msg=key)
    assert [row["epoch"] for row in rows(cut)] == [row["epoch"] for row in rows(whole)]
    assert epochs_in(cut) == epochs_in(whole) == [f"{n}:" for n in range(EPOCHS)]
    assert json.loads((cut / "provenance.json").read_text())["earlier"][0]["state"] == "running"


def test_a_run_that_had_run_out_of_patience_is_over(make_scan, small_config, tmp_path):
    raw = make_scan()
    execution = PyTorchExecutionConfig(accelerator="cpu", early_stop_patience=1, learning_rate=1e-12)
    config = small_config(raw, nepochs=9, output_dir=tmp_path, intensity_scale_trainable=False)
    ended = components.train_cdi_model(raw, None, config, execution)["history"]
    assert len(ended["val_loss"]) < 9
    last, coverage = tmp_path / "checkpoints" / "last.safetensors", tmp_path / "coverage.npz"
    counts = np.load(coverage)["counts"]
    coverage.unlink()  # as where the run was killed after its last checkpoint
    again = components.train_cdi_model(raw, None, config, execution, resume=last)["history"]
    assert again == ended
    np.testing.assert_array_equal(np.load(coverage)["counts"], counts)


def test_a_run_without_a_checkpoint_starts_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "-o", "scan.npz", *SCAN.split(), "--quiet"]) == 0
    begun = TrainingConfig(
        model=ModelConfig(N=32, n_filters_scale=1), train_data_file=Path("scan.npz"), nepochs=1,
        output_dir=Path("run"), backend="tensorflow", probe_from="guess",
    )  # fmt: skip
    dump_yaml(begun, PyTorchExecutionConfig(accelerator="cpu"), tmp_path / "run" / "config.yaml")
    assert main(["train", "--resume", "run"]) == 0
    assert "run was stopped before its first checkpoint: it starts over" in capsys.readouterr().err
    assert len(rows(tmp_path / "run")) == 1


@pytest.mark.parametrize("words", ["--learning_rate 0.5", "--backend pytorch", "--ema_decay 0.5"])
def test_what_contradicts_the_run_is_refused(tmp_path, monkeypatch, capsys, words):
    begun = TrainingConfig(backend="tensorflow")
    dump_yaml(begun, PyTorchExecutionConfig(), tmp_path / "run" / "config.yaml")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", "run", *words.split()]) == 2
    assert f"{words.split()[0]} " in capsys.readouterr().err
