"""The MLflow store: what a run leaves there, how it goes on, and the model answering over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import DataError
from ptycho.objectives.manifest import resolve
from ptycho.report.figures import history_figure
from ptycho.tracking import Recorder, make_recorder, make_trackers
from ptycho.tracking.mlflow_model import _load_pyfunc

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.skipif(find_spec("mlflow") is None, reason="pip install 'ptychopinn[mlflow]'"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """One database for the module: building its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def client(store):
    from mlflow import MlflowClient

    return MlflowClient(store)


def told(folder: Path, store: str, epochs: range, *, end: str | None = "done", **params: int) -> str:
    """A recorder that was told of these epochs, two steps each; the run's id."""
    tracker = make_trackers("mlflow", folder, "a name", store)[0]
    recorder = Recorder([tracker], folder, {"seed": 3, "train_data_file": None, **params})
    recorder.begin(epochs.start, 2 * epochs.start)
    for epoch in epochs:
        recorder.epoch({"train_loss": epoch + 0.25, "loss/_sum": 9.0}, 2 * epoch + 1, epoch)
    if end is not None:
        recorder.end(end)
    return tracker.run_id


def losses(client, run_id: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, "train_loss")]


def test_settings_objectives_metrics_and_figures_are_in_the_store(store, client, tmp_path):
    config = TrainingConfig(model=ModelConfig(N=32), output_dir=tmp_path)
    execution = PyTorchExecutionConfig(logger_backend="mlflow", mlflow_uri=store, run_name="first")
    recorder = make_recorder(config, execution)
    (tmp_path / "figures").mkdir()
    (tmp_path / "config.yaml").write_text("N: 32\n")
    recorder.begin(0, 0)
    history_figure(tmp_path / "figures" / "patterns_0001.png", {"train_loss": [2.0, 1.0]})
    recorder.epoch({"train_loss": 2.0, "val/loss/poisson_nll": 3.0, "_helper": 4.0}, 1, 0)
    recorder.epoch({"train_loss": float("nan")}, 3, 1)
    recorder.end("failed")
    run = client.search_runs([client.get_experiment_by_name("ptychopinn").experiment_id])[0]
    assert (run.info.run_name, run.info.status) == ("first", "FAILED")
    assert (run.data.params["model.N"], run.data.params["train_data_file"]) == ("32", "None")
    assert run.data.params["objectives_checksum"] == resolve(config).checksum
    assert json.loads(run.data.params["objectives"])[0]["name"] == "poisson_nll"
    assert losses(client, run.info.run_id) == [(1, 2.0)]
    assert set(run.data.metrics) == {"train_loss", "val/loss/poisson_nll", "epoch"}
    files = [item.path for item in client.list_artifacts(run.info.run_id)]
    assert files == ["config.yaml", "figures"]
    assert not (tmp_path / "mlruns").exists() and not Path("mlruns").exists()


def test_a_killed_run_goes_on_in_the_same_run(store, client, tmp_path):
    begun = told(tmp_path, store, range(2), end=None)
    assert client.get_run(begun).info.status == "RUNNING"
    assert told(tmp_path, store, range(2, 4)) == begun
    assert losses(client, begun) == [(1, 0.25), (3, 1.25), (5, 2.25), (7, 3.25)]
    assert client.get_run(begun).info.status == "FINISHED"


@pytest.mark.parametrize("before, changed", [(range(3), {}), (range(2), {"nepochs": 9})])
def test_where_a_run_cannot_go_on_a_new_one_takes_over(store, client, tmp_path, before, changed):
    begun = told(tmp_path, store, before, end=None)
    after = told(tmp_path, store, range(2, 4), **changed)
    assert after != begun
    assert losses(client, after) == [(1, 0.25), (3, 1.25), (5, 2.25), (7, 3.25)]
    assert client.get_run(after).data.tags["resumed_from"] == begun
    assert client.get_run(begun).info.status == "KILLED"
    assert len(losses(client, begun)) == len(before)


def test_another_run_in_the_same_folder_is_another_run(store, tmp_path):
    assert told(tmp_path, store, range(1)) != told(tmp_path, store, range(1))


def test_the_callers_mlflow_is_left_as_it_is(store, tmp_path):
    import mlflow

    before = mlflow.get_tracking_uri()
    told(tmp_path, store, range(1))
    assert mlflow.get_tracking_uri() == before and mlflow.active_run() is None


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def asked(address: str, values: object = None) -> tuple[int, str]:
    """Status and text of a GET, or of a POST of JSON."""
    data = None if values is None else json.dumps(values).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def no_code_in(folder: Path) -> None:
    """The model is the bundle, and the name of the module that opens it."""
    import mlflow.pyfunc

    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert "data/wts.h5.zip" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".py", ".pt"))]
    assert "loader_module: ptycho.tracking.mlflow_model" in (folder / "MLmodel").read_text()
    model = mlflow.pyfunc.load_model(str(folder))
    answer = model.predict(np.ones((2, 32, 32, 1), np.float32))
    assert answer["real"].shape == answer["imag"].shape == (2, 32, 32, 1)
    with pytest.raises(DataError, match="inputs must be one array of numbers"):
        _load_pyfunc(str(folder / "data" / "wts.h5.zip")).predict({"x": 1})


def test_the_trained_bundle_is_registered_served_and_answers(make_scan, store, client, tmp_path):
    """A tiny run on two scans, its registered model under `mlflow models serve`, and patterns over HTTP."""
    from ptycho_torch.workflows.components import load_inference_bundle_torch, run_cdi_example_torch

    raw = make_scan()
    scans = [raw, make_scan(n_positions=24, seed=3, curvature=-0.05)]
    config = TrainingConfig(
        model=ModelConfig(N=raw.N, n_filters_scale=1), nepochs=1, output_dir=tmp_path / "run",
        probe_from="guess",
    )  # fmt: skip
    execution = PyTorchExecutionConfig(logger_backend="mlflow", mlflow_uri=store, accelerator="cpu")
    _, _, results = run_cdi_example_torch(scans, None, config, execution_config=execution)
    run_id = json.loads((tmp_path / "run" / "logs" / "mlflow.json").read_text())["run_id"]
    version = client.search_model_versions(f"run_id = '{run_id}'")[0]
    assert version.name == "ptychopinn"
    no_code_in(Path(client.download_artifacts(run_id, "model", str(tmp_path))))
    assert "figures/sampler_coverage.png" in {file.path for file in client.list_artifacts(run_id, "figures")}
    port = free_port()
    # mlflow starts uvicorn by name: the environment of the tests counts as active
    environment = {
        **os.environ, "MLFLOW_TRACKING_URI": store, "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }  # fmt: skip
    command = [sys.executable, "-m", "mlflow", "models", "serve"]
    command += ["-m", f"models:/ptychopinn/{version.version}"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = (tmp_path / "serve.log").open("wb")
    server = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        address = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 120
        while asked(f"{address}/ping")[0] != 200:
            assert server.poll() is None and time.monotonic() < end, (tmp_path / "serve.log").read_text()
            time.sleep(0.5)
        module, _ = load_inference_bundle_torch(tmp_path / "run")
        patterns = np.sqrt(raw.diff3d[:3].astype(np.float32))[..., None]
        served = {}
        for number, params in ((0, {}), (1, {"params": {"trained_scan": 1}})):
            status, text = asked(f"{address}/invocations", {"inputs": patterns.tolist(), **params})
            assert status == 200, text
            answer = json.loads(text)["predictions"]
            served[number] = np.array(answer["real"]) + 1j * np.array(answer["imag"])
            wanted = module.for_scan(number).predict([patterns])
            assert served[number].shape == wanted.shape == (3, 32, 32, 1)
            np.testing.assert_allclose(served[number], wanted, rtol=1e-6, atol=1e-7)
        assert np.abs(served[0] - served[1]).max() > 1e-4
        params = {"trained_scan": 2}
        status, text = asked(f"{address}/invocations", {"inputs": patterns.tolist(), "params": params})
        assert status == 400 and "trained on 2 scans, 0 to 1" in text
        status, text = asked(f"{address}/invocations", {"inputs": patterns[:, :16].tolist()})
        assert status == 400 and "16" in text
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)
        log.close()
