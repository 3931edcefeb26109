"""Logs of Lightning runs: one row an epoch, resumed without gaps or doubles, one writer among processes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import lightning_runs
from lightning.pytorch.callbacks import Callback

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.run.preparation import train_and_test
from ptycho.tracking.names import in_contract
from ptycho_torch.workflows import components

CSV = {"accelerator": "cpu", "logger_backend": "csv"}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_logs_its_history_under_the_names_of_the_contract(make_scan, small_config, tmp_path):
    config = small_config(make_scan(), nepochs=3, output_dir=tmp_path)
    results = components.train_cdi_model_torch(make_scan(), None, config, PyTorchExecutionConfig(**CSV))
    found = rows(tmp_path)
    steps = -(-27 // 8)  # three of thirty groups validate
    assert [row["epoch"] for row in found] == ["0", "1", "2"]
    assert [row["step"] for row in found] == [str(steps * (epoch + 1) - 1) for epoch in range(3)]
    names = set(found[0]) - {"epoch", "step"}
    assert {"train_loss", "val_loss", "learning_rate"} <= names
    assert [name for name in names if name.startswith("val/loss/poisson")]
    assert [name for name in names if name.startswith("diagnostics/")]
    assert all(in_contract(name) for name in names), names
    for name in names:
        assert [float(row[name]) for row in found] == results["history"][name]
    assert set(results["history"]) == names | {"epoch"}


class Helpers(Callback):
    """Logs what must stay inside."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        helpers = {"_seconds": 1.0, "loss/_sum": 2.0, "throughput/patterns": 3.0}
        pl_module.log_dict(helpers, on_step=False, on_epoch=True, batch_size=1)


def test_helpers_stay_inside_and_a_clients_own_metric_is_logged(make_scan, small_config, tmp_path):
    config = small_config(make_scan(), nepochs=1, output_dir=tmp_path)
    run = lightning_runs.prepare_lightning_run(
        *train_and_test(make_scan(), None, config), config, PyTorchExecutionConfig(**CSV)
    )
    run.trainer.callbacks.append(Helpers())
    lightning_runs.fit_lightning_run(run)
    assert not [name for name in rows(tmp_path)[0] if "_seconds" in name or "_sum" in name]
    assert rows(tmp_path)[0]["throughput/patterns"] == "3.0"


def test_two_processes_write_one_log(make_scan, tmp_path):
    make_scan(n_positions=64).to_file(tmp_path / "scan.npz")
    command = [sys.executable, "-m", "ptycho.cli", "train", "scan.npz", "-o", "run", "--nepochs", "2"]
    command += ["--devices", "2", "--strategy", "ddp", "--accelerator", "cpu", "--n_filters_scale", "1"]
    command += ["--probe_from", "guess", "--logger", "csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    found = rows(tmp_path / "run")
    assert [row["epoch"] for row in found] == ["0", "1"]
    assert [float(row["val_loss"]) for row in found] == history["val_loss"]
    assert [path.name for path in (tmp_path / "run" / "logs").glob("*.csv")] == ["metrics.csv"]
