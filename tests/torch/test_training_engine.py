"""The trainer's edges: several processes, a wrong checkpoint, a time limit."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.errors import ConfigError
from ptycho_torch.fit import trainer as training
from ptycho_torch.workflows import components


def test_two_processes_train_one_model(make_scan, tmp_path):
    make_scan(n_positions=64).to_file(tmp_path / "scan.npz")
    command = [sys.executable, "-m", "ptycho.cli", "train", "scan.npz", "-o", "run", "--nepochs", "2"]
    command += ["--devices", "2", "--strategy", "ddp", "--accelerator", "cpu", "--n_filters_scale", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert history["train_loss"][1] < history["train_loss"][0]
    assert (tmp_path / "run" / "wts.h5.zip").is_file()


def test_spawned_processes_are_refused_by_name():
    execution = PyTorchExecutionConfig(devices=2, strategy="ddp_spawn", accelerator="cpu")
    with pytest.raises(ConfigError, match="strategy = 'ddp_spawn' with 2 devices: .* use ddp"):
        training.resolve_accelerator(execution)
    assert training.resolve_accelerator(PyTorchExecutionConfig(strategy="ddp_spawn"))[1] == "auto"


def test_a_gpu_that_is_not_there_falls_back_with_a_word(caplog):
    with caplog.at_level("WARNING", logger="ptycho_torch.fit.trainer"):
        accelerator, _ = training.resolve_accelerator(PyTorchExecutionConfig(accelerator="cuda"))
    if accelerator == "cpu":
        assert "no CUDA device here, training on the CPU" in caplog.text


def test_a_checkpoint_of_another_network_is_refused(make_scan, small_config, tmp_path):
    raw = make_scan()
    execution = PyTorchExecutionConfig(logger_backend="none", accelerator="cpu")
    components.train_cdi_model_torch(raw, None, small_config(raw, output_dir=tmp_path), execution)
    last = tmp_path / "checkpoints" / "last.ckpt"
    other = small_config(raw, n_filters_scale=2, nepochs=3)
    with pytest.raises(ConfigError, match="last.ckpt: does not belong to this run"):
        components.train_cdi_model_torch(raw, None, other, execution, resume=last)
    (tmp_path / "broken.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigError, match="broken.ckpt: cannot be read as a checkpoint"):
        components.train_cdi_model_torch(raw, None, other, execution, resume=tmp_path / "broken.ckpt")


def test_a_time_limit_ends_the_run_after_an_epoch(make_scan, small_config, silent):
    raw = make_scan()
    config = small_config(raw, nepochs=50, max_time_s=1e-6)
    results = components.train_cdi_model_torch(raw, None, config, silent)
    assert len(results["history"]["train_loss"]) == 1


def test_panels_are_drawn_without_changing_the_run(make_scan, small_config, tmp_path):
    raw = make_scan(n_positions=25)
    plain = PyTorchExecutionConfig(logger_backend="none", accelerator="cpu")
    watched = PyTorchExecutionConfig(
        logger_backend="none", accelerator="cpu", recon_log_every_n_epochs=2, recon_log_stitch=True
    )
    histories = []
    for name, execution in (("plain", plain), ("watched", watched)):
        config = small_config(raw, nepochs=3, gridsize=2, neighbor_count=4, output_dir=tmp_path / name)
        histories.append(components.train_cdi_model_torch(raw, None, config, execution)["history"])
    assert histories[0] == histories[1]
    drawn = {path.name for path in (tmp_path / "watched" / "figures").iterdir()}
    assert drawn == {"patterns_0002.png", "image_0002.png", "sampler_coverage.png"}


def test_a_metric_that_nobody_logs_is_refused(make_scan, small_config):
    raw = make_scan()
    execution = PyTorchExecutionConfig(accelerator="cpu", checkpoint_monitor_metric="vall_loss")
    with pytest.raises(ConfigError, match="checkpoint_monitor_metric = 'vall_loss': no such metric; use val"):
        components.train_cdi_model_torch(raw, None, small_config(raw), execution)


def test_debug_trains_as_well(make_scan, small_config, silent):
    raw = make_scan()
    results = components.train_cdi_model_torch(raw, None, small_config(raw, nepochs=1, debug=True), silent)
    assert len(results["history"]["train_loss"]) == 1
