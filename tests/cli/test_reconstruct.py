"""`ptycho reconstruct`: products, judged numbers, start from a network, Ctrl-C and resume, refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.simulation.scenario import Scenario, simulate

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of 36 patterns that holds its truth."""
    path = tmp_path_factory.mktemp("scans") / "scan.npz"
    simulate(Scenario(N=32, n_positions=36, step_px=3.0, photons=1e5, object="gaussian_random_field")).to_npz(
        path
    )
    return path


@pytest.fixture(scope="module")
def model(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained for one epoch."""
    out = tmp_path_factory.mktemp("model")
    words = "--nepochs 1 --batch_size 8 --n_filters_scale 1 --logger none --accelerator cpu --quiet"
    assert main(["train", str(scan), "-o", str(out), *words.split()]) == 0
    return out


def reconstruct(scan: Path, out: Path, words: str) -> int:
    return main(["reconstruct", str(scan), "-o", str(out), *words.split()])


def judged(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


def test_products_figures_and_judged_numbers(scan: Path, tmp_path: Path, capsys: Capture) -> None:
    assert (
        reconstruct(scan, tmp_path, "--sweeps 6 --background --intensity --positions free --probe-modes 2")
        == 0
    )
    shown = capsys.readouterr().out
    assert re.search(r"^R +0\.\d{4}", shown, re.MULTILINE) and "cNRMSE" in shown
    with np.load(tmp_path / "reconstruction.npz") as product:
        assert (
            product["object"].dtype == np.complex64 and product["object"].shape == product["coverage"].shape
        )
        assert product["probe"].shape == (2, 32, 32) and product["positions_px"].shape == (36, 2)
        assert product["origin_xy"].shape == (2,) and product["r_per_pattern"].shape == (36,)
    for name in ("reconstruction.png", "probe.png", "r_map.png", "history.png", "history.json"):
        assert (tmp_path / name).stat().st_size > 100
    with np.load(tmp_path / "unknowns.npz") as more:
        assert more["intensity"].shape == (36,) and more["background"].shape == (32, 32)
    assert len(json.loads((tmp_path / "history.json").read_text())["r_factor"]) == 6


def test_more_sweeps_bring_it_nearer_to_the_truth(scan: Path, tmp_path: Path) -> None:
    for sweeps in (1, 25):
        assert reconstruct(scan, tmp_path / str(sweeps), f"--sweeps {sweeps} --quiet") == 0
    few, many = judged(tmp_path / "1"), judged(tmp_path / "25")
    assert many["nrmse"] < few["nrmse"] and many["r_factor"] < few["r_factor"]


def test_network_alone_and_network_refined(scan: Path, model: Path, tmp_path: Path) -> None:
    assert reconstruct(scan, tmp_path / "network", f"--model {model} --refine none --quiet") == 0
    assert reconstruct(scan, tmp_path / "refined", f"--model {model} --sweeps 8 --quiet") == 0
    assert judged(tmp_path / "network")["sweeps"] == 0
    assert judged(tmp_path / "refined")["r_factor"] < judged(tmp_path / "network")["r_factor"]


def test_ctrl_c_writes_the_best_and_resume_ends_where_an_uninterrupted_run_does(
    scan: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptycho_torch.refine.rpie import RPIE

    assert reconstruct(scan, tmp_path / "whole", "--sweeps 6 --quiet") == 0
    step, calls = RPIE.step, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(RPIE, "step", interrupted)
    assert reconstruct(scan, tmp_path / "cut", "--sweeps 6") == 130
    monkeypatch.setattr(RPIE, "step", step)
    assert "go on with --resume" in capsys.readouterr().err
    assert judged(tmp_path / "cut")["stopped"] == "interrupted"
    assert 0 < judged(tmp_path / "cut")["sweeps"] < 6
    assert reconstruct(scan, tmp_path / "cut", "--sweeps 6 --resume --quiet") == 0
    with (
        np.load(tmp_path / "whole/reconstruction.npz") as whole,
        np.load(tmp_path / "cut/reconstruction.npz") as cut,
    ):
        assert whole["object"].tobytes() == cut["object"].tobytes()
        assert whole["probe"].tobytes() == cut["probe"].tobytes()


def test_it_chooses_says_what_it_did_and_shows_the_image_as_it_forms(
    scan: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert reconstruct(scan, tmp_path, "--preview") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^preview.png: after 0 sweeps$", shown, re.MULTILINE)
    assert re.search(r"^start: .+; (\d+) sweeps", shown, re.MULTILINE)
    assert judged(tmp_path)["sweeps"] >= 20 and judged(tmp_path)["start"] in (
        "flat",
        "coarse",
        "coarse amplitude",
    )
    assert (tmp_path / "preview.png").read_bytes().startswith(b"\x89PNG")


def test_the_plain_loop_can_be_asked_for(scan: Path, tmp_path: Path, capsys: Capture) -> None:
    words = "--start flat --levels 1 --prior none --sweeps 4"
    assert reconstruct(scan, tmp_path, words) == 0
    assert "start: a flat object; 4 sweeps" in capsys.readouterr().out
    assert judged(tmp_path)["start"] == "flat" and judged(tmp_path)["prior_weight"] == 0


def test_prior_is_used_on_demand(scan: Path, tmp_path: Path, capsys: Capture) -> None:
    assert reconstruct(scan, tmp_path, "--prior tv --sweeps 4") == 0
    assert "total variation by held-out patterns" in capsys.readouterr().out
    assert reconstruct(scan, tmp_path, "--prior learned --sweeps 4 --overwrite") == 0
    assert "learned prior by held-out patterns" in capsys.readouterr().out


REFUSED = {
    "no scan": ("reconstruct -o out", "scan|SCAN"),
    "no output": ("reconstruct SCAN", "give -o OUT"),
    "scan absent": ("reconstruct nowhere.npz -o out", "nowhere.npz"),
    "unknown rule": ("reconstruct SCAN -o out --refine magic", "--refine: invalid choice"),
    "unknown flag": ("reconstruct SCAN -o out --sweep 3", "nearest known: --sweeps"),
    "the other backend": ("reconstruct SCAN -o out --backend tensorflow", "runs in PyTorch only"),
    "no sweeps": ("reconstruct SCAN -o out --sweeps 0", "--sweeps 0: must be at least 1"),
    "unknown start": ("reconstruct SCAN -o out --start warm", "--start: invalid choice"),
    "unknown prior": ("reconstruct SCAN -o out --prior l1", "--prior: invalid choice"),
    "three levels": ("reconstruct SCAN -o out --levels 3", "--levels: invalid choice"),
    "negative seed": ("reconstruct SCAN -o out --seed -1", "--seed -1"),
    "too many modes": ("reconstruct SCAN -o out --probe-modes 99", "between 1 and 16"),
    "errors but fixed": ("reconstruct SCAN -o out --position-error 3", "needs positions"),
    "nothing to do": ("reconstruct SCAN -o out --refine none", "leaves nothing to do"),
    "nothing to resume": ("reconstruct SCAN -o out --resume", "leave --resume out"),
    "no model there": ("reconstruct SCAN -o out --model nowhere", "nowhere"),
    "no such device": ("reconstruct SCAN -o out --device abacus", "device 'abacus'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(
    name: str, scan: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, message = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    assert main([str(scan) if word == "SCAN" else word for word in words.split()]) == 2
    shown = capsys.readouterr()
    assert len(shown.err.strip().splitlines()) == 1 and re.search(message, shown.err)
    assert shown.out == "" and not (tmp_path / "out" / "reconstruction.npz").exists()


def test_a_state_of_another_run_is_refused(scan: Path, tmp_path: Path, capsys: Capture) -> None:
    assert reconstruct(scan, tmp_path, "--sweeps 2 --quiet") == 0
    assert reconstruct(scan, tmp_path, "--sweeps 3 --resume") == 2
    assert "epochs = 2, not 3" in capsys.readouterr().err
    (tmp_path / "refine.safetensors").write_bytes(b"no state")
    assert reconstruct(scan, tmp_path, "--sweeps 2 --resume") == 2
    assert "no refinement checkpoint" in capsys.readouterr().err
