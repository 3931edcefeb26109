"""`benchmarks/gpu.py`, which is for a GPU, runs on the CPU: it measures, and it notices what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import gpu

pytestmark = pytest.mark.slow


def run(monkeypatch, tmp_path: Path, *more: str) -> tuple[int, dict]:
    words = [
        "gpu.py",
        "--device",
        "cpu",
        "--quick",
        "--sides",
        "32",
        "--json",
        str(tmp_path / "out.json"),
        *more,
    ]
    monkeypatch.setattr(sys, "argv", words)
    return gpu.main(), json.loads((tmp_path / "out.json").read_text())


def test_the_cpu_is_right_and_every_rate_is_measured(monkeypatch, tmp_path, capsys):
    code, report = run(monkeypatch, tmp_path)
    assert code == 0 and report["right"] is True
    assert set(report["correctness"]) == set(gpu.TOLERANCES)
    assert all(value <= 1e-9 for value in report["correctness"].values())
    measured = {
        (row["what"], row["precision"]) for row in report["rates"] if row.get("patterns_per_s", 0) > 0
    }
    pairs = [(what, p) for what in ("training", "inference") for p in ("fp32", "bf16")]
    assert measured == {*pairs, ("engine", "fp32")}, report["rates"]
    assert "| patches |" in capsys.readouterr().out


def test_a_wrong_device_is_told(monkeypatch, tmp_path, capsys):
    """Gradients that are off by a percent: exit code 1, and the rates are said to be of wrong numbers."""
    exact = gpu.loss_and_gradient

    def off(problem, kind):
        loss, gradient = exact(problem, kind)
        calls.append(kind)
        return loss, gradient * (1.01 if len(calls) % 2 else 1)

    calls: list[int] = []
    monkeypatch.setattr(gpu, "loss_and_gradient", off)
    code, report = run(monkeypatch, tmp_path, "--seconds", "0")
    assert code == 1 and report["right"] is False
    assert report["correctness"]["gradient"] == pytest.approx(0.01, rel=0.1)
    assert {row["note"] for row in report["rates"]} == {"out of time"}
    assert "WRONG" in capsys.readouterr().out


def test_what_a_machine_does_not_know_is_a_note(monkeypatch):
    problem = gpu.Problem.of(32, 16, 8, torch.device("cpu"), 0)
    assert np.isfinite(gpu.loss_and_gradient(problem, 1)[0])
    with pytest.raises((RuntimeError, AssertionError)):  # no CUDA here; `measure` makes a note of it
        gpu.inference(problem, 8, "fp32", "graphs", 0.01)
