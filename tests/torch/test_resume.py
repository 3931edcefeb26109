"""A Lightning run killed at any moment goes on to the bytes of an unbroken one, and its logs with it."""

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

import pytest
import torch

from ptycho import backends
from ptycho.cli.main import main
from ptycho.config.config import PyTorchExecutionConfig
from ptycho.run.state import kept_starts
from ptycho_torch.workflows import components

TRAIN = "--n_filters_scale 1 --batch_size 8 --accelerator cpu"
TRAIN += " --scheduler ReduceLROnPlateau --plateau_patience 0"
SCAN = "--object gaussian_random_field --N 32 --n_positions 36 --step_px 3 --photons 1e4"
EPOCHS = 6


def command(words: str) -> list[str]:
    return [sys.executable, "-m", "ptycho.cli", "train", *words.split(), "--quiet"]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def text(folder: Path) -> list[str]:
    """Lines of the log without their times."""
    return [line.split(" ", 1)[1] for line in (folder / "training.log").read_text().splitlines()]


def killed(words: str, folder: Path, *, epochs: int) -> bool:
    """Run a training and kill it when so many epochs are over and the next is logged (0: when its record
    stands); whether it was still at work."""
    shutil.rmtree(folder, ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(words), cwd=folder.parent, env=environment)
    file = folder / ("training.log" if epochs else "provenance.json")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if file.is_file() and (epochs == 0 or file.read_text().count(" epoch ") > epochs):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.returncode == -signal.SIGKILL and not (folder / "wts.h5.zip").exists()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    main(["simulate", "-o", str(folder / "scan.npz"), *SCAN.split()])
    main(["simulate", "-o", str(folder / "other.npz"), *SCAN.split(), "--seed", "9"])
    words = f"scan.npz -o whole --nepochs {EPOCHS} {TRAIN} --ema_decay 0.9 --probe_trainable"
    done = subprocess.run(command(words), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    return folder


def test_a_killed_run_goes_on_to_the_bytes_of_an_unbroken_one(unbroken, monkeypatch):
    words = f"scan.npz -o cut --nepochs {EPOCHS} {TRAIN} --ema_decay 0.9 --probe_trainable"
    cut, whole = unbroken / "cut", unbroken / "whole"
    assert any(killed(words, cut, epochs=2) for _ in range(3))  # a busy machine may look too late

    def refine(*arguments):
        raise AssertionError("the probe was refined again")

    monkeypatch.setattr(backends, "refined_modes", refine)
    monkeypatch.chdir(unbroken.parent)  # scan.npz is found where provenance.json says
    (cut / "checkpoints" / ".last.0123456789ab.ckpt").write_bytes(b"cut short")
    assert main(["train", "--resume", str(cut), "--quiet"]) == 0

    assert not list((cut / "checkpoints").glob(".*"))
    one, other = state(whole), state(cut)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    bundles = [components.load_inference_bundle_torch(folder)[0].module for folder in (whole, cut)]
    theirs = bundles[1].state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in bundles[0].state_dict().items())
    assert (cut / "history.json").read_bytes() == (whole / "history.json").read_bytes()
    assert rows(cut) == rows(whole) and [row["epoch"] for row in rows(cut)] == [str(n) for n in range(EPOCHS)]
    epochs = [line for line in text(cut) if line.startswith("epoch ")]
    assert epochs == [line for line in text(whole) if line.startswith("epoch ")] and len(epochs) == EPOCHS
    assert sum(line.startswith("resumed at epoch") for line in text(cut)) == 1
    assert text(cut)[-1] == text(whole)[-1] == f"end: done after {EPOCHS} epochs"
    record = json.loads((cut / "provenance.json").read_text())
    assert record["state"] == "done" and [run["state"] for run in record["earlier"]] == ["running"]


def test_a_run_killed_before_its_first_checkpoint_starts_over(unbroken, capsys):
    early = unbroken / "early"
    words = f"scan.npz -o early --nepochs 1 {TRAIN}"
    assert killed(words, early, epochs=0)
    assert not (early / "checkpoints" / "last.ckpt").exists()
    assert main(["train", "--resume", str(early)]) == 0
    assert "was stopped before its first checkpoint: it starts over" in capsys.readouterr().err
    assert (early / "wts.h5.zip").is_file() and len(rows(early)) == 1


def test_a_new_run_in_the_folder_is_not_taken_for_the_old_one(unbroken, monkeypatch):
    monkeypatch.chdir(unbroken)
    folder = unbroken / "again"
    words = f"scan.npz -o again --nepochs 1 {TRAIN} --quiet".split()
    assert main(["train", *words]) == 0
    first = (folder / "checkpoints" / "last.ckpt").read_bytes()
    assert main(["train", *words, "--seed", "1"]) == 0
    assert (folder / "checkpoints.earlier" / "last.ckpt").read_bytes() == first
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() != first
    assert kept_starts(folder / "checkpoints" / "last.ckpt")[0].modes.ndim == 3


@pytest.mark.parametrize(
    "words, message",
    [
        ("--learning_rate 0.5", "--learning_rate 0.5: whole was begun with 0.002; leave it out, or"),
        ("--nepochs 3", "nepochs = 3: whole was begun with 6, which may only grow"),
        ("--n_filters_scale 2", "--n_filters_scale 2: whole was begun with 1; leave it out"),
        ("--no-probe_trainable", "--probe_trainable False: whole was begun with True"),
        ("-o elsewhere", "--output_dir elsewhere: --resume whole goes on in its own folder"),
        ("--config whole/config.yaml", "--config: --resume whole takes its own config.yaml; drop it"),
        ("--preset quick", "--preset: --resume whole takes its own config.yaml; drop it"),
        ("other.npz", "other.npz: is not the scan that whole was trained on"),
        ("--test_data_file other.npz", "--test_data_file 'other.npz': whole was begun with None"),
    ],
)
def test_what_contradicts_the_run_is_refused(unbroken, monkeypatch, capsys, words, message):
    monkeypatch.chdir(unbroken)
    before = Path("whole/config.yaml").read_bytes()
    assert main(["train", "--resume", "whole", *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert Path("whole/config.yaml").read_bytes() == before


def test_a_complete_run_may_grow_and_a_folder_without_a_run_is_refused(unbroken, monkeypatch, capsys):
    monkeypatch.chdir(unbroken)
    assert main(["train", "--resume", "whole", "--nepochs", str(EPOCHS + 1), "scan.npz", "--quiet"]) == 0
    assert [row["epoch"] for row in rows(Path("whole"))] == [str(n) for n in range(EPOCHS + 1)]
    (unbroken / "empty").mkdir()
    assert main(["train", "--resume", "empty"]) == 2
    assert "--resume empty: no config.yaml in it; give the output folder" in capsys.readouterr().err


def test_a_run_that_had_run_out_of_patience_is_over(make_scan, small_config, tmp_path):
    raw = make_scan()
    execution = PyTorchExecutionConfig(accelerator="cpu", early_stop_patience=1, learning_rate=1e-12)
    config = small_config(raw, nepochs=9, output_dir=tmp_path, intensity_scale_trainable=False)
    ended = components.train_cdi_model_torch(raw, None, config, execution)["history"]
    assert len(ended["val_loss"]) < 9
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert components.train_cdi_model_torch(raw, None, config, execution, resume=last)["history"] == ended


def test_a_checkpoint_is_whole_or_the_former_one(tmp_path, monkeypatch):
    from ptycho_torch.fit.checkpoints import AtomicCheckpoints

    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpoints().save_checkpoint({"weights": torch.ones(3)}, path)
    before = path.read_bytes()

    def cut_short(values, target):
        target.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut_short)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpoints().save_checkpoint({"weights": torch.zeros(3)}, path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_a_run_broken_at_any_write_of_a_checkpoint_goes_on(make_scan, small_config, tmp_path, monkeypatch):
    from ptycho_torch.fit.checkpoints import AtomicCheckpoints

    raw, execution = make_scan(n_positions=16), PyTorchExecutionConfig(accelerator="cpu")
    settings = {"nepochs": 3, "probe_from": "guess"}
    write = AtomicCheckpoints.save_checkpoint
    writes: list[str] = []

    class Killed(BaseException):
        """Stands for the signal."""

    def counted(self, checkpoint, path, storage_options=None):
        writes.append(Path(path).name)
        if len(writes) == limit:
            raise Killed
        write(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpoints, "save_checkpoint", counted)
    limit = 0
    whole = small_config(raw, output_dir=tmp_path / "whole", **settings)
    wanted = components.train_cdi_model_torch(raw, None, whole, execution)
    every = len(writes)
    assert writes.count("last.ckpt") == 3
    for limit in range(3, every + 1):
        folder = tmp_path / str(limit)
        config = small_config(raw, output_dir=folder, **settings)
        writes.clear()
        with pytest.raises(Killed):
            components.train_cdi_model_torch(raw, None, config, execution)
        last = folder / "checkpoints" / "last.ckpt"
        resumed = components.train_cdi_model_torch(raw, None, config, execution, resume=last)
        assert resumed["history"] == wanted["history"]
        one, other = (r["models"]["diffraction_to_obj"].state_dict() for r in (wanted, resumed))
        assert all(torch.equal(value, other[name]) for name, value in one.items())
        assert rows(folder) == rows(tmp_path / "whole")
