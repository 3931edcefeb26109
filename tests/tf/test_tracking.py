"""Logs of Keras runs: the names, columns and rows of torch's, resumed without gaps or doubles."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.tracking.names import in_contract
from ptycho.workflows import components

pytest.importorskip("tensorflow")
CSV = {"accelerator": "cpu", "logger_backend": "csv"}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_both_backends_log_the_same_rows_under_the_names_of_the_contract(make_scan, small_config, tmp_path):
    from ptycho_torch.workflows.components import train_cdi_model_torch

    raw, execution = make_scan(), PyTorchExecutionConfig(**CSV)
    results = components.train_cdi_model(raw, None, small_config(raw, output_dir=tmp_path / "tf"), execution)
    train_cdi_model_torch(
        raw, None, small_config(raw, output_dir=tmp_path / "torch", backend="pytorch"), execution
    )
    ours, theirs = rows(tmp_path / "tf"), rows(tmp_path / "torch")
    assert {name for name in theirs[0] if "diagnostics/" not in name} <= set(ours[0])
    assert [(row["epoch"], row["step"]) for row in ours] == [(row["epoch"], row["step"]) for row in theirs]
    names = set(ours[0]) - {"epoch", "step"}
    assert all(in_contract(name) for name in names), names
    for name in names:
        np.testing.assert_array_equal([float(row[name]) for row in ours], results["history"][name])
    for name in ("train_loss", "val/loss/poisson_nll"):
        np.testing.assert_allclose(*([float(row[name]) for row in log] for log in (ours, theirs)), rtol=2e-3)


def test_a_run_in_stages_has_the_rate_of_every_part_in_both_backends(make_scan, small_config, tmp_path):
    from ptycho_torch.workflows.components import train_cdi_model_torch

    raw = make_scan()
    # the last epoch ends early, and the second begins within one
    stages = [
        {"name": "heads", "steps": 6, "trainable": "decoder", "learning_rate": 1e-3},
        {"name": "all", "steps": 8, "learning_rate": {"encoder": 1e-4, "probe": 3e-4}},
    ]
    settings = {"stages": stages, "scheduler": "WarmupCosine", "probe_trainable": True}
    execution = PyTorchExecutionConfig(**CSV, learning_rate=2e-3)
    histories = [
        train(raw, None, small_config(raw, output_dir=tmp_path / name, backend=name, **settings), execution)
        for name, train in (
            ("tensorflow", components.train_cdi_model), ("pytorch", train_cdi_model_torch)
        )
    ]  # fmt: skip
    ours, theirs = (made["history"] for made in histories)
    parts = [name for name in theirs if name.startswith("learning_rate/")]
    assert len(parts) == 7 and [name for name in ours if name.startswith("learning_rate/")] == parts
    logged = [rows(tmp_path / name) for name in ("tensorflow", "pytorch")]
    diagnostics = {name for log in logged for name in log[0] if "diagnostics/" in name}
    assert set(logged[0][0]) | diagnostics == set(logged[1][0]) | diagnostics
    for name in ("learning_rate", *parts):
        assert in_contract(name)
        assert len(ours[name]) == 4
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12, err_msg=name)
        for log, history in zip(logged, (ours, theirs), strict=True):
            np.testing.assert_array_equal([float(row[name]) for row in log], history[name])
    assert ours["learning_rate/probe"][0] == 0 < ours["learning_rate/probe"][1]


@pytest.mark.mlflow
@pytest.mark.skipif(find_spec("mlflow") is None, reason="pip install 'ptychopinn[mlflow]'")
def test_several_logs_at_once(make_scan, small_config, tmp_path):
    from mlflow import MlflowClient

    raw = make_scan()
    execution = PyTorchExecutionConfig(accelerator="cpu", logger_backend="csv,mlflow", run_name="keras")
    config = small_config(raw, output_dir=tmp_path)
    _, _, results = components.run_cdi_example(raw, None, config, execution_config=execution)
    run_id = json.loads((tmp_path / "logs" / "mlflow.json").read_text())["run_id"]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    logged = [point.value for point in client.get_metric_history(run_id, "val_loss")]
    assert logged == results["history"]["val_loss"] == [float(row["val_loss"]) for row in rows(tmp_path)]
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "keras")
    assert run.data.params["backend"] == "tensorflow"
    assert len(client.search_model_versions("name = 'ptychopinn'")) == 1
    assert "figures/sampler_coverage.png" in {file.path for file in client.list_artifacts(run_id, "figures")}
