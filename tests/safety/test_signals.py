"""A run that is stopped ends as interrupted (143), and what it leaves goes on to the same weights."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from programs import SMALL, begin, ptycho

from ptycho.models.bundle import load_bundle

EXPERIMENT = ("-c", "from ptycho.cli.experiment import console_main; console_main()")
LONG = ("--nepochs", 4000, "--checkpoint_save_top_k", 0)


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 500) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        if process.poll() is not None:
            pytest.fail(f"it ended before {path.name} was there: {process.communicate()[1]}")
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.02)


def stopped(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    return process.returncode, error


def record(folder: Path) -> dict[str, object]:
    made: dict[str, object] = json.loads((folder / "provenance.json").read_text())
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend, last",
    [("pytorch", "last.ckpt"), pytest.param("tensorflow", "last.safetensors", marks=pytest.mark.tf)],
)
def test_training(backend: str, last: str, scan: Path, tmp_path: Path) -> None:
    # one rate throughout: a schedule would follow the length of the run, which is cut below
    settings = ("--backend", backend, "--scheduler", "Default", *SMALL)
    process = begin("train", scan, "-o", "run", *settings, *LONG, cwd=tmp_path)
    run = tmp_path / "run"
    wait_for(run / "checkpoints" / last, process)
    code, error = stopped(process, signal.SIGTERM)
    assert code == 143, error
    assert "interrupted; run keeps" in error and "go on with --resume run" in error
    assert record(run)["state"] == "interrupted" and record(run)["error"] == "stopped by SIGTERM"
    assert "end: interrupted" in (run / "training.log").read_text()
    assert not (run / "wts.h5.zip").exists() and not (run / ".ptycho.lock").exists()
    # What went on is the run that was never stopped: the settings are cut to the epochs that were made.
    done = sum(" epoch " in line for line in (run / "training.log").read_text().splitlines())
    text = (run / "config.yaml").read_text().replace("nepochs: 4000", f"nepochs: {done + 1}")
    (run / "config.yaml").write_text(text.partition("\n")[2].rpartition("# end")[0])
    assert ptycho("train", "--resume", "run", cwd=tmp_path).returncode == 0
    whole = ("train", scan, "-o", "whole", *settings)
    straight = ptycho(*whole, "--nepochs", done + 1, "--checkpoint_save_top_k", 0, cwd=tmp_path)
    assert straight.returncode == 0, straight.stderr
    resumed, expected = (load_bundle(tmp_path / name).weights for name in ("run", "whole"))
    for name, value in expected.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


@pytest.mark.slow
def test_control_c_stays_130(scan: Path, tmp_path: Path) -> None:
    process = begin("train", scan, "-o", "run", *LONG, *SMALL, cwd=tmp_path)
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt", process)
    code, error = stopped(process, signal.SIGINT)
    assert code == 130 and "go on with --resume run" in error
    assert record(tmp_path / "run")["state"] == "interrupted"


@pytest.mark.slow
def test_reconstruction(scan: Path, tmp_path: Path) -> None:
    words = ("reconstruct", scan, "-o", "made", "--sweeps", 20000)
    process = begin(*words, cwd=tmp_path)
    wait_for(tmp_path / "made" / "refine.safetensors", process)
    code, error = stopped(process, signal.SIGTERM)
    assert code == 143, error
    assert "go on with --resume" in error and record(tmp_path / "made")["state"] == "interrupted"
    assert (tmp_path / "made" / "reconstruction.npz").is_file()


@pytest.mark.slow
def test_inference(trained: dict[str, Path], tmp_path: Path) -> None:
    process = begin(
        "infer", "--model", trained["run"], "--data", trained["scan"], "-o", "image", cwd=tmp_path
    )
    wait_for(tmp_path / "image" / "provenance.json", process)
    code, error = stopped(process, signal.SIGTERM)
    # it may have been over already; then it is there
    state = record(tmp_path / "image")["state"]
    assert (code, state) in ((143, "interrupted"), (0, "done")), error


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--multirun",)], ids=["one run", "sweep"])
def test_experiment(more: tuple[str, ...], scan: Path, tmp_path: Path) -> None:
    words = [
        f"train_data_file={scan}",
        "output_dir=out",
        "nepochs=4000",
        "batch_size=8",
        "probe_refine_sweeps=1",
    ]
    seed = "seed=0,1" if more else "seed=0"
    process = begin(*words, seed, *more, cwd=tmp_path, entry=EXPERIMENT)
    run = tmp_path / "out" / ("0_seed=0" if more else "")
    wait_for(run / "checkpoints" / "last.ckpt", process)
    code, error = stopped(process, signal.SIGTERM)
    assert code == 143, error
    assert "go on with ptycho train --resume" in error
    assert record(run)["state"] == "interrupted" and record(tmp_path / "out")["state"] == "interrupted"


@pytest.mark.slow
def test_a_learned_tool_says_how_it_goes_on_and_does(tmp_path: Path) -> None:
    words = [
        "model=warp", "output_dir=out", "accelerator=cpu", "logger=none", "epochs=40", "steps_per_epoch=1",
        "batch_size=1", "judged=4", "figures_every=0", "data.pool=4",
    ]  # fmt: skip
    process = begin(*words, cwd=tmp_path, entry=EXPERIMENT)
    wait_for(tmp_path / "out" / "checkpoints" / "last.ckpt", process)
    code, error = stopped(process, signal.SIGTERM)
    assert code == 143, error
    assert "go on with the same command and resume=true" in error and "ptycho train" not in error
    assert record(tmp_path / "out")["state"] == "interrupted"
    again = begin(*words, "resume=true", cwd=tmp_path, entry=EXPERIMENT)
    said, error = again.communicate(timeout=300)
    assert again.returncode == 0, error
    assert "trained      warp, 40 epochs" in said


def test_an_ignored_signal_stays_ignored() -> None:
    from ptycho.cli.signals import stoppable

    before = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_was_swallowed_comes_again() -> None:
    from ptycho.cli.signals import Terminated, stoppable

    with stoppable() as stop:
        with contextlib.suppress(Terminated):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Terminated, match="SIGTERM"):
            stop.check()
        assert stop.exit_code == 143
