"""`ptycho export`, and `ptycho infer` with what it wrote: the products of the bundle, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.config.config import ModelConfig, TrainingConfig
from ptycho.models.trained_state import TrainedState
from ptycho.networks.graphs import describe, initial_weights, spec_from_config
from ptycho.scan.normalization import normalize_probe, x_scale
from ptycho.scan.raw_data import RawData
from ptycho.scan.scan_set import KnownScan

pytestmark = pytest.mark.onnx
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scan_arrays: dict[str, np.ndarray]) -> Path:
    """A folder with a scan that knows its object, and `run`, a bundle whose weights are all off zero."""
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "scan.npz", **scan_arrays)
    raw = RawData.from_file(tmp_path / "scan.npz")
    config = TrainingConfig(model=ModelConfig(N=32, n_filters_scale=1))
    spec = spec_from_config(config.model)
    rng = np.random.default_rng(0)
    start = initial_weights(describe(config.model.architecture, spec), spec, 0)
    weights = {k: (v + rng.normal(0, 0.03, v.shape)).astype(np.float32) for k, v in start.items()}
    probe, factor = normalize_probe(raw.probe_modes, config.model.probe_scale)
    known = KnownScan(
        probe=probe,
        bad_pixels=np.zeros((32, 32), bool),
        x_scale=x_scale(raw.amplitude()),
        nphotons=1e4,
        probe_factor=factor,
        log_scale=0.0,
        guess=probe,
    )
    state = TrainedState(config, weights, (known,))
    state.save(tmp_path / "run", "pytorch")
    return tmp_path


def refused(argv: list[str], capsys: Capture) -> str:
    """The one line on stderr of a command that ends with 2 and says nothing on stdout."""
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert not shown.out
    (line,) = shown.err.strip().splitlines()
    return line


def test_says_what_it_wrote(work: Path, capsys: Capture) -> None:
    assert main(["export", "run", "-o", "out/model.onnx"]) == 0
    shown = capsys.readouterr().out
    assert (work / "out" / "model.onnx").is_file()
    for word in ("counts", "amplitude", "phase", "float32", "(batch, 1, 32, 32)", "opset", "out/model.onnx"):
        assert word in shown


def test_without_a_name_the_model_lies_beside_the_bundle(work: Path) -> None:
    assert main(["export", "run", "--format", "onnx", "--quiet"]) == 0
    assert (work / "run" / "model.onnx").is_file()


def test_the_products_are_the_bundles(work: Path) -> None:
    assert main(["export", "run", "--quiet"]) == 0
    for name, model in (("a", "run"), ("b", "run/model.onnx")):
        words = ["--model", model, "--data", "scan.npz", "-o", name, "--quiet", "--accelerator", "cpu"]
        assert main(["infer", *words]) == 0
    one, two = sorted((work / "a").iterdir()), sorted((work / "b").iterdir())
    assert [file.name for file in one] == [file.name for file in two]
    assert {"reconstruction.npz", "reconstruction.png", "probe.png", "metrics.json"} <= {f.name for f in two}
    with np.load("a/reconstruction.npz") as a, np.load("b/reconstruction.npz") as b:
        assert set(a.files) == set(b.files)
        for key in a.files:
            if key != "phase":
                np.testing.assert_allclose(b[key], a[key], rtol=1e-4, atol=1e-5, err_msg=key)
        jump = np.angle(np.exp(1j * (b["phase"] - a["phase"])))[np.abs(a["object"]) > 0.05]
        assert np.abs(jump).max() < 1e-4
    first, second = (json.loads((work / name / "metrics.json").read_text()) for name in "ab")
    # a second look needs the engine, which an ONNX inference does without
    looked = {name for name in first if name.startswith("held_out")}
    assert set(first) - looked == set(second) - looked and "nrmse" in first
    assert second["r_factor"] == pytest.approx(first["r_factor"], rel=1e-4)
    assert second["nrmse"] == pytest.approx(first["nrmse"], rel=1e-3)


def test_neither_command_imports_torch(work: Path) -> None:
    program = (
        "import sys; from ptycho.cli.main import main\n"
        "assert main(['export', 'run', '--quiet']) == 0\n"
        "assert main('infer --model run/model.onnx --data scan.npz -o out --quiet'.split()) == 0\n"
        "print(sorted({'torch', 'lightning', 'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_runs_where_torch_is_not_installed(work: Path) -> None:
    assert main(["export", "run", "--quiet"]) == 0
    program = (
        "import sys; sys.modules.update(torch=None, lightning=None, onnx=None)\n"
        "from ptycho.cli.main import main\n"
        "sys.exit(main('infer --model run/model.onnx --data scan.npz -o out'.split()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "R   " in done.stdout and not done.stderr.strip()


def test_missing_onnx(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    line = refused(["export", "run"], capsys)
    assert "pip install 'ptychopinn[onnx]'" in line
    assert not (work / "run" / "model.onnx").exists()


def test_missing_onnxruntime(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert main(["export", "run", "--quiet"]) == 0
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = refused(["infer", "--model", "run/model.onnx", "--data", "scan.npz", "-o", "out"], capsys)
    assert "pip install 'ptychopinn[onnx]'" in line
    assert not (work / "out").exists()


def test_truncated_and_foreign_models(work: Path, capsys: Capture) -> None:
    assert main(["export", "run", "--quiet"]) == 0
    model = work / "run" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-3000])
    words = ["--data", "scan.npz", "-o", "out"]
    assert "truncated" in refused(["infer", "--model", str(model), *words], capsys)
    (work / "other.onnx").write_text("hello")
    assert "no ONNX model" in refused(["infer", "--model", "other.onnx", *words], capsys)
    assert "does not exist" in refused(["infer", "--model", "none.onnx", *words], capsys)
    assert not (work / "out").exists()


def test_a_scan_of_another_side(work: Path, capsys: Capture, scan_arrays: dict[str, np.ndarray]) -> None:
    assert main(["export", "run", "--quiet"]) == 0
    wide = {
        **scan_arrays,
        "diff3d": np.pad(scan_arrays["diff3d"], ((0, 0), (8, 8), (8, 8))),
        "probeGuess": np.pad(scan_arrays["probeGuess"], 8),
    }
    np.savez(work / "wide.npz", **wide)
    line = refused(["infer", "--model", "run/model.onnx", "--data", "wide.npz", "-o", "out"], capsys)
    assert "48 x 48" in line and "32" in line


@pytest.mark.parametrize(
    "argv, message",
    [
        (["export"], "BUNDLE"),
        (["export", "nowhere"], "nowhere does not exist"),
        (["export", "scan.npz"], "not a model bundle"),
        (["export", "run", "-o", "model.pt"], "must end in .onnx"),
        (["export", "run", "--format", "onxx"], "onnx"),
        (["infer", "--model", "run/model.onnx", "--data", "scan.npz", "-o", "out", "--accelerator", "mps"],
         "accelerator = 'mps'.*onnxruntime"),
        (["infer", "--model", "run/model.onnx", "--data", "scan.npz", "-o", "out", "--trained_scan", "0"],
         "trained_scan = 0: an ONNX model holds one scan's"),
    ],
)  # fmt: skip
def test_bad_usage(work: Path, argv: list[str], message: str, capsys: Capture) -> None:
    import re

    if "run/model.onnx" in argv:
        assert main(["export", "run", "--quiet"]) == 0
    line = refused(argv, capsys)
    assert re.search(message, line), line
